//! How many enrolments a second the store takes, templates given.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{EnrolError, Gallery, NewReference, StoreError};
use crate::domain::{SubjectId, Template};

/// What [`bench_enrol`] measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct EnrolReport {
    pub enrolments_per_s: f64,
    pub references: usize,
    pub concurrency: usize,
    pub seconds: f64,
}

/// Enrols `references` made-up templates, each of its own subject, from `concurrency` callers. They stay in the gallery.
pub async fn bench_enrol(
    gallery: &Arc<Gallery>,
    references: usize,
    concurrency: usize,
) -> Result<EnrolReport, EnrolError> {
    let concurrency = concurrency.max(1);
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let callers: Vec<_> = (0..concurrency)
        .map(|_| {
            let (gallery, next) = (Arc::clone(gallery), Arc::clone(&next));
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= references {
                        return Ok::<_, EnrolError>(());
                    }
                    let Some(new) = made_up(&gallery, number) else { return Ok(()) };
                    gallery.enrol(new).await?;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.map_err(|_| StoreError::Closed)??;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(EnrolReport { enrolments_per_s: references as f64 / seconds, references, concurrency, seconds })
}

fn made_up(gallery: &Gallery, number: usize) -> Option<NewReference> {
    let value = |i: usize| ((number.wrapping_mul(31) + i).wrapping_mul(2_654_435_761) % 65_521) as f32 / 65_521.0 - 0.5;
    let template = Template::new(gallery.model(), (0..gallery.dimension()).map(value).collect()).ok()?;
    Some(NewReference { id: None, subject: SubjectId::new(&format!("bench-{number}")).ok()?, template })
}
