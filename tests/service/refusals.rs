//! What is refused, and how: every bad input gets a typed error, and the server answers the next call as if nothing had been.

use std::time::{Duration, SystemTime};

use prost::bytes::Bytes;
use tonic::{Code, Request};
use vultus::{
    domain::{ClientId, GalleryName, ModelDigest, Purpose, SubjectId, Template},
    gallery::ServiceTime,
    pipeline::{Bearer, Now, RECEIPT_LIFETIME, Receipts},
    rpc::pb::{self, Decision, DecisionReason, FiveLandmarks, Point, QualityMeasureName},
    seal::RootKey,
};

use crate::{
    faces::PEOPLE,
    requests::{
        assess, case, context, describe, encoded, enrol, erase, identify, list_cases, of, raw, record_verdict, refusal,
        verify, verify_inline,
    },
    server::{CONFIG, Server},
};

const GALLERY: &str = "subscribers";

fn refused(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

/// A PNG file that says it is of this size, and holds nothing else.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    file.extend(width.to_be_bytes());
    file.extend(height.to_be_bytes());
    file.extend([8, 2, 0, 0, 0]);
    let crc = file[12..].iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    });
    file.extend((!crc).to_be_bytes());
    file
}

fn jpeg(width: u16, height: u16, colour: jpeg_encoder::ColorType, pixel: &[u8]) -> Vec<u8> {
    let pixels = pixel.repeat(usize::from(width) * usize::from(height));
    let mut file = Vec::new();
    jpeg_encoder::Encoder::new(&mut file, 90).encode(&pixels, width, height, colour).unwrap();
    file
}

#[tokio::test]
async fn bytes_that_are_no_acceptable_image_are_refused_and_cost_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut matching = server.matching().await;
    let whole = jpeg(64, 64, jpeg_encoder::ColorType::Rgb, &[90, 80, 70]);
    let (malformed, limits, unsupported) = ("IMAGE_MALFORMED", "IMAGE_OUT_OF_LIMITS", "IMAGE_UNSUPPORTED");
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("empty", malformed, vec![]),
        ("truncated", malformed, whole[..whole.len() / 2].to_vec()),
        ("1x1", limits, jpeg(1, 1, jpeg_encoder::ColorType::Rgb, &[1, 2, 3])),
        ("20000x20000", limits, png_header(20_000, 20_000)),
        ("CMYK", unsupported, jpeg(64, 64, jpeg_encoder::ColorType::Cmyk, &[1, 2, 3, 4])),
        ("bomb", malformed, png_header(4096, 1024)),
        ("text", unsupported, b"To whom it may concern: this is no image.".to_vec()),
        ("GIF", unsupported, b"GIF89a\x40\0\x40\0\0\0\0;".to_vec()),
    ];
    for (name, reason, file) in cases {
        let answer = matching.verify(of("shop", verify(GALLERY, "alice", encoded(file.clone())))).await;
        assert_eq!(refusal(answer), refused(Code::InvalidArgument, reason), "Verify {name}");
        let answer = matching.assess(of("shop", assess(encoded(file.clone())))).await;
        assert_eq!(refusal(answer), refused(Code::InvalidArgument, reason), "Assess {name}");
        let answer = server.gallery().await.enrol(of("shop", enrol(GALLERY, "alice", encoded(file)))).await;
        assert_eq!(refusal(answer), refused(Code::InvalidArgument, reason), "Enrol {name}");
    }
    let wrong_length = raw(64, 64, vec![0; 64 * 64 * 3 - 1]);
    let answer = matching.verify(of("shop", verify(GALLERY, "alice", wrong_length))).await;
    assert_eq!(refusal(answer), refused(Code::InvalidArgument, "IMAGE_MALFORMED"));

    let oversized = encoded(vec![0; 6 << 20]);
    let status = matching.verify(of("shop", verify(GALLERY, "alice", oversized))).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);

    let answer = matching.verify(of("shop", verify_inline(PEOPLE[0].probe.clone(), PEOPLE[0].reference.clone()))).await;
    assert_eq!(answer.unwrap().into_inner().decision(), Decision::Match);
    // A gallery is made by a reference, not by an attempt.
    let answer = server.gallery().await.describe_gallery(of("shop", describe(GALLERY))).await;
    assert_eq!(refusal(answer), refused(Code::NotFound, "NOT_FOUND"));
}

