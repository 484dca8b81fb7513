//! A decision is recorded once, and before its caller learns of it.

use std::time::Duration;

use tonic::Code;
use vultus::{
    audit::{Decided, DecisionEvent},
    domain::{Reason, Verdict},
    rpc::pb::{self, erase_request::Selector},
};

use crate::{
    house::{GALLERY, House, face},
    requests::{
        assess, case, describe, enrol, erase, identify, list_cases, of, record_verdict, refusal, verify, verify_inline,
    },
};

/// Of the test's client and call, in the gallery; whom it is about, and at which epoch.
fn about(event: &DecisionEvent, client: &str) -> (Option<String>, Option<u64>) {
    let context = &event.context;
    let said = (event.client.as_str(), context.transaction_id.as_str(), context.site.as_str());
    assert_eq!(said, (client, "t-1", "shop-7"));
    assert_eq!(event.gallery.as_ref().map(|name| name.as_str()), Some(GALLERY));
    (event.subject.as_ref().map(ToString::to_string), event.position)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_decision_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path()).await;
    let (notes, mut gallery, mut matching, mut review) =
        (&house.notes, house.gallery(), house.matching(), house.review());

    let enrolled = house.enrol("alice").await;
    let event = notes.one();
    assert_eq!(about(&event, "shop"), (Some("alice".into()), Some(enrolled.gallery_epoch)));
    let Decided::Enrolled { reference, repeated: false, chip: None } = event.decided else { panic!("{event:?}") };
    assert_eq!(reference.to_string(), enrolled.reference_id);

    let mut again = enrol(GALLERY, "alice", face());
    again.reference_id = enrolled.reference_id.clone();
    gallery.enrol(of("shop", again)).await.unwrap();
    assert_eq!(notes.one().decided, Decided::Enrolled { reference, repeated: true, chip: None });

    let item = pb::EnrolStreamRequest { item: 1, enrolment: Some(enrol(GALLERY, "bob", face())) };
    let mut answers = gallery.enrol_stream(of("shop", tokio_stream::iter([item]))).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some() && answers.message().await.unwrap().is_none());
    assert_eq!(about(&notes.one(), "shop"), (Some("bob".into()), Some(enrolled.gallery_epoch + 1)));

    let verified = matching.verify(of("shop", verify(GALLERY, "alice", face()))).await.unwrap().into_inner();
    let event = notes.one();
    assert_eq!(about(&event, "shop"), (Some("alice".into()), Some(verified.gallery_epoch)));
    let reason = Reason::ScoreReachesThreshold;
    assert_eq!(event.decided, Decided::Verified { reason, receipt: true, chip: None });

    matching.verify(of("kiosk", verify_inline(face(), face()))).await.unwrap();
    let event = notes.one();
    assert!(event.gallery.is_none() && event.position.is_none() && event.subject.is_none(), "{event:?}");
    assert_eq!(event.decided, Decided::Verified { reason, receipt: false, chip: None });

    let identified = matching.identify(of("shop", identify(GALLERY, verified.receipt))).await.unwrap().into_inner();
    let event = notes.one();
    assert_eq!(about(&event, "shop"), (Some("alice".into()), Some(identified.gallery_epoch)));
    let Decided::Identified { case: Some(id), repeated: false } = event.decided else { panic!("{event:?}") };
    assert_eq!(id.to_string(), identified.case_id);

    review.list_cases(of("auditor", list_cases(GALLERY, 0, ""))).await.unwrap();
    let event = notes.one();
    assert_eq!(about(&event, "auditor"), (None, None));
    let Decided::CasesListed { cases: 1, reviewer } = event.decided else { panic!("{event:?}") };
    review.get_case(of("auditor", case(&identified.case_id))).await.unwrap();
    let event = notes.one();
    assert_eq!(about(&event, "auditor"), (None, None));
    assert_eq!(event.decided, Decided::CaseShown { case: id, reviewer: reviewer.clone() });
    let verdict = record_verdict(&identified.case_id, pb::Verdict::Unclear);
    review.record_verdict(of("auditor", verdict)).await.unwrap();
    assert_eq!(notes.one().decided, Decided::CaseJudged { case: id, verdict: Verdict::Unclear, reviewer });

    let bob = erase(GALLERY, Some(Selector::SubjectId("bob".into())));
    let erased = gallery.erase(of("shop", bob)).await.unwrap().into_inner();
    let event = notes.one();
    assert_eq!(about(&event, "shop"), (Some("bob".into()), Some(erased.gallery_epoch)));
    assert_eq!(event.decided, Decided::Erased { reference: None, references: 1 });

    // Nothing is decided by these.
    gallery.describe_gallery(of("shop", describe(GALLERY))).await.unwrap();
    matching.assess(of("shop", assess(face()))).await.unwrap();
    matching.verify(of("nobody", verify(GALLERY, "alice", face()))).await.unwrap_err();
    assert!(notes.told.lock().unwrap().is_empty());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_leaves_before_its_decision_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path()).await;
    house.enrol("alice").await;
    house.notes.one();
    let closed = house.notes.gate.write().await;
    let mut matching = house.matching();
    let mut call = tokio::spawn(async move { matching.verify(of("shop", verify(GALLERY, "alice", face()))).await });
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut call).await.is_err(), "the answer left");
    drop(closed);
    call.await.unwrap().unwrap();
    house.notes.one();
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_recorded_is_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path()).await;
    let (mut gallery, mut matching, mut review) = (house.gallery(), house.matching(), house.review());
    house.enrol("alice").await;
    house.enrol("bob").await;
    let receipt = matching.verify(of("shop", verify(GALLERY, "alice", face()))).await.unwrap().into_inner().receipt;
    house.notes.fail(true);
    let refused = || (Code::Unavailable, "DECISION_NOT_RECORDED".to_owned());
    assert_eq!(refusal(gallery.enrol(of("shop", enrol(GALLERY, "carol", face()))).await), refused());
    assert_eq!(refusal(matching.verify(of("shop", verify(GALLERY, "alice", face()))).await), refused());
    assert_eq!(refusal(matching.identify(of("shop", identify(GALLERY, receipt.clone()))).await), refused());
    assert_eq!(refusal(review.list_cases(of("auditor", list_cases(GALLERY, 0, ""))).await), refused());
    let item = pb::EnrolStreamRequest { item: 1, enrolment: Some(enrol(GALLERY, "dave", face())) };
    let mut answers = gallery.enrol_stream(of("shop", tokio_stream::iter([item]))).await.unwrap().into_inner();
    let Some(pb::enrol_stream_response::Result::Refused(status)) = answers.message().await.unwrap().unwrap().result
    else {
        panic!("answered")
    };
    assert_eq!(status.code, Code::Unavailable as i32);

    // What was done stands, and is answered when it is asked for again.
    house.notes.fail(false);
    let identified = matching.identify(of("shop", identify(GALLERY, receipt))).await.unwrap().into_inner();
    assert!(identified.repeated && !identified.case_id.is_empty());
    house.notes.fail(true);
    assert_eq!(refusal(review.get_case(of("auditor", case(&identified.case_id))).await), refused());
    let verdict = record_verdict(&identified.case_id, pb::Verdict::Unclear);
    assert_eq!(refusal(review.record_verdict(of("auditor", verdict)).await), refused());
    let bob = erase(GALLERY, Some(Selector::SubjectId("bob".into())));
    assert_eq!(refusal(gallery.erase(of("shop", bob)).await), refused());
    house.close().await;
}
