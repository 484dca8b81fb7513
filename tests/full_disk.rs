//! A full disk: that of `common/disk`, with room for so many bytes, below a child of this test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;
#[path = "common/disk.rs"]
mod disk;

use std::{env, fs, path::Path, process::Command};

use common::{enrol, gallery, name, root, subject, template};
use disk::Faults;
use vultus::gallery::{EnrolError, Galleries, NewReference, Selector, Settings, StoreError, bench_enrol};

const CHILD: &str = "VULTUS_FULL_DISK";

/// Not a test of its own: what the parent runs over the small disk.
#[tokio::test]
async fn child() {
    let Ok(dir) = env::var(CHILD) else { return };
    let store = Path::new(&dir).join("store");
    disk::install(Faults::default());
    let settings = Settings { reserve_bytes: 2 << 20, max_references_per_subject: 1 << 20, ..Settings::default() };
    let galleries = Galleries::open(&store, &root(), settings.clone()).unwrap();
    let main = gallery(&galleries).await;
    enrol(&main, "who-leaves", template(1)).await;
    bench_enrol(&main, 600, 60).await.unwrap(); // all in the log yet: the file has to grow by it

    // Somebody else fills the disk.
    let leave = |bytes: u64| disk::set_capacity(disk::used() + bytes, &store.join("reserve"));
    disk::set_capacity(u64::MAX, &store.join("reserve"));
    leave(400 << 10);
    let mut enrolled = 601;
    let refusal = loop {
        let new = NewReference {
            id: None,
            subject: subject("stays"),
            template: template(enrolled),
            extraction: Default::default(),
        };
        match main.enrol(new).await {
            Ok(_) => enrolled += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(refusal, EnrolError::Store(StoreError::Full)), "{refusal}");
    leave(0);
    galleries.close().await;

    let galleries = Galleries::open(&store, &root(), settings).expect("opens on a full disk");
    let main = galleries.get(&name("main")).unwrap();
    assert_eq!(main.describe().references, enrolled as usize);
    // Both share a commit: the enrolment may fail for want of room, the erasure may not.
    let new =
        NewReference { id: None, subject: subject("stays"), template: template(0), extraction: Default::default() };
    let (_, erased) = tokio::join!(main.enrol(new), main.erase(Selector::Subject(subject("who-leaves"))));
    assert_eq!(erased.expect("erases on a full disk").references, 1);
    assert!(!galleries.has_failed());
    for file in fs::read_dir(&store).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(10).any(|part| part == b"who-leaves"), "its name is left on the disk");
    }
    galleries.close().await;
}

#[test]
fn erasing_works_on_a_full_disk() {
    if env::var(CHILD).is_ok() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let ran = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(CHILD, home.path())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