#[tokio::test]
async fn an_image_without_a_face_is_undetermined_and_never_enrolled() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut matching = server.matching().await;
    let noise: Vec<u8> = (0..150 * 150 * 3_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, image) in [("flat", raw(150, 150, vec![120; 150 * 150 * 3])), ("noise", raw(150, 150, noise))] {
        let answer = matching.verify(of("shop", verify(GALLERY, "alice", image.clone()))).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Undetermined, "{name}");
        assert_eq!(answer.reason(), DecisionReason::ProbeWithoutFace, "{name}");
        assert!(!answer.alternative_route.is_empty() && answer.receipt.is_empty() && answer.score.is_none());
        let request = verify_inline(PEOPLE[0].probe.clone(), image.clone());
        let answer = matching.verify(of("shop", request)).await.unwrap().into_inner();
        assert_eq!(answer.reason(), DecisionReason::ReferenceWithoutFace, "{name}");
        let answer = matching.assess(of("shop", assess(image.clone()))).await.unwrap().into_inner();
        assert!(!answer.acceptable && answer.landmarks.is_none());
        assert_eq!(answer.measures[0].name(), QualityMeasureName::FacePresence);
        let answer = server.gallery().await.enrol(of("shop", enrol(GALLERY, "alice", image))).await;
        assert_eq!(refusal(answer), refused(Code::FailedPrecondition, "IMAGE_REFUSED"), "{name}");
    }
}

#[tokio::test]
async fn a_dark_image_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let Some(pb::face_image::Content::Raw(face)) = PEOPLE[0].reference.clone().unwrap().content else { panic!("raw") };
    let dark: Vec<u8> = face.rgb8.iter().map(|v| v / 12).collect();
    let image = raw(face.width, face.height, dark);
    let answer = server.matching().await.verify(of("shop", verify(GALLERY, "alice", image.clone()))).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!((answer.decision(), answer.reason()), (Decision::Undetermined, DecisionReason::ProbeQuality));
    let dark = |m: &pb::QualityMeasure| m.name() == QualityMeasureName::LuminanceMean && m.advice.contains("dark");
    assert!(answer.refused_measures.iter().any(dark), "{:?}", answer.refused_measures);
    let status = server.gallery().await.enrol(of("shop", enrol(GALLERY, "alice", image))).await.unwrap_err();
    assert!(status.message().contains("dark"), "{}", status.message());
}

#[tokio::test]
async fn wrong_landmarks_are_refused_and_right_ones_used() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut matching = server.matching().await;
    let assessed = matching.assess(of("shop", assess(PEOPLE[0].reference.clone()))).await.unwrap().into_inner();
    let right = assessed.landmarks.unwrap();
    let with = |landmarks: FiveLandmarks| {
        PEOPLE[0].reference.clone().map(|image| pb::FaceImage { landmarks: Some(landmarks), ..image })
    };
    let request = verify_inline(with(right), PEOPLE[0].reference.clone());
    let answer = matching.verify(of("shop", request)).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Match);
    let at = |x, y| Some(Point { x, y });
    let wrong = [
        FiveLandmarks { left_eye: right.right_eye, right_eye: right.left_eye, ..right },
        FiveLandmarks { left_eye: at(-500.0, 10.0), ..right },
        FiveLandmarks { nose_tip: at(f32::NAN, 1.0), ..right },
        FiveLandmarks {
            left_eye: at(50.0, 50.0),
            right_eye: at(50.0, 50.0),
            nose_tip: at(50.0, 50.0),
            left_mouth_corner: at(50.0, 50.0),
            right_mouth_corner: at(50.0, 50.0),
        },
    ];
    // Plausible, but not where the face is: a template would be of something that nobody judged.
    let apart = right.right_eye.unwrap().x - right.left_eye.unwrap().x;
    let moved = |point: Option<Point>| point.map(|p| Point { x: p.x, y: p.y + 0.45 * apart });
    let elsewhere = FiveLandmarks {
        left_eye: moved(right.left_eye),
        right_eye: moved(right.right_eye),
        nose_tip: moved(right.nose_tip),
        left_mouth_corner: moved(right.left_mouth_corner),
        right_mouth_corner: moved(right.right_mouth_corner),
    };
    for landmarks in wrong.into_iter().chain([elsewhere]) {
        let answer = matching.verify(of("shop", verify(GALLERY, "alice", with(landmarks)))).await;
        assert_eq!(refusal(answer), refused(Code::InvalidArgument, "LANDMARKS_IMPLAUSIBLE"), "{landmarks:?}");
    }
    let four = with(FiveLandmarks { nose_tip: None, ..right });
    let answer = matching.verify(of("shop", verify(GALLERY, "alice", four))).await;
    assert_eq!(refusal(answer), refused(Code::InvalidArgument, "FIELD_INVALID"));
}

