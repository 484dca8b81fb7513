//! What tests of galleries share.
#![allow(dead_code)] // each test binary uses a part

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use vultus::{
    domain::{
        Calibration, CalibrationPoint, CandidateList, Case, Fmr, Fnir, Fpir, GalleryName, Lane, ModelDigest,
        ReferenceId, Score, SearchRates, SubjectId, Tail, Template, Threshold, Turn,
    },
    gallery::{Finding, Galleries, Gallery, NewReference, Outcome, ServiceTime, Settings, SpendError},
    seal::{RootKey, random},
};

pub fn root() -> RootKey {
    RootKey::from_bytes([7; 32])
}

pub fn open(dir: &Path) -> Galleries {
    // A small reserve: some tests read every byte on the disk.
    Galleries::open(dir, &root(), Settings { reserve_bytes: 1 << 16, ..Settings::default() }).unwrap()
}

pub fn digest(n: u8) -> ModelDigest {
    ModelDigest::new([n; 32])
}

pub fn name(text: &str) -> GalleryName {
    GalleryName::new(text).unwrap()
}

pub fn subject(text: &str) -> SubjectId {
    SubjectId::new(text).unwrap()
}

/// 16 values that follow from `seed` and from nothing else, unlike those of other seeds.
pub fn template(seed: u64) -> Template {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    let value = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    Template::new(digest(1), (0..16).map(value).collect()).unwrap()
}

/// Of a search that may take its time.
pub fn turn() -> Turn {
    Turn::own(Lane::Identification, Instant::now() + Duration::from_secs(600))
}

pub async fn enrol(gallery: &Gallery, who: &str, template: Template) -> ReferenceId {
    gallery
        .enrol(NewReference { id: None, subject: subject(who), template, extraction: Default::default() })
        .await
        .unwrap()
        .id
}

pub async fn gallery(galleries: &Galleries) -> Arc<Gallery> {
    galleries.get_or_create(&name("main"), digest(1), 16).await.unwrap()
}

/// Rates whose threshold is `least` in a gallery of any size.
pub fn rates(least: f32) -> SearchRates {
    let threshold = Threshold::new(Score::new(least).unwrap());
    let point = CalibrationPoint { fmr: Fmr::ONE, threshold, trials: 1, fnmr: Some(0.125) };
    let calibration = Arc::new(Calibration::new(vec![point]).unwrap());
    SearchRates { calibration, max_fpir: Fpir::ONE, max_fnir: Fnir::ONE, tail: Tail::Measured }
}

/// The best `most` people of all, and the epoch.
pub async fn search(
    gallery: &Arc<Gallery>,
    probe: &Template,
    exclude: &SubjectId,
    most: usize,
) -> (CandidateList, u64) {
    let found = gallery.search(probe, exclude, most, &rates(-1e6), &turn()).await.unwrap();
    (found.candidates, found.epoch)
}

/// Records a case under a receipt of its own.
pub async fn open_case(gallery: &Gallery, case: Case) -> Result<(Outcome, bool), SpendError> {
    let nonce = *ReferenceId::from_random_bytes(random().unwrap()).as_bytes();
    finish(gallery, nonce, Some(case)).await
}

/// Ends the search of the receipt of this `nonce`, which expires far from now.
pub async fn finish(gallery: &Gallery, nonce: [u8; 16], case: Option<Case>) -> Result<(Outcome, bool), SpendError> {
    let finding = Finding { case, epoch: gallery.epoch(), fnir: Some(0.125) };
    gallery.finish_identification(nonce, ServiceTime::from_micros(i64::MAX), finding).await
}
