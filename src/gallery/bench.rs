//! How many enrolments a second the store takes, templates given; and what erasures do to verifications.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{EnrolError, EraseError, Gallery, NewReference, Selector, StoreError};
use crate::domain::{SubjectId, Template, compare_claim};

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
    Some(NewReference {
        id: None,
        subject: SubjectId::new(&format!("bench-{number}")).ok()?,
        template,
        extraction: Default::default(),
    })
}

/// What [`bench_erasures`] measured: how long the gallery's part of a verification takes, microseconds.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct ErasureReport {
    pub references: usize,
    pub dimension: usize,
    pub rounds: usize,
    pub verifications: usize,
    pub erasures: usize,
    pub p50_alone_us: f64,
    pub p50_beside_us: f64,
    pub p99_alone_us: f64,
    pub p99_beside_us: f64,
    pub max_alone_us: f64,
    pub max_beside_us: f64,
}

/// Comparisons of a claim, at times that are drawn, in turn alone and beside a caller who erases one subject after another, `seconds` each.
/// Made-up templates as in [`bench_enrol`], which has filled the gallery.
pub async fn bench_erasures(gallery: &Arc<Gallery>, seconds: f64, rounds: usize) -> Result<ErasureReport, EraseError> {
    let (references, mut next) = (gallery.describe().references, 0);
    let (mut alone, mut beside, mut erasures) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds.max(1) {
        alone.extend(claims_for(gallery, references, seconds, Arc::default()).await?);
        let ended = Arc::new(AtomicBool::new(false));
        let eraser = {
            let (gallery, ended) = (Arc::clone(gallery), Arc::clone(&ended));
            tokio::spawn(async move {
                let first = next;
                while !ended.load(Relaxed) {
                    // Subjects all over the gallery.
                    let number = next * 7919 % references.max(1);
                    next += 1;
                    if let Ok(subject) = SubjectId::new(&format!("bench-{number}")) {
                        gallery.erase(Selector::Subject(subject)).await?;
                    }
                }
                Ok::<_, EraseError>((next, next - first))
            })
        };
        beside.extend(claims_for(gallery, references, seconds, ended).await?);
        let erased = eraser.await.map_err(|_| StoreError::Closed)??;
        next = erased.0;
        erasures += erased.1;
    }
    let verifications = alone.len() + beside.len();
    let at = |share: f64, times: &mut Vec<Duration>| {
        times.sort_unstable();
        let place = (share * times.len().saturating_sub(1) as f64) as usize;
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    };
    Ok(ErasureReport {
        references,
        dimension: gallery.dimension(),
        rounds,
        verifications,
        erasures,
        p50_alone_us: at(0.5, &mut alone),
        p50_beside_us: at(0.5, &mut beside),
        p99_alone_us: at(0.99, &mut alone),
        p99_beside_us: at(0.99, &mut beside),
        max_alone_us: at(1.0, &mut alone),
        max_beside_us: at(1.0, &mut beside),
    })
}

/// About a thousand claims a second, on a thread of their own; says so in `ended` when the time is over.
async fn claims_for(
    gallery: &Arc<Gallery>,
    references: usize,
    seconds: f64,
    ended: Arc<AtomicBool>,
) -> Result<Vec<Duration>, StoreError> {
    let gallery = Arc::clone(gallery);
    let claims = tokio::task::spawn_blocking(move || {
        let (begun, mut times, mut number) = (Instant::now(), Vec::new(), 1_usize);
        while begun.elapsed().as_secs_f64() < seconds {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_micros((number >> 33) as u64 % 2000));
            let subject = SubjectId::new(&format!("bench-{}", (number >> 20) % references.max(1)));
            let Some((subject, probe)) = subject.ok().zip(made_up(&gallery, number)) else { continue };
            let start = Instant::now();
            let references = gallery.references_of(&subject)?;
            let templates: Vec<_> = references.iter().map(|reference| &reference.template).collect();
            let _ = std::hint::black_box(compare_claim(&probe.template, &templates)); // of one model
            times.push(start.elapsed());
        }
        Ok(times)
    });
    let claims = claims.await.map_err(|_| StoreError::Closed);
    ended.store(true, Relaxed);
    claims?
}
