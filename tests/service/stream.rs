//! EnrolStream: a status per item, and nothing that was acknowledged is lost.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::Code;
use vultus::rpc::pb::{self, Decision, enrol_stream_response::Result as Outcome};

use crate::{
    faces::PEOPLE,
    requests::{describe, encoded, enrol, of, verify},
    server::{CONFIG, Server},
};

const GALLERY: &str = "subscribers";

fn item(item: u64, enrolment: pb::EnrolRequest) -> pb::EnrolStreamRequest {
    pb::EnrolStreamRequest { item, enrolment: Some(enrolment) }
}

#[tokio::test]
async fn one_bad_item_never_fails_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let id = "5f0c6c1e-8a57-4c0e-9b57-0d2f5b0e8c11".to_owned();
    let named = |subject: &str| pb::EnrolRequest {
        reference_id: id.clone(),
        ..enrol(GALLERY, subject, PEOPLE[0].reference.clone())
    };
    let items = vec![
        item(1, named("alice")),
        item(2, enrol(GALLERY, "bella", encoded("no image"))),
        item(3, pb::EnrolRequest { context: None, ..enrol(GALLERY, "bella", PEOPLE[1].reference.clone()) }),
        item(4, enrol("elsewhere", "bella", PEOPLE[1].reference.clone())),
        pb::EnrolStreamRequest { item: 5, enrolment: None },
        item(6, enrol(GALLERY, "bella", PEOPLE[1].reference.clone())),
    ];
    let mut gallery = server.gallery().await;
    let mut statuses = gallery.enrol_stream(of("shop", tokio_stream::iter(items))).await.unwrap().into_inner();
    let mut codes = BTreeMap::new();
    while let Some(status) = statuses.next().await {
        let status = status.unwrap();
        let code = match status.result.unwrap() {
            Outcome::Enrolled(enrolled) => {
                assert_eq!(enrolled.transaction_id, "t-1");
                Code::Ok
            }
            Outcome::Refused(refused) => {
                assert!(!refused.details.is_empty(), "{refused:?}");
                Code::from(refused.code)
            }
        };
        codes.insert(status.item, code);
    }
    let expected = [
        Code::Ok,
        Code::InvalidArgument,
        Code::InvalidArgument,
        Code::PermissionDenied,
        Code::InvalidArgument,
        Code::Ok,
    ];
    assert_eq!(codes, (1..).zip(expected).collect());

    // The same reference again is answered with what is stored; under another subject it is refused.
    let again = gallery.enrol(of("shop", named("alice"))).await.unwrap().into_inner();
    assert_eq!(again.reference_id, id);
    assert_eq!(gallery.enrol(of("shop", named("bella"))).await.unwrap_err().code(), Code::AlreadyExists);
    let described = gallery.describe_gallery(of("shop", describe(GALLERY))).await.unwrap().into_inner();
    assert_eq!((described.subjects, described.references), (2, 2));
}

/// More streams than there are permits for items, each with more items than fit a window.
#[tokio::test]
async fn streams_keep_no_verification_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut gallery = server.gallery().await;
    gallery.enrol(of("shop", enrol(GALLERY, "alice", PEOPLE[0].reference.clone()))).await.unwrap();
    let mut streams = Vec::new();
    for stream in 0..6 {
        let endless =
            (0_u64..).map(move |n| item(n, enrol(GALLERY, &format!("s{stream}-{n}"), PEOPLE[1].reference.clone())));
        let statuses = gallery.enrol_stream(of("shop", tokio_stream::iter(endless))).await.unwrap().into_inner();
        streams.push(tokio::spawn(async move {
            let mut statuses = statuses;
            let mut enrolled = 0;
            while let Some(Ok(_)) = statuses.next().await {
                enrolled += 1;
            }
            enrolled
        }));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut matching = server.matching().await;
    for _ in 0..20 {
        let request = verify(GALLERY, "alice", PEOPLE[0].probe.clone());
        let answer = matching.verify(of("shop", request)).await.expect("verification goes first").into_inner();
        assert_eq!(answer.decision(), Decision::Match);
    }
    // Told to stop, the server takes no further items, answers those it has, and ends well within its grace.
    let started = Instant::now();
    let ended = tokio::task::spawn_blocking(|| server.terminate()).await.unwrap();
    assert!(ended.success() && started.elapsed() < Duration::from_secs(15), "{ended} after {:?}", started.elapsed());
    for stream in streams {
        assert!(stream.await.unwrap() > 0);
    }
}

