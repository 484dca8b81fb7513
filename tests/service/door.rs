//! The door: every limit of the transport is announced or kept, and what finds no room is told so at once, by its own reason.

use std::time::{Duration, Instant};

use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use vultus::rpc::pb::{
    Decision, gallery_service_client::GalleryServiceClient, match_service_client::MatchServiceClient,
};

use crate::{
    faces::PEOPLE,
    http2::{
        DATA, END_HEADERS, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, Wire, frame,
        grpc_headers, grpc_message, setting,
    },
    requests::{describe, encoded, enrol, of, refusal, verify},
    server::{CONFIG, Server},
};

const GALLERY: &str = "subscribers";
/// HTTP/2's code for a peer that asks too much.
const ENHANCE_YOUR_CALM: u32 = 11;
/// `:method: POST`, `:scheme: http`, `:path: /`, from HPACK's static table.
const POST_ROOT: [u8; 3] = [0x83, 0x86, 0x84];
/// A request without its method: malformed.
const WITHOUT_METHOD: [u8; 2] = [0x86, 0x84];

fn with_limits(dir: &tempfile::TempDir, limits: &str) -> Server {
    Server::start_with(dir.path(), &format!("{CONFIG}\n[limits]\n{limits}"))
}

#[test]
fn the_transport_announces_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(
        &dir,
        "streams_per_connection = 7\nstream_window_bytes = 100000\nframe_bytes = 32768\nheader_bytes = 8192\n\
         connection_window_bytes = 300000",
    );
    let mut wire = Wire::greeted(&server.address);
    let settings = wire.next_of(SETTINGS).unwrap();
    let numbers = [3, 4, 5, 6].map(|number| setting(&settings, number));
    // Of headers twice the limit, so that the door can refuse with a gRPC status what is beyond it.
    assert_eq!(numbers, [Some(7), Some(100_000), Some(32_768), Some(16_384)]);
    let update = wire.next_of(WINDOW_UPDATE).unwrap();
    let grown = u32::from_be_bytes(update.payload[..4].try_into().unwrap());
    assert_eq!((update.stream, grown), (0, 300_000 - 65_535), "the connection's window");
}

#[test]
fn a_connection_that_never_asks_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "handshake_timeout_ms = 300\nfirst_request_timeout_ms = 1500");
    let started = Instant::now();
    let mut half = Wire::connect(&server.address);
    half.send(&PREFACE[..20]);
    let mut greeted = Wire::greeted(&server.address);
    while half.next().is_some() {}
    let after_handshake = started.elapsed();
    assert!(after_handshake >= Duration::from_millis(290), "{after_handshake:?}");
    while greeted.next().is_some() {}
    let after_greeting = started.elapsed();
    assert!(after_greeting >= Duration::from_millis(1490), "{after_greeting:?}");
    assert!(after_greeting < Duration::from_secs(10), "{after_greeting:?}");
}

/// It answers pings, as any client does that means to stay.
#[test]
fn a_stream_that_is_let_go_at_once_buys_a_stranger_no_life() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "first_request_timeout_ms = 1500\nkeepalive_ms = 300");
    let mut wire = Wire::greeted(&server.address);
    let started = Instant::now();
    wire.send(&frame(HEADERS, END_HEADERS, 1, &grpc_headers("/grpc.health.v1.Health/Watch", "")));
    wire.send(&frame(DATA, 1, 1, &grpc_message(0, &[])));
    assert!(wire.next_of(DATA).is_some(), "it is told of health");
    wire.send(&frame(RST_STREAM, 0, 1, &8u32.to_be_bytes()));
    while let Some(said) = wire.next() {
        if said.kind == PING && said.flags == 0 {
            wire.send(&frame(PING, 1, 0, &said.payload));
        }
    }
    let lived = started.elapsed();
    assert!((Duration::from_millis(1400)..Duration::from_secs(10)).contains(&lived), "{lived:?}");
}

