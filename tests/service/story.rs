//! The main job, end to end: enrol, verify, identify, review, erase, restart.

use tonic::Code;
use vultus::rpc::pb::{Decision, DecisionReason, IdentifyOutcome, erase_request::Selector};

use crate::{
    faces::PEOPLE,
    requests::{case, describe, enrol, erase, identify, of, refusal, verify, verify_inline},
    server::Server,
};

const GALLERY: &str = "subscribers";

#[tokio::test]
async fn a_customer_is_verified_and_a_second_identity_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (mut gallery, mut matching, mut review) =
        (server.gallery().await, server.matching().await, server.review().await);
    let [alice, bella, carol] = &PEOPLE[..3] else { panic!("three people") };

    for (subject, image) in [("alice", &alice.reference), ("bella", &bella.reference)] {
        let enrolled = gallery.enrol(of("shop", enrol(GALLERY, subject, image.clone()))).await.unwrap().into_inner();
        assert_eq!((enrolled.model_digest.len(), enrolled.transaction_id.as_str()), (64, "t-1"));
    }

    // Alice is Alice, and nobody else.
    let answer = matching.verify(of("shop", verify(GALLERY, "alice", alice.probe.clone()))).await.unwrap().into_inner();
    assert_eq!((answer.decision(), answer.reason()), (Decision::Match, DecisionReason::ScoreReachesThreshold));
    assert!(answer.score.unwrap() >= answer.threshold.unwrap() && answer.alternative_route.is_empty());
    assert_eq!(answer.gallery_epoch, 2);
    let timings = answer.timings.unwrap();
    assert!(timings.decode_us > 0 && timings.extract_us > 0 && timings.total_us >= timings.extract_us);
    let searched = matching.identify(of("shop", identify(GALLERY, answer.receipt))).await.unwrap().into_inner();
    assert_eq!((searched.outcome(), searched.case_id.as_str()), (IdentifyOutcome::NoDuplicate, ""));

    // Carol is not Alice: no receipt, and another way.
    let answer = matching.verify(of("shop", verify(GALLERY, "alice", carol.probe.clone()))).await.unwrap().into_inner();
    assert_eq!((answer.decision(), answer.reason()), (Decision::NonMatch, DecisionReason::ScoreBelowThreshold));
    assert!(answer.receipt.is_empty() && answer.receipt_expires_at.is_none());
    assert_eq!(answer.alternative_route, "Ask for a second document.");

    // Alice comes back as "anna", who was enrolled with another photo of her.
    gallery.enrol(of("shop", enrol(GALLERY, "anna", alice.probe.clone()))).await.unwrap();
    let answer = matching.verify(of("shop", verify(GALLERY, "anna", alice.probe.clone()))).await.unwrap().into_inner();
    let searched = matching.identify(of("shop", identify(GALLERY, answer.receipt))).await.unwrap().into_inner();
    assert_eq!(searched.outcome(), IdentifyOutcome::Review);
    let id = searched.case_id;
    let shown = review.get_case(of("back-office", case(&id))).await.unwrap().into_inner();
    assert_eq!((shown.claimed_subject_id.as_str(), shown.candidates.len()), ("anna", 1));
    assert_eq!((shown.candidates[0].subject_id.as_str(), shown.candidates[0].rank), ("alice", 1));
    assert!(shown.candidates[0].score.is_some());

    // Who may not see scores sees none; who may not review sees nothing.
    let shown = review.get_case(of("auditor", case(&id))).await.unwrap().into_inner();
    assert!(shown.candidates[0].score.is_none());
    assert_eq!(refusal(review.get_case(of("nobody", case(&id))).await).0, Code::PermissionDenied);
    let unscored =
        matching.verify(of("kiosk", verify(GALLERY, "alice", alice.probe.clone()))).await.unwrap().into_inner();
    assert_eq!((unscored.score, unscored.threshold), (None, None));

    // A restart forgets nothing; an erasure is for ever.
    assert!(server.terminate().success());
    let server = Server::start(dir.path());
    let (mut gallery, mut matching) = (server.gallery().await, server.matching().await);
    let answer = matching.verify(of("shop", verify(GALLERY, "alice", alice.probe.clone()))).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Match);
    let subject = Some(Selector::SubjectId("alice".into()));
    let erased = gallery.erase(of("shop", erase(GALLERY, subject.clone()))).await.unwrap().into_inner();
    assert_eq!(erased.erased_references, 1);
    server.kill();

    let server = Server::start(dir.path());
    let (mut gallery, mut matching) = (server.gallery().await, server.matching().await);
    let answer = matching.verify(of("shop", verify(GALLERY, "alice", alice.probe.clone()))).await.unwrap();
    assert_eq!(answer.into_inner().decision(), Decision::NonMatch);
    let shown = server.review().await.get_case(of("back-office", case(&id))).await.unwrap().into_inner();
    assert!(shown.candidates.is_empty(), "an erased subject stands in a case");
    let again = gallery.erase(of("shop", erase(GALLERY, subject))).await.unwrap().into_inner();
    assert_eq!(again.erased_references, 0);
    let described = gallery.describe_gallery(of("shop", describe(GALLERY))).await.unwrap().into_inner();
    assert_eq!((described.subjects, described.references, described.dimension), (2, 2, 128));
}

#[tokio::test]
async fn an_inline_reference_earns_no_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut matching = server.matching().await;
    let request = verify_inline(PEOPLE[0].probe.clone(), PEOPLE[0].reference.clone());
    let answer = matching.verify(of("shop", request)).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Match);
    assert!(answer.receipt.is_empty() && answer.gallery_epoch == 0);
    let request = verify_inline(PEOPLE[0].probe.clone(), PEOPLE[1].reference.clone());
    let answer = matching.verify(of("shop", request)).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::NonMatch);
}

#[tokio::test]
async fn a_receipt_dies_with_its_subject() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (mut gallery, mut matching) = (server.gallery().await, server.matching().await);
    gallery.enrol(of("shop", enrol(GALLERY, "alice", PEOPLE[0].reference.clone()))).await.unwrap();
    gallery.enrol(of("shop", enrol(GALLERY, "anna", PEOPLE[0].probe.clone()))).await.unwrap();
    let request = verify(GALLERY, "alice", PEOPLE[0].probe.clone());
    let answer = matching.verify(of("shop", request)).await.unwrap().into_inner();
    gallery.erase(of("shop", erase(GALLERY, Some(Selector::SubjectId("alice".into()))))).await.unwrap();
    let refused = refusal(matching.identify(of("shop", identify(GALLERY, answer.receipt))).await);
    assert_eq!(refused, (Code::FailedPrecondition, "RECEIPT_OF_ERASED_SUBJECT".to_owned()));
}