/// Two clients open streams, and send nothing.
#[tokio::test(flavor = "multi_thread")]
async fn idle_streams_leave_room_for_the_back_office() {
    let dir = tempfile::tempdir().unwrap();
    let rights = "rights = [\"enrol\"]\npurposes = [\"sim_activation\"]\ngalleries = [\"subscribers\"]";
    let others = format!("[clients.first]\n{rights}\n[clients.second]\n{rights}\n[limits]\nback_office_in_flight = 8");
    let server = Server::start_with(dir.path(), &format!("{CONFIG}\n{others}"));
    let mut gallery = server.gallery().await;
    let (mut open, mut refused) = (Vec::new(), 0);
    for client in ["first", "second"].iter().cycle().take(16) {
        let (silent, items) = tokio::sync::mpsc::channel(1);
        match gallery.enrol_stream(of(client, ReceiverStream::new(items))).await {
            Ok(statuses) => open.push((silent, statuses)),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (4, 12), "half of the lane, and half of that for each");
    gallery.enrol(of("shop", enrol(GALLERY, "alice", PEOPLE[0].reference.clone()))).await.unwrap();
    let streamed = || tokio_stream::iter([item(1, enrol(GALLERY, "bella", PEOPLE[1].reference.clone()))]);
    assert_eq!(gallery.enrol_stream(of("shop", streamed())).await.unwrap_err().code(), Code::ResourceExhausted);
    assert!(server.scrape().contains(r#"vultus_refusals_total{lane="enrolment",reason="streams"} 1"#));
    drop(open);
    let started = Instant::now();
    while gallery.enrol_stream(of("shop", streamed())).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "their places did not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The gallery's own crash test kills it far more often; this one goes through the wire and the networks.
#[tokio::test]
async fn what_a_stream_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(String, usize)> = Vec::new();
    for round in 0..4_u64 {
        let server = Server::start(dir.path());
        let mut gallery = server.gallery().await;
        let endless = (0_u64..).map(move |n| {
            let person = (n % PEOPLE.len() as u64) as usize;
            item(n, enrol(GALLERY, &format!("r{round}-n{n}"), PEOPLE[person].reference.clone()))
        });
        let mut statuses = gallery.enrol_stream(of("shop", tokio_stream::iter(endless))).await.unwrap().into_inner();
        let end = Instant::now() + Duration::from_millis(300 + 170 * round);
        let mut seen = 0;
        while let Some(Ok(status)) = statuses.next().await {
            let Some(Outcome::Enrolled(_)) = status.result else { panic!("{status:?}") };
            acknowledged.push((format!("r{round}-n{}", status.item), (status.item % PEOPLE.len() as u64) as usize));
            seen += 1;
            if Instant::now() > end && seen > 3 {
                break;
            }
        }
        server.kill();
    }
    let server = Server::start(dir.path());
    let described = server.gallery().await.describe_gallery(of("shop", describe(GALLERY))).await.unwrap().into_inner();
    assert!(described.references >= acknowledged.len() as u64);
    assert_eq!(described.references, described.subjects, "a subject without its reference");
    let mut matching = server.matching().await;
    let step = acknowledged.len().div_ceil(25); // a sample by the wire; the count above has the rest
    for (subject, person) in acknowledged.iter().step_by(step) {
        let request = verify(GALLERY, subject, PEOPLE[*person].probe.clone());
        let answer = matching.verify(of("shop", request)).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Match, "{subject} was acknowledged");
    }
    println!("{} acknowledged over 4 kills, {} found", acknowledged.len(), described.references);
}
