//! The portrait of an ID's chip: compared, enrolled, and never vouched for.

use std::{fs, path::Path};

use tonic::Code;
use vultus::rpc::pb::{self, Decision, PassiveAuthentication as Told, face_image::Content};

use crate::{
    faces::PEOPLE,
    requests::{assess, encoded, enrol, of, refusal, verify, verify_inline},
    server::Server,
};

fn element(tag: &[u8], inside: &[u8]) -> Vec<u8> {
    let length = (inside.len() as u32).to_be_bytes();
    [tag, &[0x84], &length, inside].concat()
}

/// EF.DG2 with this file as its portrait, in a record of ISO/IEC 19794-5:2005.
fn dg2(image: &[u8], format: u8) -> Vec<u8> {
    let face_length = (32 + image.len() as u32).to_be_bytes();
    let face = [&face_length, &[0; 16][..], &[1, format], &[0; 10], image].concat();
    let length = (14 + face.len() as u32).to_be_bytes();
    let record = [b"FAC\x00010\0", &length[..], &[0, 1], &face].concat();
    let template = [element(&[0xa1], &element(&[0x81], &[2])), element(&[0x5f, 0x2e], &record)].concat();
    let count = [2, 1, 1].to_vec();
    element(&[0x75], &element(&[0x7f, 0x61], &[count, element(&[0x7f, 0x60], &template)].concat()))
}

fn chip(dg2: Vec<u8>, told: Told) -> Option<pb::FaceImage> {
    let content = Some(Content::ChipPortrait(dg2.into()));
    Some(pb::FaceImage { content, passive_authentication: told.into(), ..Default::default() })
}

/// The first person's reference, as a JPEG.
fn portrait() -> Vec<u8> {
    let Some(Content::Raw(raw)) = PEOPLE[0].reference.clone().unwrap().content else { panic!("raw") };
    let mut file = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut file, 90);
    encoder.encode(&raw.rgb8, raw.width as u16, raw.height as u16, jpeg_encoder::ColorType::Rgb).unwrap();
    file
}

fn refused(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

#[tokio::test]
async fn a_chips_portrait_is_compared_with_the_front_ends_word_beside_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut matching = server.matching().await;
    let dg2 = dg2(&portrait(), 0);
    for told in [Told::NotChecked, Told::Passed] {
        let known = Some(pb::ChipAuthenticity { checked_here: false, told_by_caller: told.into() });
        for (person, decision) in [(0, Decision::Match), (1, Decision::NonMatch)] {
            let request = verify_inline(PEOPLE[person].probe.clone(), chip(dg2.clone(), told));
            let answer = matching.verify(of("shop", request)).await.unwrap().into_inner();
            assert_eq!((answer.decision(), answer.chip), (decision, known));
        }
        let answer = matching.assess(of("shop", assess(chip(dg2.clone(), told)))).await.unwrap().into_inner();
        assert_eq!((answer.acceptable, answer.chip), (true, known));
        let request = pb::EnrolRequest {
            reference_id: "00000000-0000-4000-8000-000000000001".into(),
            ..enrol("subscribers", "alice", chip(dg2.clone(), told))
        };
        let answer = server.gallery().await.enrol(of("shop", request)).await.unwrap().into_inner();
        assert_eq!((answer.already_enrolled, answer.chip), (told == Told::Passed, known));
    }
    let request = verify("subscribers", "alice", PEOPLE[0].probe.clone());
    let answer = matching.verify(of("shop", request)).await.unwrap().into_inner();
    assert_eq!((answer.decision(), answer.chip), (Decision::Match, None));
}

#[tokio::test]
async fn a_chip_that_failed_or_of_which_nothing_is_said_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut matching = server.matching().await;
    let (probe, dg2) = (PEOPLE[0].probe.clone(), dg2(&portrait(), 0));
    let cases = [
        (Told::Failed, refused(Code::FailedPrecondition, "CHIP_NOT_AUTHENTIC")),
        (Told::Unspecified, refused(Code::InvalidArgument, "FIELD_INVALID")),
    ];
    for (told, expected) in cases {
        let request = verify_inline(probe.clone(), chip(dg2.clone(), told));
        assert_eq!(refusal(matching.verify(of("shop", request)).await), expected);
        assert_eq!(refusal(matching.assess(of("shop", assess(chip(dg2.clone(), told)))).await), expected);
        let request = enrol("subscribers", "alice", chip(dg2.clone(), told));
        assert_eq!(refusal(server.gallery().await.enrol(of("shop", request)).await), expected);
    }
    // The probe is a living face.
    let request = verify_inline(chip(dg2, Told::Passed), probe.clone());
    assert_eq!(refusal(matching.verify(of("shop", request)).await), refused(Code::InvalidArgument, "FIELD_INVALID"));
    let request = verify_inline(probe, chip(b"no DG2".to_vec(), Told::Passed));
    assert_eq!(refusal(matching.verify(of("shop", request)).await), refused(Code::InvalidArgument, "IMAGE_MALFORMED"));
}

/// What the headers of a reference tell is told before the probe is looked at.
#[tokio::test]
async fn a_chip_without_a_portrait_is_refused_before_the_probe_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut matching = server.matching().await;
    let probe = encoded(b"no image".to_vec());
    let request = verify_inline(probe.clone(), chip(b"no DG2".to_vec(), Told::Passed));
    assert_eq!(refusal(matching.verify(of("shop", request)).await), refused(Code::InvalidArgument, "IMAGE_MALFORMED"));
    let request = verify_inline(probe, chip(dg2(&portrait(), 0), Told::Passed));
    assert_eq!(
        refusal(matching.verify(of("shop", request)).await),
        refused(Code::InvalidArgument, "IMAGE_UNSUPPORTED")
    );
}

/// Real portraits as chips hold them, where they are at hand.
#[tokio::test]
async fn jpeg_2000_portraits_match_the_photo() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let read = |name: &str| fs::read(shared.join(name));
    let (Ok(probe), Ok(jp2), Ok(j2k)) =
        (read("faces/crops/amy1.png"), read("field/images/amy1.jp2"), read("field/images/amy1.j2k"))
    else {
        println!("skipped: ../shared/field/images is not there");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for reference in [
        encoded(jp2.clone()),
        encoded(j2k.clone()),
        chip(dg2(&jp2, 1), Told::NotChecked),
        chip(dg2(&j2k, 1), Told::Passed),
    ] {
        let request = verify_inline(encoded(probe.clone()), reference);
        let answer = server.matching().await.verify(of("shop", request)).await.unwrap().into_inner();
        assert_eq!(answer.decision(), Decision::Match);
    }
}
