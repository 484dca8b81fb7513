//! What stays behind: no image, no template, no receipt on the disk, in the log or in the metrics; the transaction on every line.

use std::{fs, path::Path};

use vultus::rpc::pb;

use crate::{
    faces::PEOPLE,
    requests::{enrol, identify, of, verify},
    server::{CONFIG, Server},
};

const GALLERY: &str = "subscribers";

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![fs::read(path).unwrap()] }).collect()
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn images_and_receipts_leave_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let json = CONFIG.replace("[server]", "[server]\nlog_format = \"json\"");
    let server = Server::start_with(dir.path(), &json);
    let (mut gallery, mut matching) = (server.gallery().await, server.matching().await);
    let mut first = enrol(GALLERY, "alice", PEOPLE[0].reference.clone());
    first.reference_id = "5f0c6c1e-8a57-4c0e-9b57-0d2f5b0e8c11".into();
    gallery.enrol(of("shop", first.clone())).await.unwrap();
    gallery.enrol(of("shop", first)).await.unwrap();
    let answer =
        matching.verify(of("shop", verify(GALLERY, "alice", PEOPLE[0].probe.clone()))).await.unwrap().into_inner();
    matching.identify(of("shop", identify(GALLERY, answer.receipt.clone()))).await.unwrap();
    let metrics = server.scrape();
    assert!(metrics.contains("vultus_enrolments_total 1\n"), "what is sent again counts once");
    // What a busy machine has yet to write is written by its end.
    let log = server.log_at_the_end();

    let mut left = files(dir.path());
    left.push(metrics.into_bytes());
    let rows = |image: &Option<pb::FaceImage>| match image.clone().unwrap().content {
        Some(pb::face_image::Content::Raw(raw)) => raw.rgb8,
        _ => panic!("raw"),
    };
    for (what, secret) in
        [("reference", rows(&PEOPLE[0].reference)), ("probe", rows(&PEOPLE[0].probe)), ("receipt", answer.receipt)]
    {
        let middle = secret.len() / 2;
        let needle = &secret[middle..middle + 24];
        assert!(left.iter().all(|file| !holds(file, needle)), "a part of the {what} was left behind");
    }
    let score = answer.score.unwrap().to_string();
    assert!(!log.contains(&score), "the log holds a score");

    let calls: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| !line["span"].is_null())
        .collect();
    assert!(calls.len() >= 3, "{log}");
    for line in &calls {
        assert_eq!(line["span"]["transaction_id"], "t-1", "{line}");
        assert_eq!(line["span"]["client"], "shop", "{line}");
        assert!(line["spans"].is_null(), "the span is there twice: {line}");
    }
}