#[tokio::test]
async fn no_call_is_answered_without_a_client_a_context_and_a_right() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (mut matching, mut gallery, mut review) =
        (server.matching().await, server.gallery().await, server.review().await);
    let unsound = encoded(vec![0xff; 100]); // would be IMAGE_MALFORMED, were it looked at
    let no_context = || pb::VerifyRequest { context: None, ..verify(GALLERY, "a", unsound.clone()) };
    let unknown_purpose = || {
        let mut request = verify(GALLERY, "a", unsound.clone());
        request.context = context(pb::Purpose::SimActivation).map(|c| pb::RequestContext { purpose: 77, ..c });
        request
    };
    let not_its_purpose = || {
        let mut request = verify(GALLERY, "a", unsound.clone());
        request.context = context(pb::Purpose::CaseReview);
        request
    };
    assert_eq!(
        refusal(matching.verify(Request::new(no_context())).await),
        refused(Code::Unauthenticated, "CLIENT_MISSING")
    );
    assert_eq!(
        refusal(matching.verify(of("shop", no_context())).await),
        refused(Code::InvalidArgument, "FIELD_INVALID")
    );
    assert_eq!(
        refusal(matching.verify(of("shop", unknown_purpose())).await),
        refused(Code::InvalidArgument, "FIELD_INVALID")
    );
    let denied = refused(Code::PermissionDenied, "NOT_PERMITTED");
    assert_eq!(refusal(matching.verify(of("shop", not_its_purpose())).await), denied);
    for client in ["nobody", "unheard-of"] {
        assert_eq!(refusal(matching.verify(of(client, verify(GALLERY, "a", unsound.clone()))).await), denied);
        assert_eq!(refusal(matching.assess(of(client, assess(unsound.clone()))).await), denied);
        assert_eq!(refusal(matching.identify(of(client, identify(GALLERY, "x"))).await), denied);
        assert_eq!(refusal(gallery.enrol(of(client, enrol(GALLERY, "a", unsound.clone()))).await), denied);
        assert_eq!(refusal(gallery.erase(of(client, erase(GALLERY, None))).await), denied);
        assert_eq!(refusal(gallery.describe_gallery(of(client, describe(GALLERY))).await), denied);
        assert_eq!(refusal(review.get_case(of(client, case("x"))).await), denied);
    }
    // Who enrols, verifies and identifies reviews nothing; who reviews does nothing else.
    for client in ["nobody", "unheard-of", "shop", "kiosk"] {
        assert_eq!(refusal(review.get_case(of(client, case("x"))).await), denied);
        assert_eq!(refusal(review.list_cases(of(client, list_cases(GALLERY, 0, ""))).await), denied);
        let verdict = record_verdict("x", pb::Verdict::SamePerson);
        assert_eq!(refusal(review.record_verdict(of(client, verdict)).await), denied);
    }
    assert_eq!(refusal(matching.verify(of("back-office", verify(GALLERY, "a", unsound.clone()))).await), denied);
    assert_eq!(refusal(review.list_cases(of("auditor", list_cases("staff", 0, ""))).await), denied);
    // Rights are separate, and so are galleries.
    assert_eq!(refusal(gallery.enrol(of("kiosk", enrol(GALLERY, "a", unsound.clone()))).await), denied);
    assert_eq!(refusal(matching.verify(of("kiosk", verify("staff", "a", unsound.clone()))).await), denied);
    assert_eq!(refusal(gallery.enrol(of("shop", enrol("elsewhere", "a", unsound))).await), denied);
    assert!(server.scrape().contains("vultus_stage_seconds_count{stage=\"decode\"} 0"), "an image was decoded");
}

#[tokio::test]
async fn an_empty_selector_never_means_all() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut gallery = server.gallery().await;
    gallery.enrol(of("shop", enrol(GALLERY, "alice", PEOPLE[0].reference.clone()))).await.unwrap();
    use pb::erase_request::Selector;
    for selector in [None, Some(Selector::SubjectId(String::new())), Some(Selector::ReferenceId(String::new()))] {
        let answer = gallery.erase(of("shop", erase(GALLERY, selector))).await;
        assert_eq!(refusal(answer), refused(Code::InvalidArgument, "FIELD_INVALID"));
    }
    let described = gallery.describe_gallery(of("shop", describe(GALLERY))).await.unwrap().into_inner();
    assert_eq!(described.references, 1);
}

