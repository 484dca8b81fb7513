//! What tests of galleries share.
#![allow(dead_code)] // each test binary uses a part

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use vultus::{
    domain::{GalleryName, Lane, ModelDigest, ReferenceId, SubjectId, Template, Turn},
    gallery::{Galleries, Gallery, NewReference, Settings},
    seal::RootKey,
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
    gallery.enrol(NewReference { id: None, subject: subject(who), template }).await.unwrap().id
}

pub async fn gallery(galleries: &Galleries) -> Arc<Gallery> {
    galleries.get_or_create(&name("main"), digest(1), 16).await.unwrap()
}
