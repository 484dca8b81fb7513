//! A disk that is truly full: a small file system in memory, mounted where only a child of this test sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::{env, fs, io::Write, path::Path, process::Command};

use common::{enrol, gallery, name, root, subject, template};
use vultus::gallery::{EnrolError, Galleries, NewReference, Selector, Settings, StoreError, bench_enrol};

const CHILD: &str = "VULTUS_FULL_DISK";

/// Not a test of its own: what the parent runs over the small disk.
#[tokio::test]
async fn child() {
    let Ok(dir) = env::var(CHILD) else { return };
    println!("began");
    let dir = Path::new(&dir);
    let store = dir.join("store");
    let settings = Settings { reserve_bytes: 2 << 20, max_references_per_subject: 1 << 20, ..Settings::default() };
    let galleries = Galleries::open(&store, &root(), settings.clone()).unwrap();
    let main = gallery(&galleries).await;
    enrol(&main, "who-leaves", template(1)).await;
    bench_enrol(&main, 600, 60).await.unwrap(); // all in the log yet: the file has to grow by it

    let mut filler = fs::File::create(dir.join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    filler.set_len(filler.metadata().unwrap().len() - (400 << 10)).unwrap();
    let mut enrolled = 601;
    let refusal = loop {
        let new = NewReference { id: None, subject: subject("stays"), template: template(enrolled) };
        match main.enrol(new).await {
            Ok(_) => enrolled += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(refusal, EnrolError::Store(StoreError::Full)), "{refusal}");
    while filler.write_all(&[1; 4096]).is_ok() {}
    galleries.close().await;

    let galleries = Galleries::open(&store, &root(), settings).expect("opens on a full disk");
    let main = galleries.get(&name("main")).unwrap();
    assert_eq!(main.describe().references, enrolled as usize);
    // Both share a commit: the enrolment may fail for want of room, the erasure may not.
    let new = NewReference { id: None, subject: subject("stays"), template: template(0) };
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
    let script = r#"mount -t tmpfs -o size=8m none "$2" && exec "$1" --exact child --nocapture --test-threads=1"#;
    let ran = Command::new("unshare")
        .args(["-rm", "sh", "-c", script, "sh"])
        .args([env::current_exe().unwrap().as_path(), home.path()])
        .env(CHILD, home.path())
        .output();
    match ran {
        Ok(ran) if String::from_utf8_lossy(&ran.stdout).contains("began") => {
            println!("on a full disk");
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        }
        _ => println!("skipped: this system lets a test mount no disk of its own"),
    }
}
