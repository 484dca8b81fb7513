//! Clients that hold on to what they are given: messages that never come, answers that nobody reads, calls that ask for no name.

use std::time::{Duration, Instant};

use prost::Message;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use vultus::rpc::pb::{self, enrol_stream_response::Result as Outcome};

use crate::{
    faces::PEOPLE,
    http2::{DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, Wire, frame, grpc_headers, grpc_message},
    requests::{enrol, of, raw, verify},
    server::{CONFIG, Server},
};

const GALLERY: &str = "subscribers";
const VERIFY: &str = "/vultus.v1.MatchService/Verify";
const CHECK: &str = "/grpc.health.v1.Health/Check";

fn with_limits(dir: &tempfile::TempDir, limits: &str) -> Server {
    Server::start_with(dir.path(), &format!("{CONFIG}\n[limits]\n{limits}"))
}

fn in_flight(server: &Server) -> bool {
    !server.scrape().contains(r#"vultus_requests_in_flight{lane="verification"} 0"#)
}

#[tokio::test]
async fn a_message_that_never_comes_gives_its_place_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "message_timeout_ms = 600");
    // A first request makes the metric.
    let request = || of("shop", verify(GALLERY, "nobody", PEOPLE[0].probe.clone()));
    server.matching().await.verify(request()).await.unwrap();
    let mut wire = Wire::greeted(&server.address);
    let started = Instant::now();
    wire.send(&frame(HEADERS, END_HEADERS, 1, &grpc_headers(VERIFY, "shop")));
    while !in_flight(&server) {
        assert!(started.elapsed() < Duration::from_millis(500), "the request was not let in");
    }
    assert!(wire.next_of(HEADERS).is_some(), "answered: it came too slowly");
    assert!(started.elapsed() >= Duration::from_millis(550), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(8), "long before the deadline: {:?}", started.elapsed());
    assert!(!in_flight(&server));
}

/// Two clients take every place for calls without messages, and again whenever one is lost.
#[tokio::test(flavor = "multi_thread")]
async fn calls_without_messages_keep_no_other_client_out() {
    let dir = tempfile::tempdir().unwrap();
    let booth =
        "[clients.booth]\nrights = [\"verify\"]\npurposes = [\"sim_activation\"]\ngalleries = [\"subscribers\"]";
    let server = Server::start_with(dir.path(), &format!("{CONFIG}\n{booth}\n[limits]\nverifications_in_flight = 32"));
    let full = r#"vultus_requests_in_flight{lane="verification"} 32"#;
    let silent = ["shop", "kiosk"].map(|client| {
        let mut wire = Wire::greeted(&server.address);
        let open = |call: u32| frame(HEADERS, END_HEADERS, 2 * call + 1, &grpc_headers(VERIFY, client));
        (0..16).for_each(|call| wire.send(&open(call)));
        std::thread::spawn(move || {
            // Every call that is broken off comes again. The connection's number of calls is what ends this.
            for again in 16..400 {
                if wire.next_of(HEADERS).is_none() {
                    return again;
                }
                wire.send(&open(again));
            }
            400
        })
    });
    let started = Instant::now();
    while !server.scrape().contains(full) {
        assert!(started.elapsed() < Duration::from_secs(5), "{}", server.scrape());
    }
    let mut matching = server.matching().await;
    for call in 0..40 {
        let answer = matching.verify(of("booth", verify(GALLERY, "nobody", PEOPLE[0].probe.clone()))).await;
        assert!(answer.is_ok(), "call {call}: {answer:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(9), "not by the messages' time: {:?}", started.elapsed());
    let refused = r#"vultus_refusals_total{lane="verification",reason="unarrived"}"#;
    assert!(server.scrape().contains(refused), "{}", server.scrape());
    server.kill();
    let _ = silent.map(|silent| silent.join().unwrap());
}

/// A message of 4 MiB to a service that asks for no client: refused by what it says of itself, and one that is never sent by the clock.
#[tokio::test]
async fn health_holds_nothing_for_strangers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let started = Instant::now();
    let mut large = Wire::greeted(&server.address);
    large.send(&frame(HEADERS, END_HEADERS, 1, &grpc_headers(CHECK, "")));
    large.send(&frame(DATA, 0, 1, &grpc_message(4 << 20, &[0x0a; 1000])));
    assert!(large.next_of(HEADERS).is_some());
    let refused_after = started.elapsed();
    assert!(refused_after < Duration::from_millis(1500), "not by its size, but by the clock: {refused_after:?}");
    let started = Instant::now();
    let mut silent = Wire::greeted(&server.address);
    silent.send(&frame(HEADERS, END_HEADERS, 1, &grpc_headers(CHECK, "")));
    assert!(silent.next_of(HEADERS).is_some());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn open_streams_are_few_and_checks_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "open_streams = 2");
    let mut health = HealthClient::new(server.channel().await);
    let all = || HealthCheckRequest { service: String::new() };
    let first = health.watch(all()).await.unwrap();
    let _second = health.watch(all()).await.unwrap();
    assert_eq!(health.watch(all()).await.unwrap_err().code(), Code::ResourceExhausted);
    assert!(health.check(all()).await.is_ok());
    drop(first);
    let started = Instant::now();
    while health.watch(all()).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "its place did not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client that grants no window for answers, and sends more items than all streams together may have in work.
fn unread_stream(server: &Server) -> Wire {
    let mut wire = Wire::connect(&server.address);
    wire.send(PREFACE);
    wire.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])); // INITIAL_WINDOW_SIZE 0
    wire.send(&frame(HEADERS, END_HEADERS, 1, &grpc_headers("/vultus.v1.GalleryService/EnrolStream", "shop")));
    let items: Vec<u8> = (1..=400)
        .flat_map(|item| {
            let message = pb::EnrolStreamRequest { item, enrolment: None }.encode_to_vec();
            grpc_message(message.len(), &message)
        })
        .collect();
    wire.send(&frame(DATA, 0, 1, &items));
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_stop_no_other_stream_and_no_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "drain_grace_s = 8");
    let _unread = unread_stream(&server);
    tokio::time::sleep(Duration::from_secs(1)).await; // its items are in work, and then done
    let mut gallery = server.gallery().await;
    let items = tokio_stream::iter([pb::EnrolStreamRequest {
        item: 1,
        enrolment: Some(enrol(GALLERY, "alice", PEOPLE[0].reference.clone())),
    }]);
    let mut statuses = gallery.enrol_stream(of("shop", items)).await.unwrap().into_inner();
    let status =
        tokio::time::timeout(Duration::from_secs(10), statuses.next()).await.expect("the other stream goes on");
    assert!(matches!(status.unwrap().unwrap().result, Some(Outcome::Enrolled(_))));
    drop((statuses, gallery));
    let (log, told) = (dir.path().join("server.log"), Instant::now());
    let ended = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
    // Its grace it has, to read what was done for it. Then nobody says that it was answered.
    let took = told.elapsed();
    assert!((Duration::from_secs(8)..Duration::from_secs(14)).contains(&took), "{took:?}");
    assert_eq!(ended.code(), Some(3));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("stopped; the grace was over"), "{log}");
}