#[test]
fn an_old_connection_is_told_to_go_and_then_closed() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "connection_age_s = 1\nconnection_age_grace_s = 1");
    let mut wire = Wire::greeted(&server.address);
    let started = Instant::now();
    // A request that never ends, so that the connection is not done by itself.
    wire.send(&frame(HEADERS, END_HEADERS, 1, &POST_ROOT));
    assert!(wire.next_of(GOAWAY).is_some());
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    while wire.next().is_some() {}
}

#[test]
fn a_client_that_does_not_answer_a_ping_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "keepalive_ms = 300\nkeepalive_timeout_ms = 300");
    let mut wire = Wire::greeted(&server.address);
    let ping = wire.next_of(PING).unwrap();
    assert_eq!((ping.flags, ping.payload.len()), (0, 8));
    while wire.next().is_some() {} // ends
}

/// The code of the GOAWAY that ends a connection on which `frames` come at once.
fn end_of(server: &Server, frames: impl Iterator<Item = Vec<u8>>) -> u32 {
    let mut wire = Wire::greeted(&server.address);
    wire.send(&frames.flatten().collect::<Vec<_>>());
    let goaway = std::iter::from_fn(|| wire.next_of(GOAWAY)).last().expect("a GOAWAY before the end");
    u32::from_be_bytes(goaway.payload[4..8].try_into().unwrap())
}

#[tokio::test]
async fn floods_of_resets_end_their_connection_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "pending_resets = 20\nerror_resets = 20");
    let mut bystander = server.matching().await;
    let streams = || (0..2000u32).map(|i| 2 * i + 1);
    let given_up = streams().map(|stream| {
        let cancel = frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
        [frame(HEADERS, END_HEADERS, stream, &POST_ROOT), cancel].concat()
    });
    assert_eq!(end_of(&server, given_up), ENHANCE_YOUR_CALM);
    let malformed = streams().map(|stream| frame(HEADERS, END_HEADERS, stream, &WITHOUT_METHOD));
    assert_eq!(end_of(&server, malformed), ENHANCE_YOUR_CALM);
    let answer = bystander.verify(of("shop", verify(GALLERY, "nobody", PEOPLE[0].probe.clone()))).await;
    assert_eq!(answer.unwrap().into_inner().decision(), Decision::NonMatch);
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "header_bytes = 4096");
    let mut matching = server.matching().await;
    let mut request: Request<_> = of("shop", verify(GALLERY, "nobody", PEOPLE[0].probe.clone()));
    request.metadata_mut().insert("long", "x".repeat(6000).parse().unwrap());
    let refused = matching.verify(request).await;
    assert_eq!(refusal(refused), (Code::ResourceExhausted, "METADATA_TOO_LARGE".to_owned()));
    // Beyond what is announced HTTP/2 answers by itself.
    let mut request: Request<_> = of("shop", verify(GALLERY, "nobody", PEOPLE[0].probe.clone()));
    request.metadata_mut().insert("long", "x".repeat(12_000).parse().unwrap());
    let refused = matching.verify(request).await.unwrap_err();
    assert!(refused.message().contains("431"), "Request Header Fields Too Large: {refused:?}");
    let request = of("shop", verify(GALLERY, "nobody", PEOPLE[0].probe.clone()));
    assert!(matching.verify(request).await.is_ok(), "the connection serves on");
}

