//! Every call that names a client is counted once, by the code that it ended with, also where no method of ours has seen it.

use std::time::{Duration, Instant};

use tonic::Code;

use crate::{
    faces::PEOPLE,
    http2::{DATA, END_HEADERS, HEADERS, PING, RST_STREAM, Wire, frame, grpc_headers, grpc_message},
    requests::{encoded, of, refusal, verify, verify_inline},
    server::{CONFIG, Server},
};

const GALLERY: &str = "subscribers";
const VERIFY: &str = "/vultus.v1.MatchService/Verify";

/// Waits until so many calls have ended with the code.
fn counted(server: &Server, rpc: &str, code: &str, number: u32) {
    let line = format!("vultus_answers_total{{code=\"{code}\",rpc=\"{rpc}\"}} {number}\n");
    let started = Instant::now();
    while !server.scrape().contains(&line) {
        let all: Vec<_> = server.scrape().lines().filter(|l| l.contains("answers_total{")).map(str::to_owned).collect();
        assert!(started.elapsed() < Duration::from_secs(10), "expected {line}, got {all:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn what_the_transport_refuses_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut matching = server.matching().await;
    let large = matching.verify(of("shop", verify(GALLERY, "nobody", encoded(vec![0; 6 << 20])))).await;
    assert_eq!(large.unwrap_err().code(), Code::OutOfRange);
    counted(&server, "Verify", "OUT_OF_RANGE", 1);
    let mut wire = Wire::greeted(&server.address);
    let no_message = |stream, bytes: &[u8]| {
        let request = frame(HEADERS, END_HEADERS, stream, &grpc_headers(VERIFY, "shop"));
        [request, frame(DATA, 1, stream, &grpc_message(bytes.len(), bytes))].concat()
    };
    wire.send(&no_message(1, &[0xff; 40]));
    assert!(wire.next_of(HEADERS).is_some());
    counted(&server, "Verify", "INTERNAL", 1);
    wire.send(&frame(HEADERS, END_HEADERS | 1, 3, &grpc_headers("/vultus.v1.MatchService/Guess", "shop")));
    assert!(wire.next_of(HEADERS).is_some());
    counted(&server, "other", "UNIMPLEMENTED", 1);
    wire.send(&frame(HEADERS, END_HEADERS | 1, 5, &grpc_headers(VERIFY, "stranger")));
    assert!(wire.next_of(HEADERS).is_some());
    counted(&server, "Verify", "PERMISSION_DENIED", 1);
    // Refused at the door, it says nothing of how long an answer takes.
    let scrape = server.scrape();
    assert!(scrape.contains("vultus_request_seconds_count{rpc=\"Verify\"} 2\n"), "{scrape}");
}

#[tokio::test]
async fn who_leaves_with_half_a_message_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut wire = Wire::greeted(&server.address);
    let half = |stream| {
        let message = grpc_message(1000, &[0; 500]);
        [frame(HEADERS, END_HEADERS, stream, &grpc_headers(VERIFY, "shop")), frame(DATA, 0, stream, &message)].concat()
    };
    for (stream, reason, number) in [(1, 8_u32, 1), (3, 0, 2)] {
        wire.send(&half(stream));
        wire.send(&frame(RST_STREAM, 0, stream, &reason.to_be_bytes()));
        counted(&server, "Verify", "CANCELLED", number);
    }
    wire.send(&half(5));
    // Begun before the connection ends: what ends with its headers never was a call.
    wire.send(&frame(PING, 0, 0, &[0; 8]));
    assert!(wire.next_of(PING).is_some());
    wire.done();
    counted(&server, "Verify", "CANCELLED", 3);
    assert!(!server.scrape().contains("vultus_answers_total{code=\"INTERNAL\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_and_who_is_late_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &format!("{CONFIG}\n[limits]\ndefault_deadline_ms = 40"));
    let matching = server.matching().await;
    let impatient = || of("shop", verify_inline(PEOPLE[0].probe.clone(), PEOPLE[0].reference.clone()));
    let request = move || {
        let mut request = impatient();
        request.metadata_mut().insert("grpc-timeout", "60S".parse().unwrap());
        request
    };
    // Behind others, so that none is there when its time is up.
    let ahead: Vec<_> = (0..40)
        .map(|_| {
            let mut matching = matching.clone();
            tokio::spawn(async move { matching.verify(request()).await.is_ok() })
        })
        .collect();
    // Their messages do not wait for those of the others.
    let (mut late, mut leaves) = (server.matching().await, server.matching().await);
    let left = tokio::spawn(async move { leaves.verify(request()).await.is_ok() });
    let refused = refusal(late.verify(impatient()).await);
    assert_eq!(refused, (Code::DeadlineExceeded, "DEADLINE".into()));
    left.abort();
    counted(&server, "Verify", "DEADLINE_EXCEEDED", 1);
    counted(&server, "Verify", "CANCELLED", 1);
    for call in ahead {
        assert!(call.await.unwrap());
    }
    counted(&server, "Verify", "OK", 40);
    let scrape = server.scrape();
    assert!(scrape.contains("vultus_request_seconds_count{rpc=\"Verify\"} 41\n"), "{scrape}");
    // The log's thread may be a little behind.
    let started = Instant::now();
    let is_told = |line: &str| line.contains("DEADLINE") && line.contains("t-1") && line.contains("shop");
    while !server.log().lines().any(is_told) {
        assert!(started.elapsed() < Duration::from_secs(5), "{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}
