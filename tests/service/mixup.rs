//! Each answer is its own, to the last bit: many connections that come and go, mixed requests, poisoned ones among them, batches of
//! strangers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tonic::{Code, transport::Channel};
use vultus::rpc::pb::{self, Decision, match_service_client::MatchServiceClient};

use crate::{
    faces::PEOPLE,
    requests::{CUT, assess, describe, encoded, enrol, identify, of, raw, sent, verify},
    server::{CONFIG, Server},
};

const GALLERY: &str = "subscribers";
const CONNECTIONS: usize = 32;

/// `VULTUS_REQUESTS` of them in all.
fn requests() -> usize {
    std::env::var("VULTUS_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

/// One that never left is made again.
macro_rules! call {
    ($client:ident.$rpc:ident($request:ident)) => {
        sent(|| {
            let (mut client, request) = ($client.clone(), of("shop", $request.clone()));
            async move { client.$rpc(request).await }
        })
        .await
    };
}

/// Something that is no face, of a kind that `n` chooses; the answer must say so.
async fn poison(matching: &MatchServiceClient<Channel>, n: usize) {
    let noise = |count: usize| (0..count).map(|i| (i * n * 31 + i / 7) as u8).collect::<Vec<_>>();
    let image = match n / 9 % 6 {
        0 => encoded(vec![n as u8; 50]),
        1 => encoded([b"\x89PNG\r\n\x1a\n".as_slice(), &noise(400)].concat()),
        2 => encoded([b"\xff\xd8\xff\xe0".as_slice(), &noise(4000)].concat()),
        3 => raw(90, 90, noise(90 * 90 * 3 - 1)),
        4 => raw(90, 90, noise(90 * 90 * 3)),
        _ => PEOPLE[n % PEOPLE.len()].probe.clone().map(|face| {
            let nowhere = Some(pb::Point { x: f32::NAN, y: 1e30 });
            let landmarks = pb::FiveLandmarks {
                left_eye: nowhere,
                right_eye: nowhere,
                nose_tip: nowhere,
                left_mouth_corner: nowhere,
                right_mouth_corner: nowhere,
            };
            pb::FaceImage { landmarks: Some(landmarks), ..face }
        }),
    };
    let request = verify(GALLERY, "s0", image);
    match call!(matching.verify(request)) {
        Ok(answer) => assert_eq!(answer.decision(), Decision::Undetermined),
        Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{status:?}"),
    }
}

/// A third of the calls are verifications, of whom and by whom changes with every call; bad images are sprinkled in.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_mixed_requests_are_each_answered_with_their_own() {
    let dir = tempfile::tempdir().unwrap();
    // Connections are told to go in the midst of it, again and again.
    let server = Server::start_with(dir.path(), &format!("{CONFIG}\n[limits]\nconnection_age_s = 10"));
    let mut gallery = server.gallery().await;
    for (i, person) in PEOPLE.iter().enumerate() {
        gallery.enrol(of("shop", enrol(GALLERY, &format!("s{i}"), person.reference.clone()))).await.unwrap();
    }
    // What each pair of probe and subject is answered when it is asked alone.
    let people = PEOPLE.len();
    let mut alone = vec![None; people * people];
    let matching = server.matching().await;
    for probe in 0..people {
        for subject in 0..people {
            let request = verify(GALLERY, &format!("s{subject}"), PEOPLE[probe].probe.clone());
            let answer = call!(matching.verify(request)).unwrap();
            assert_eq!(answer.decision() == Decision::Match, probe == subject, "{probe} {subject}");
            assert_eq!(answer.score.is_some(), probe == subject, "a match has a score, and nothing else");
            alone[probe * people + subject] = answer.score;
        }
    }
    let (alone, each) = (Arc::new(alone), requests().div_ceil(CONNECTIONS));
    let verified = Arc::new(AtomicUsize::new(0));
    let mut connections = Vec::new();
    for connection in 0..CONNECTIONS {
        let (matching, gallery) = (server.matching().await, server.gallery().await);
        let (alone, verified) = (Arc::clone(&alone), Arc::clone(&verified));
        connections.push(tokio::spawn(async move {
            for call in 0..each {
                let n = connection * each + call;
                let transaction = format!("t-{n}");
                let own = |c: Option<pb::RequestContext>| {
                    c.map(|c| pb::RequestContext { transaction_id: format!("t-{n}"), ..c })
                };
                let (probe, subject) = (n * 7 % people, n * 11 / 3 % people);
                match n % 9 {
                    0..3 => {
                        let mut request = verify(GALLERY, &format!("s{subject}"), PEOPLE[probe].probe.clone());
                        request.context = own(request.context);
                        let answer = call!(matching.verify(request)).unwrap();
                        assert_eq!(answer.transaction_id, transaction);
                        let (score, expected) = (answer.score, alone[probe * people + subject]);
                        assert!(score == expected, "{probe} {subject}: {score:?} instead of {expected:?}");
                        assert_eq!(answer.decision() == Decision::Match, probe == subject, "{probe} {subject}");
                        if n % 9 == 0 && answer.decision() == Decision::Match {
                            let mut request = identify(GALLERY, answer.receipt);
                            request.context = own(request.context);
                            let answer = call!(matching.identify(request)).unwrap();
                            assert_eq!(answer.transaction_id, transaction);
                        }
                        verified.fetch_add(1, Ordering::Relaxed);
                    }
                    3 => poison(&matching, n).await,
                    4 => {
                        let mut request = assess(PEOPLE[probe].probe.clone());
                        request.context = own(request.context);
                        let answer = call!(matching.assess(request)).unwrap();
                        assert!(answer.acceptable && answer.transaction_id == transaction);
                    }
                    _ => {
                        let mut request = describe(GALLERY);
                        request.context = own(request.context);
                        let answer = call!(gallery.describe_gallery(request)).unwrap();
                        assert_eq!((answer.transaction_id, answer.references), (transaction, people as u64));
                    }
                }
            }
        }));
    }
    for connection in connections {
        connection.await.unwrap();
    }
    println!(
        "{} requests on {CONNECTIONS} connections, {} of them verifications",
        each * CONNECTIONS,
        verified.load(Ordering::Relaxed)
    );
    let cut = CUT.load(Ordering::Relaxed);
    assert!(cut <= each * CONNECTIONS / 1000, "{cut} connections were cut under a call");
    let scrape = server.scrape();
    assert!(scrape.contains("vultus_decisions_total{decision=\"match\""), "{scrape}");
}