/// With an unread stream to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let _unread = unread_stream(&server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.tell_to_stop();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let again = Instant::now();
    server.tell_to_stop();
    let ended = tokio::task::spawn_blocking(move || server.end()).await.unwrap();
    assert!(ended.code() == Some(130) && again.elapsed() < Duration::from_secs(2), "{ended}, {:?}", again.elapsed());
    let log = std::fs::read_to_string(dir.path().join("server.log")).unwrap();
    assert!(log.contains("told to stop again; stopping at once"), "{log}");
}

/// Ends a server with an unread stream, of which something becomes only after the server has given up waiting for room in it.
async fn ends_as_answered(later: impl FnOnce(Wire) + Send + 'static) {
    const LATER: Duration = Duration::from_secs(20);
    let dir = tempfile::tempdir().unwrap();
    // Three fourths of it for that, and a second in which all is quiet.
    let server = with_limits(&dir, "drain_grace_s = 24");
    let unread = unread_stream(&server);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = Instant::now();
    let reads = std::thread::spawn(move || {
        std::thread::sleep(LATER);
        later(unread);
    });
    let ended = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
    let took = told.elapsed();
    assert!((LATER..Duration::from_secs(24)).contains(&took), "{took:?}");
    assert_eq!(ended.code(), Some(0));
    let log = std::fs::read_to_string(dir.path().join("server.log")).unwrap();
    assert!(log.contains("stopped; every request was answered"), "{log}");
    reads.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_without_reading_is_owed_nothing() {
    ends_as_answered(drop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_late_within_the_grace_is_answered() {
    ends_as_answered(|mut unread| {
        unread.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])); // INITIAL_WINDOW_SIZE 65536
        assert!(std::iter::from_fn(|| unread.next()).any(|frame| (frame.kind, frame.stream) == (DATA, 1)));
    })
    .await;
}

#[tokio::test]
async fn a_streams_items_are_held_against_its_clients_bytes() {
    const SIDE: u32 = 840;
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "message_bytes = 2200000\nclient_bytes_in_flight = 2200000");
    // Each takes a while, and there is room for one.
    let items: Vec<_> = (1..=12u64)
        .map(|item| {
            let image = raw(SIDE, SIDE, vec![90; (SIDE * SIDE * 3) as usize]);
            pb::EnrolStreamRequest { item, enrolment: Some(enrol(GALLERY, &format!("s{item}"), image)) }
        })
        .collect();
    let mut gallery = server.gallery().await;
    let statuses = gallery.enrol_stream(of("shop", tokio_stream::iter(items))).await.unwrap().into_inner();
    let codes: Vec<Code> = statuses
        .map(|status| match status.unwrap().result.unwrap() {
            Outcome::Refused(refused) => Code::from(refused.code),
            Outcome::Enrolled(_) => panic!("a grey square is no face"),
        })
        .collect()
        .await;
    assert_eq!(codes.len(), 12);
    assert!(codes.contains(&Code::ResourceExhausted), "{codes:?}");
    assert!(codes.contains(&Code::FailedPrecondition), "one at a time is worked on: {codes:?}");
    assert!(server.scrape().contains("vultus_request_bytes 0"), "bytes come back");
}
