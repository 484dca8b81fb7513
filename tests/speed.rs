//! Figures, not verdicts: `cargo test --release --test speed -- --ignored --nocapture --test-threads=1`.
//! `VULTUS_SIZE`, `VULTUS_DIM` and `VULTUS_INDEX` choose the search.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::{env, time::Instant};

use vultus::{
    domain::Template,
    gallery::{Selector, bench_enrol},
};
use vultus_index::bench::bench_search;

use common::{digest, name, open, subject};

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.into())
}

#[test]
#[ignore = "a measurement"]
fn search() {
    let (size, dim) = (setting("VULTUS_SIZE", "200000"), setting("VULTUS_DIM", "512"));
    let spec = setting("VULTUS_INDEX", "flat").parse().unwrap();
    for (batch, queries) in [(1, 64), (32, 256), (256, 1024)] {
        let report = bench_search(size.parse().unwrap(), dim.parse().unwrap(), queries, batch, &spec).unwrap();
        println!("{}", serde_json::to_string(&report).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn enrol_search_erase_restart() {
    for (dim, count) in [(128, 40_000), (512, 40_000)] {
        let dir = tempfile::tempdir().unwrap();
        let galleries = open(dir.path());
        let main = galleries.get_or_create(&name("main"), digest(1), dim).await.unwrap();
        for concurrency in [1, 32, 256, 1024] {
            let report = bench_enrol(&main, if concurrency == 1 { 500 } else { count }, concurrency).await.unwrap();
            println!("{dim}-d {}", serde_json::to_string(&report).unwrap());
            for old in 0..count {
                if concurrency == 1024 || old >= 20 {
                    break;
                }
                let start = Instant::now();
                main.erase(Selector::Subject(subject(&format!("bench-{old}")))).await.unwrap();
                if old == 19 {
                    println!("{dim}-d erase {:?}", start.elapsed());
                }
            }
        }
        let probe = Template::new(digest(1), vec![0.1; dim]).unwrap();
        let start = Instant::now();
        for _ in 0..20 {
            common::search(&main, &probe, &subject("nobody"), 10).await;
        }
        println!("{dim}-d search of {} {:?}", main.describe().references, start.elapsed() / 20);
        let start = Instant::now();
        for _ in 0..10_000 {
            std::hint::black_box(main.references_of(&subject("bench-30000")).unwrap());
        }
        println!("{dim}-d references_of {:?}", start.elapsed() / 10_000);
        galleries.close().await;
        let start = Instant::now();
        let galleries = open(dir.path());
        println!("{dim}-d restart {:?}", start.elapsed());
        galleries.close().await;
    }
}
