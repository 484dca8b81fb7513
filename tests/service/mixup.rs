//! Each answer is its own: many connections, mixed requests, batches of strangers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use vultus::rpc::pb::{self, Decision};

use crate::{
    faces::PEOPLE,
    requests::{assess, describe, encoded, enrol, identify, of, verify},
    server::Server,
};

const GALLERY: &str = "subscribers";
const CONNECTIONS: usize = 32;

/// `VULTUS_REQUESTS` of them in all.
fn requests() -> usize {
    std::env::var("VULTUS_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

/// A third of the calls are verifications, of whom and by whom changes with every call; bad images are sprinkled in.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_mixed_requests_are_each_answered_with_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut gallery = server.gallery().await;
    for (i, person) in PEOPLE.iter().enumerate() {
        gallery.enrol(of("shop", enrol(GALLERY, &format!("s{i}"), person.reference.clone()))).await.unwrap();
    }
    // What each pair of probe and subject is answered when it is asked alone.
    let people = PEOPLE.len();
    let mut alone = vec![0.0; people * people];
    let mut matching = server.matching().await;
    for probe in 0..people {
        for subject in 0..people {
            let request = verify(GALLERY, &format!("s{subject}"), PEOPLE[probe].probe.clone());
            let answer = matching.verify(of("shop", request)).await.unwrap().into_inner();
            assert_eq!(answer.decision() == Decision::Match, probe == subject, "{probe} {subject}");
            alone[probe * people + subject] = answer.score.unwrap();
        }
    }
    let (alone, each) = (Arc::new(alone), requests().div_ceil(CONNECTIONS));
    let verified = Arc::new(AtomicUsize::new(0));
    let mut connections = Vec::new();
    for connection in 0..CONNECTIONS {
        let (mut matching, mut gallery) = (server.matching().await, server.gallery().await);
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
                        let answer = matching.verify(of("shop", request)).await.unwrap().into_inner();
                        assert_eq!(answer.transaction_id, transaction);
                        let (score, expected) = (answer.score.unwrap(), alone[probe * people + subject]);
                        assert!((score - expected).abs() < 1e-5, "{probe} {subject}: {score} instead of {expected}");
                        if n % 9 == 0 && answer.decision() == Decision::Match {
                            let mut request = identify(GALLERY, answer.receipt);
                            request.context = own(request.context);
                            let answer = matching.identify(of("shop", request)).await.unwrap().into_inner();
                            assert_eq!(answer.transaction_id, transaction);
                        }
                        verified.fetch_add(1, Ordering::Relaxed);
                    }
                    3 => {
                        let request = verify(GALLERY, "s0", encoded(vec![n as u8; 50]));
                        assert!(matching.verify(of("shop", request)).await.is_err());
                    }
                    4 => {
                        let mut request = assess(PEOPLE[probe].probe.clone());
                        request.context = own(request.context);
                        let answer = matching.assess(of("shop", request)).await.unwrap().into_inner();
                        assert!(answer.acceptable && answer.transaction_id == transaction);
                    }
                    _ => {
                        let mut request = describe(GALLERY);
                        request.context = own(request.context);
                        let answer = gallery.describe_gallery(of("shop", request)).await.unwrap().into_inner();
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
    let scrape = server.scrape();
    assert!(scrape.contains("vultus_decisions_total{decision=\"match\""), "{scrape}");
}
