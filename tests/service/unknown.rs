//! A claimed subject without references looks like a non-match, in everything that a client can see.

use tonic::Code;
use vultus::rpc::pb::{self, DecisionReason};

use crate::{
    faces::PEOPLE,
    requests::{enrol, of, refusal, verify},
    server::{CONFIG, Server},
};

const GALLERY: &str = "subscribers";

async fn verified(server: &Server, gallery: &str, subject: &str, probe: &Option<pb::FaceImage>) -> pb::VerifyResponse {
    let request = verify(gallery, subject, probe.clone());
    server.matching().await.verify(of("shop", request)).await.unwrap().into_inner()
}

#[tokio::test]
async fn an_unknown_subject_looks_like_a_non_match() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut gallery = server.gallery().await;
    for (subject, references) in [("alice", 5), ("bella", 1)] {
        for _ in 0..references {
            gallery.enrol(of("shop", enrol(GALLERY, subject, PEOPLE[0].reference.clone()))).await.unwrap();
        }
    }
    gallery.enrol(of("shop", enrol("staff", "alice", PEOPLE[0].reference.clone()))).await.unwrap();
    let subjects = ["alice", "bella", "no-such-subject", "nor-this-one"];
    for probe in [&PEOPLE[1].probe, &PEOPLE[2].probe] {
        for max_fmr in [0.0, 0.002, 0.01] {
            let mut answers = Vec::new();
            for subject in subjects {
                let request = pb::VerifyRequest { max_fmr, ..verify(GALLERY, subject, probe.clone()) };
                let answer = server.matching().await.verify(of("shop", request)).await.unwrap().into_inner();
                let timings = answer.timings.unwrap();
                // The comparison counts whole milliseconds, and nothing else tells more of it.
                assert!(timings.compare_us > 0 && timings.compare_us % 1000 == 0, "{timings:?}");
                let parts =
                    timings.decode_us + timings.align_us + timings.queue_us + timings.extract_us + timings.compare_us;
                assert!(timings.total_us.abs_diff(parts) <= 5, "{timings:?}");
                answers.push(pb::VerifyResponse { timings: None, ..answer });
            }
            // All else is the same to the letter. A score would not be: whatever were made up in its place could be told apart.
            assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
            assert_eq!((answers[0].reason(), answers[0].score), (DecisionReason::ScoreBelowThreshold, None));
            assert!(answers[0].threshold.is_some(), "to this client scores are shown");
        }
    }
    let own = verified(&server, GALLERY, "alice", &PEOPLE[0].probe).await;
    assert!(own.score.unwrap() >= own.threshold.unwrap(), "a match has one");
}

#[tokio::test]
async fn another_precision_refuses_the_known_and_the_unknown_alike() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut gallery = server.gallery().await;
    gallery.enrol(of("shop", enrol(GALLERY, "alice", PEOPLE[0].reference.clone()))).await.unwrap();
    assert!(server.terminate().success());
    let server = Server::start_as("vultus", &["--precision", "int8", "serve"], dir.path(), CONFIG);
    for subject in ["alice", "no-such-subject"] {
        let answer =
            server.matching().await.verify(of("shop", verify(GALLERY, subject, PEOPLE[0].probe.clone()))).await;
        let expected = (Code::FailedPrecondition, "GALLERY_OF_ANOTHER_MODEL".to_owned());
        assert_eq!(refusal(answer), expected, "{subject}");
    }
}

#[tokio::test]
async fn no_error_admits_a_reference_of_a_gallery_that_is_not_the_clients() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "{CONFIG}\n[clients.small]\nrights = [\"enrol\"]\npurposes = [\"sim_activation\"]\ngalleries = [\"subscribers\"]\n"
    );
    let server = Server::start_with(dir.path(), &config);
    let mut gallery = server.gallery().await;
    let id = "5f0c6c1e-8a57-4c0e-9b57-0d2f5b0e8c11";
    let with_id = |name: &str, subject: &str| pb::EnrolRequest {
        reference_id: id.into(),
        ..enrol(name, subject, PEOPLE[0].reference.clone())
    };
    gallery.enrol(of("shop", with_id("staff", "alice"))).await.unwrap();
    for subject in ["alice", "bella"] {
        let mut fresh = with_id(GALLERY, subject);
        fresh.reference_id = if subject == "alice" { id.into() } else { "5f0c6c1e-8a57-4c0e-9b57-0d2f5b0e8c12".into() };
        let answer = gallery.enrol(of("small", fresh)).await.unwrap().into_inner();
        assert!(!answer.already_enrolled, "an id of another gallery is as good as one that is nowhere");
    }
    // Within the gallery an id has one owner.
    let answer = gallery.enrol(of("small", with_id(GALLERY, "carol"))).await;
    assert_eq!(refusal(answer), (Code::AlreadyExists, "REFERENCE_EXISTS".to_owned()));
}
