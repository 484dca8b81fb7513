//! A gallery over indexes that are not the product's; and what tests of other modules ask of one.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use vultus_index::{IndexError, Indexes};

use super::{
    CreateError, EnrolError, Galleries, Gallery, NewReference, OpenError, SearchError, Selector, Settings, StoreError,
    doubles::{Faults, every_kind},
};
use crate::{
    domain::{
        Calibration, CalibrationPoint, Fmr, Fnir, Fpir, GalleryName, Lane, ModelDigest, Score, SearchRates, SubjectId,
        Tail, Template, Threshold, Turn,
    },
    seal::RootKey,
};

impl Gallery {
    /// Lets the store do `work` between two changes.
    pub(crate) async fn in_turn(&self, work: impl FnOnce() + Send + 'static) {
        self.store().unwrap().in_turn(Box::new(work)).await;
    }
}

const MODEL: ModelDigest = ModelDigest::new([1; 32]);

fn open(dir: &Path, indexes: &Arc<dyn Indexes>) -> Galleries {
    let settings = Settings { indexes: Arc::clone(indexes), reserve_bytes: 1 << 16, ..Settings::default() };
    Galleries::open(dir, &RootKey::from_bytes([7; 32]), settings).unwrap()
}

async fn main(galleries: &Galleries) -> Arc<Gallery> {
    galleries.get_or_create(&GalleryName::new("main").unwrap(), MODEL, 4).await.unwrap()
}

fn who(place: usize) -> SubjectId {
    SubjectId::new(&format!("s{place}")).unwrap()
}

/// Faces stand in a row: each reaches the threshold with its neighbours alone.
fn face(place: usize) -> Template {
    Template::new(MODEL, vec![place as f32 * 0.3; 4]).unwrap()
}

async fn enrol(gallery: &Gallery, place: usize) {
    gallery
        .enrol(NewReference { id: None, subject: who(place), template: face(place), extraction: Default::default() })
        .await
        .unwrap();
}

/// The places of whoever is found for the face of a place, but for its own.
async fn found(gallery: &Arc<Gallery>, place: usize) -> Result<Vec<String>, SearchError> {
    let threshold = Threshold::new(Score::new(0.5).unwrap());
    let point = CalibrationPoint { fmr: Fmr::ONE, threshold, trials: 1, fnmr: Some(0.1) };
    let calibration = Arc::new(Calibration::new(vec![point]).unwrap());
    let rates = SearchRates { calibration, max_fpir: Fpir::ONE, max_fnir: Fnir::ONE, tail: Tail::Measured };
    let turn = Turn::own(Lane::Identification, Instant::now() + Duration::from_secs(60));
    let found = gallery.search(&face(place), &who(place), 9, &rates, &turn).await?;
    let mut people: Vec<_> = found.candidates.as_slice().iter().map(|c| c.subject.to_string()).collect();
    people.sort();
    Ok(people)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gallery_answers_alike_over_every_kind_of_index() {
    for indexes in every_kind() {
        let dir = tempfile::tempdir().unwrap();
        let galleries = open(dir.path(), &indexes);
        let gallery = main(&galleries).await;
        for place in 10..20 {
            enrol(&gallery, place).await;
        }
        gallery.erase(Selector::Subject(who(14))).await.unwrap();
        let check = async |gallery: &Arc<Gallery>| {
            assert_eq!(found(gallery, 12).await.unwrap(), ["s11", "s13"], "{indexes:?}");
            assert_eq!(found(gallery, 13).await.unwrap(), ["s12"], "{indexes:?}");
            let (epoch, references) = gallery.claim(&who(13)).unwrap();
            assert_eq!((epoch, references.len(), &references[0].template), (11, 1, &face(13)));
            assert!(gallery.references_of(&who(14)).unwrap().is_empty());
        };
        check(&gallery).await;
        galleries.close().await;
        let galleries = open(dir.path(), &indexes);
        check(&main(&galleries).await).await;
        galleries.close().await;
    }
}

#[tokio::test]
async fn an_index_that_fails_fails_the_store_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let galleries = open(dir.path(), &(Arc::new(faults.clone()) as Arc<dyn Indexes>));
    let gallery = main(&galleries).await;
    enrol(&gallery, 1).await;
    faults.inserting.store(true, SeqCst);
    let new =
        |place| NewReference { id: None, subject: who(place), template: face(place), extraction: Default::default() };
    let failed = gallery.enrol(new(2)).await;
    assert!(matches!(failed, Err(EnrolError::Store(StoreError::Failed(_)))), "{failed:?}");
    assert!(galleries.has_failed());
    // What memory has is what it had, at the position that it had.
    assert!(!gallery.knows(&who(2)) && gallery.epoch() == 1);
    faults.inserting.store(false, SeqCst);
    assert!(gallery.enrol(new(3)).await.is_err() && !gallery.knows(&who(3)));
    galleries.close().await;

    let galleries = open(dir.path(), &every_kind()[0]);
    let gallery = main(&galleries).await;
    assert!(gallery.knows(&who(2)) && !gallery.knows(&who(3)));
    assert_eq!((gallery.epoch(), galleries.has_failed()), (2, false));
    galleries.close().await;

    // Nor is a gallery lost for which no index could be made; without one nothing is served.
    faults.making.store(true, SeqCst);
    let dir = tempfile::tempdir().unwrap();
    let indexes = Arc::new(faults.clone()) as Arc<dyn Indexes>;
    let galleries = open(dir.path(), &indexes);
    let failed = galleries.get_or_create(&GalleryName::new("main").unwrap(), MODEL, 4).await;
    assert!(matches!(failed, Err(CreateError::Store(StoreError::Failed(_)))) && galleries.has_failed());
    galleries.close().await;
    let settings = Settings { indexes, ..Settings::default() };
    let refused = Galleries::open(dir.path(), &RootKey::from_bytes([7; 32]), settings);
    assert!(matches!(refused, Err(OpenError::Index(_))));
    faults.making.store(false, SeqCst);
    let galleries = open(dir.path(), &every_kind()[0]);
    assert_eq!(main(&galleries).await.epoch(), 0);
    galleries.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_decided_without_a_template_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Faults::default();
    let galleries = open(dir.path(), &(Arc::new(faults.clone()) as Arc<dyn Indexes>));
    let gallery = main(&galleries).await;
    for place in [1, 2, 9] {
        enrol(&gallery, place).await;
    }
    for fault in [&faults.reading, &faults.keeping] {
        fault.store(true, SeqCst);
        assert!(matches!(gallery.claim(&who(1)), Err(StoreError::Unreadable(_))));
        let missed = found(&gallery, 1).await;
        assert!(matches!(missed, Err(SearchError::Index(IndexError::Unreadable { .. }))), "{missed:?}");
        // Whoever needs none of them is answered.
        assert!(found(&gallery, 5).await.unwrap().is_empty() && gallery.claim(&who(5)).unwrap().1.is_empty());
        fault.store(false, SeqCst);
    }
    assert_eq!(found(&gallery, 1).await.unwrap(), ["s2"]);
    galleries.close().await;
}