#[tokio::test]
async fn a_receipt_has_one_outcome_for_its_bearer_and_from_nobody_else() {
    // Of a lane one client has half, and 64 race.
    let config = format!("{CONFIG}\n[limits]\nidentifications_in_flight = 128");
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &config);
    let (mut gallery, mut matching) = (server.gallery().await, server.matching().await);
    for name in [GALLERY, "staff"] {
        gallery.enrol(of("shop", enrol(name, "alice", PEOPLE[0].reference.clone()))).await.unwrap();
    }
    let answer =
        matching.verify(of("shop", verify(GALLERY, "alice", PEOPLE[0].probe.clone()))).await.unwrap().into_inner();
    let (receipt, digest) = (answer.receipt, answer.model_digest);

    let mut forged = receipt.to_vec();
    forged[20] ^= 1;
    let not_authentic = refused(Code::InvalidArgument, "RECEIPT_NOT_AUTHENTIC");
    for bad in
        [Bytes::from(forged), receipt.slice(..receipt.len() - 1), Bytes::from_static(b"x"), vec![7; 100_000].into()]
    {
        assert_eq!(refusal(matching.identify(of("shop", identify(GALLERY, bad))).await), not_authentic);
    }
    let answer = matching.identify(of("shop", identify(GALLERY, Bytes::new()))).await;
    assert_eq!(refusal(answer), refused(Code::InvalidArgument, "FIELD_INVALID"));
    let answer = matching.identify(of("kiosk", identify(GALLERY, receipt.clone()))).await;
    assert_eq!(refusal(answer), refused(Code::PermissionDenied, "RECEIPT_OF_ANOTHER_CLIENT"));
    let answer = matching.identify(of("shop", identify("staff", receipt.clone()))).await;
    assert_eq!(refusal(answer), refused(Code::FailedPrecondition, "RECEIPT_OF_ANOTHER_GALLERY"));
    let mut other_purpose = identify(GALLERY, receipt.clone());
    other_purpose.context = context(pb::Purpose::SimReplacement);
    let answer = matching.identify(of("shop", other_purpose)).await;
    assert_eq!(refusal(answer), refused(Code::FailedPrecondition, "RECEIPT_OF_ANOTHER_PURPOSE"));

    // Receipts that only the key's holder could have made: too old, or of another model.
    let receipts = Receipts::new(&RootKey::load(&dir.path().join("keys/root.key")).unwrap());
    let (client, name) = (ClientId::new("shop").unwrap(), GalleryName::new(GALLERY).unwrap());
    let made = |model: ModelDigest, at: SystemTime| {
        let probe = Template::new(model, vec![0.1; 128]).unwrap();
        let bearer = Bearer { client: &client, gallery: &name, purpose: Purpose::SimActivation, model };
        let now = Now { service: ServiceTime::from_micros(1 << 60), wall: at };
        receipts.issue(&probe, &SubjectId::new("alice").unwrap(), bearer, now).unwrap().0
    };
    let now = SystemTime::now();
    let bytes: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&digest[2 * i..2 * i + 2], 16).unwrap()).collect();
    let model = ModelDigest::new(bytes.try_into().unwrap());
    let old = made(model, now - RECEIPT_LIFETIME - Duration::from_secs(1));
    let answer = matching.identify(of("shop", identify(GALLERY, old))).await;
    assert_eq!(refusal(answer), refused(Code::FailedPrecondition, "RECEIPT_EXPIRED"));
    let of_another_model = made(ModelDigest::new([9; 32]), now);
    let answer = matching.identify(of("shop", identify(GALLERY, of_another_model))).await;
    assert_eq!(refusal(answer), refused(Code::FailedPrecondition, "RECEIPT_OF_ANOTHER_MODEL"));

    // None of that has spent it. 64 at once: one search is recorded, and is everyone's answer. Nor does a restart bring the receipt back.
    gallery.enrol(of("shop", enrol(GALLERY, "anna", PEOPLE[0].probe.clone()))).await.unwrap();
    let races: Vec<_> = (0..64)
        .map(|_| {
            let (mut matching, receipt) = (matching.clone(), receipt.clone());
            tokio::spawn(async move { matching.identify(of("shop", identify(GALLERY, receipt))).await })
        })
        .collect();
    let mut answers = Vec::new();
    for race in races {
        answers.push(race.await.unwrap().unwrap().into_inner());
    }
    let case_id = answers[0].case_id.clone();
    assert!(!case_id.is_empty() && answers.iter().all(|answer| answer.case_id == case_id));
    assert_eq!(answers.iter().filter(|answer| !answer.repeated).count(), 1);
    server.kill();
    let server = Server::start(dir.path());
    let searched = "vultus_stage_seconds_count{stage=\"search\"}";
    let answer = server.matching().await.identify(of("shop", identify(GALLERY, receipt))).await.unwrap().into_inner();
    assert_eq!((answer.case_id.as_str(), answer.repeated), (case_id.as_str(), true));
    assert!(server.scrape().contains(&format!("{searched} 0")), "a spent receipt searches nothing");
    let mut review = server.review().await;
    let listed = review.list_cases(of("back-office", list_cases(GALLERY, 0, ""))).await.unwrap().into_inner();
    assert_eq!(listed.cases.iter().map(|case| case.case_id.as_str()).collect::<Vec<_>>(), [case_id.as_str()]);
}