/// Whether a refused client is told when to try again, in both ways.
fn says_when(status: &Status) -> bool {
    let delay = status.get_error_details().retry_info().and_then(|retry| retry.retry_delay);
    let pushback = status.metadata().get("grpc-retry-pushback-ms").and_then(|ms| ms.to_str().ok()?.parse().ok());
    delay.is_some() && delay == pushback.map(Duration::from_millis)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_client_is_refused_and_another_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "client_in_flight = 2");
    let request = |client| of(client, verify(GALLERY, "nobody", PEOPLE[0].probe.clone()));
    let matching = server.matching().await;
    let flood: Vec<_> = (0..40)
        .map(|_| {
            let mut matching = matching.clone();
            tokio::spawn(async move { matching.verify(request("shop")).await })
        })
        .collect();
    let other = server.matching().await.verify(request("kiosk")).await;
    let (mut answered, mut refused) = (0, 0);
    for call in flood {
        match call.await.unwrap() {
            Ok(_) => answered += 1,
            Err(status) => {
                assert!(says_when(&status), "{status:?}");
                assert_eq!(refusal::<()>(Err(status)), (Code::ResourceExhausted, "CLIENT_OVER_LIMIT".into()));
                refused += 1;
            }
        }
    }
    assert!(answered >= 2 && refused > 0, "{answered} answered, {refused} refused");
    assert!(other.is_ok(), "{other:?}");
    let scrape = server.scrape();
    assert!(scrape.contains(r#"vultus_refusals_total{lane="verification",reason="client"}"#), "{scrape}");
    assert!(scrape.contains(r#"vultus_requests_in_flight{lane="verification"} 0"#), "places come back");
}

/// Its connection goes to the threads that run when a core is idle, and comes back, with what is in flight on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_bulk_and_of_verifications_is_answered_on_one_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), CONFIG);
    let channel = server.channel().await;
    let (matching, mut gallery) = (MatchServiceClient::new(channel.clone()), GalleryServiceClient::new(channel));
    gallery.enrol(of("shop", enrol(GALLERY, "one", PEOPLE[0].reference.clone()))).await.unwrap();
    // Fewer at a time than one client may have; more in a row than make a connection one of bulk.
    for round in 0..9 {
        let mut calls = Vec::new();
        for call in 0..21 {
            let (mut gallery, mut matching) = (gallery.clone(), matching.clone());
            calls.push(tokio::spawn(async move {
                if round % 3 == 2 && call == 20 {
                    let probe = PEOPLE[0].probe.clone();
                    return matching.verify(of("shop", verify(GALLERY, "one", probe))).await.map(|_| ());
                }
                gallery.describe_gallery(of("shop", describe(GALLERY))).await.map(|_| ())
            }));
        }
        for (number, call) in calls.into_iter().enumerate() {
            let answer = call.await.unwrap();
            assert!(answer.is_ok(), "call {number} of round {round}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_full_leaves_room_for_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "back_office_in_flight = 1");
    let gallery = server.gallery().await;
    let flood: Vec<_> = (0..24)
        .map(|i| {
            let mut gallery = gallery.clone();
            let request = of("shop", enrol(GALLERY, &format!("s{i}"), PEOPLE[0].reference.clone()));
            tokio::spawn(async move { gallery.enrol(request).await.map(|_| ()) })
        })
        .collect();
    let request = of("shop", verify(GALLERY, "nobody", PEOPLE[0].probe.clone()));
    assert!(server.matching().await.verify(request).await.is_ok());
    let mut refused = 0;
    for call in flood {
        if let Err(status) = call.await.unwrap() {
            assert!(says_when(&status), "{status:?}");
            assert_eq!(refusal::<()>(Err(status)), (Code::ResourceExhausted, "OVERLOADED".into()));
            refused += 1;
        }
    }
    assert!((1..24).contains(&refused), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_flight_are_bounded_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_limits(&dir, "message_bytes = 2200000\nclient_bytes_in_flight = 4000000");
    let matching = server.matching().await;
    let large = || of("shop", verify(GALLERY, "nobody", encoded(vec![0; 2_000_000])));
    let flood: Vec<_> = (0..32)
        .map(|_| {
            let mut matching = matching.clone();
            tokio::spawn(async move { matching.verify(large()).await })
        })
        .collect();
    let mut refused = 0;
    for call in flood {
        match refusal(call.await.unwrap()) {
            (Code::ResourceExhausted, reason) if reason == "CLIENT_OVER_LIMIT" => refused += 1,
            (code, reason) => assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "IMAGE_UNSUPPORTED")),
        }
    }
    assert!(refused > 0, "32 messages of 2 MB were held at once, where 4 MB are allowed");
    let scrape = server.scrape();
    assert!(scrape.contains("vultus_request_bytes 0"), "{scrape}");
    let answer = matching.clone().verify(large()).await;
    assert_eq!(refusal(answer).1, "IMAGE_UNSUPPORTED", "there is room again");
}
