//! From messages to the domain: presence, sizes, enums. Nothing is decoded here.

use prost::bytes::Bytes;
use tonic::codegen::http::Extensions;
use vultus_engine::image::Point;

use super::{error::Error, pb};
use crate::{
    domain::{
        CaseId, ClientId, ConsentReference, FiveLandmarks, Fmr, Fpir, IdError, Purpose, RequestContext, ReviewerId,
        Site, TransactionId, Turn, Verdict,
    },
    gallery::Lease,
    pipeline::{FaceInput, ImageInput},
};

/// Whose turn a request is: the door has put it there.
pub fn turn(extensions: &Extensions) -> Result<Turn, Error> {
    extensions.get::<Turn>().cloned().ok_or(Error::Internal("a request that did not come through the door"))
}

/// What a request holds of the server, for what it changes to keep: the door has put it there.
pub fn lease(extensions: &Extensions) -> Result<Lease, Error> {
    extensions.get::<Lease>().cloned().ok_or(Error::Internal("a request that did not come through the door"))
}

/// The client of a turn that is no turn of the house's.
pub fn client_of(turn: &Turn) -> Result<&ClientId, Error> {
    turn.client.as_deref().ok_or(Error::Internal("a request without its client"))
}

pub fn context(context: Option<pb::RequestContext>) -> Result<RequestContext, Error> {
    let context = context.ok_or(Error::field("context", "a RequestContext: why the call is made"))?;
    Ok(RequestContext {
        purpose: purpose(context.purpose)?,
        consent_reference: id("context.consent_reference", ConsentReference::new(&context.consent_reference))?,
        transaction_id: id("context.transaction_id", TransactionId::new(&context.transaction_id))?,
        site: id("context.site", Site::new(&context.site))?,
    })
}

fn purpose(number: i32) -> Result<Purpose, Error> {
    match pb::Purpose::try_from(number) {
        Ok(pb::Purpose::SimActivation) => Ok(Purpose::SimActivation),
        Ok(pb::Purpose::SimReplacement) => Ok(Purpose::SimReplacement),
        Ok(pb::Purpose::NumberPorting) => Ok(Purpose::NumberPorting),
        Ok(pb::Purpose::CaseReview) => Ok(Purpose::CaseReview),
        Ok(pb::Purpose::DataSubjectRequest) => Ok(Purpose::DataSubjectRequest),
        Ok(pb::Purpose::Operations) => Ok(Purpose::Operations),
        Ok(pb::Purpose::Unspecified) | Err(_) => {
            Err(Error::field("context.purpose", "one of the contract's purposes other than PURPOSE_UNSPECIFIED"))
        }
    }
}

/// Names the field that an identifier stood in.
pub fn id<T>(field: &'static str, parsed: Result<T, IdError>) -> Result<T, Error> {
    parsed.map_err(|error| Error::field(field, error.expected))
}

/// What a front end said of the chip that a portrait came from; `None` for any other image.
///
/// # Errors
/// When it said nothing, said that the signature does not hold, or spoke of an image that is no chip's.
pub fn chip(image: Option<&pb::FaceImage>) -> Result<Option<pb::ChipAuthenticity>, Error> {
    use pb::{PassiveAuthentication as Told, face_image::Content};
    const FIELD: &str = "passive_authentication";
    let Some(image) = image else { return Ok(None) };
    let told = Told::try_from(image.passive_authentication);
    match (&image.content, told) {
        (Some(Content::ChipPortrait(_)), Ok(Told::NotChecked | Told::Passed)) => {
            Ok(Some(pb::ChipAuthenticity { checked_here: false, told_by_caller: image.passive_authentication }))
        }
        (Some(Content::ChipPortrait(_)), Ok(Told::Failed)) => Err(Error::ChipNotAuthentic),
        (Some(Content::ChipPortrait(_)), Ok(Told::Unspecified) | Err(_)) => {
            Err(Error::field(FIELD, "what the front end found: NOT_CHECKED, PASSED or FAILED"))
        }
        (Some(Content::Encoded(_) | Content::Raw(_)) | None, Ok(Told::Unspecified)) => Ok(None),
        (Some(Content::Encoded(_) | Content::Raw(_)) | None, _) => {
            Err(Error::field(FIELD, "none, but with a chip_portrait"))
        }
    }
}

/// The face at the counter. A chip's portrait is not one: with it a stolen document would verify itself.
pub fn probe(image: Option<pb::FaceImage>) -> Result<FaceInput, Error> {
    if matches!(image.as_ref().and_then(|i| i.content.as_ref()), Some(pb::face_image::Content::ChipPortrait(_))) {
        return Err(Error::field("probe", "the face at the counter; a chip_portrait is an inline_reference"));
    }
    face("probe", image)
}

pub fn face(field: &'static str, image: Option<pb::FaceImage>) -> Result<FaceInput, Error> {
    use pb::face_image::Content;
    chip(image.as_ref())?;
    let image = image.ok_or(Error::field(field, "a FaceImage"))?;
    let image_input = match image.content {
        Some(Content::Encoded(bytes)) => ImageInput::Encoded(bytes),
        Some(Content::ChipPortrait(dg2)) => ImageInput::Chip(dg2),
        Some(Content::Raw(raw)) => ImageInput::Rgb8 { rgb8: raw.rgb8, width: raw.width, height: raw.height },
        None => {
            return Err(Error::field(
                field,
                "content: JPEG, PNG, WebP or JPEG 2000 bytes, a RawImage or a chip_portrait",
            ));
        }
    };
    Ok(FaceInput { image: image_input, landmarks: image.landmarks.map(landmarks).transpose()? })
}

/// Presence alone: whether five points can be a face's is judged once the image's size is known.
fn landmarks(five: pb::FiveLandmarks) -> Result<FiveLandmarks, Error> {
    let point = |point: Option<pb::Point>| -> Result<Point, Error> {
        let point = point.ok_or(Error::field("landmarks", "all five points, or none"))?;
        Ok(Point { x: point.x, y: point.y })
    };
    Ok(FiveLandmarks {
        left_eye: point(five.left_eye)?,
        right_eye: point(five.right_eye)?,
        nose_tip: point(five.nose_tip)?,
        left_mouth_corner: point(five.left_mouth_corner)?,
        right_mouth_corner: point(five.right_mouth_corner)?,
    })
}

/// 0 stands for the policy's rate.
pub fn max_fmr(rate: f64) -> Result<Option<Fmr>, Error> {
    if rate == 0.0 {
        return Ok(None);
    }
    Fmr::new(rate).map(Some).map_err(|_| Error::field("max_fmr", "a rate above 0 and at most 1, or 0 for the policy's"))
}

/// 0 stands for the policy's rate.
pub fn max_fpir(rate: f64) -> Result<Option<Fpir>, Error> {
    if rate == 0.0 {
        return Ok(None);
    }
    Fpir::new(rate)
        .map(Some)
        .map_err(|_| Error::field("max_fpir", "a rate above 0 and at most 1, or 0 for the policy's"))
}

/// 0 stands for 10.
pub fn max_candidates(number: u32) -> Result<usize, Error> {
    match number {
        0 => Ok(10),
        1..=100 => Ok(number as usize),
        _ => Err(Error::field("max_candidates", "1 to 100, or 0 for 10")),
    }
}

/// 0 stands for 20.
pub fn page_size(number: u32) -> Result<usize, Error> {
    match number {
        0 => Ok(20),
        1..=100 => Ok(number as usize),
        _ => Err(Error::field("page_size", "1 to 100, or 0 for 20")),
    }
}

/// The last case of the page before; `None` for the first page.
pub fn page_token(token: &str) -> Result<Option<CaseId>, Error> {
    let fault = || Error::field("page_token", "empty, or the next_page_token of a ListCasesResponse");
    if token.is_empty() { Ok(None) } else { CaseId::parse(token).map(Some).map_err(|_| fault()) }
}

pub fn reviewer(text: &str) -> Result<ReviewerId, Error> {
    id("reviewer", ReviewerId::new(text))
}

pub fn verdict(number: i32) -> Result<Verdict, Error> {
    match pb::Verdict::try_from(number) {
        Ok(pb::Verdict::SamePerson) => Ok(Verdict::SamePerson),
        Ok(pb::Verdict::OtherPerson) => Ok(Verdict::OtherPerson),
        Ok(pb::Verdict::Unclear) => Ok(Verdict::Unclear),
        Ok(pb::Verdict::Unspecified) | Err(_) => {
            Err(Error::field("verdict", "one of the contract's verdicts other than VERDICT_UNSPECIFIED"))
        }
    }
}

/// A receipt's bytes, bounded before anything reads them.
pub fn receipt(bytes: &Bytes) -> Result<&[u8], Error> {
    if bytes.is_empty() {
        return Err(Error::field("receipt", "the receipt of a VerifyResponse"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good_context() -> pb::RequestContext {
        pb::RequestContext {
            purpose: pb::Purpose::SimActivation.into(),
            consent_reference: "c-1".into(),
            transaction_id: "t-1".into(),
            site: "shop-7".into(),
        }
    }

    fn field_of<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
        match result.unwrap_err() {
            Error::Field { field, .. } => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_part_of_the_context_is_needed() {
        assert!(context(Some(good_context())).is_ok());
        let with = |change: fn(&mut pb::RequestContext)| {
            let mut changed = good_context();
            change(&mut changed);
            field_of(context(Some(changed)))
        };
        assert_eq!(field_of(context(None)), "context");
        assert_eq!(with(|c| c.purpose = 0), "context.purpose");
        assert_eq!(with(|c| c.purpose = 99), "context.purpose");
        assert_eq!(with(|c| c.consent_reference.clear()), "context.consent_reference");
        assert_eq!(with(|c| c.transaction_id = "a b".into()), "context.transaction_id");
        assert_eq!(with(|c| c.site = "x".repeat(65)), "context.site");
    }

    #[test]
    fn an_image_has_content_and_all_landmarks_or_none() {
        assert_eq!(field_of(face("probe", None)), "probe");
        assert_eq!(field_of(face("probe", Some(pb::FaceImage::default()))), "probe");
        let content = Some(pb::face_image::Content::Encoded(Bytes::from_static(b"x")));
        let four = pb::FiveLandmarks { left_eye: Some(pb::Point { x: 1.0, y: 1.0 }), ..Default::default() };
        assert_eq!(
            field_of(face("probe", Some(pb::FaceImage { content, landmarks: Some(four), ..Default::default() }))),
            "landmarks"
        );
    }

    #[test]
    fn a_chip_comes_with_the_front_ends_word() {
        use pb::{PassiveAuthentication as Told, face_image::Content};
        let image = |content: fn(Bytes) -> Content, told: i32| {
            let content = Some(content(Bytes::from_static(b"x")));
            Some(pb::FaceImage { content, passive_authentication: told, ..Default::default() })
        };
        for told in [Told::NotChecked, Told::Passed] {
            let portrait = image(Content::ChipPortrait, told.into());
            let known = chip(portrait.as_ref()).unwrap().unwrap();
            assert_eq!((known.checked_here, known.told_by_caller()), (false, told));
            assert!(matches!(face("image", portrait.clone()).unwrap().image, ImageInput::Chip(_)));
            assert_eq!(field_of(probe(portrait)), "probe");
        }
        let failed = image(Content::ChipPortrait, Told::Failed.into());
        assert!(matches!(face("image", failed).unwrap_err(), Error::ChipNotAuthentic));
        for silent in [0, 9] {
            assert_eq!(field_of(face("image", image(Content::ChipPortrait, silent))), "passive_authentication");
        }
        assert_eq!(chip(image(Content::Encoded, 0).as_ref()).unwrap(), None);
        for told in [1, 2, 3, 9] {
            assert_eq!(field_of(face("image", image(Content::Encoded, told))), "passive_authentication");
        }
    }

    #[test]
    fn rates_and_counts_have_ranges() {
        assert_eq!(max_fmr(0.0).unwrap(), None);
        assert!(max_fmr(0.01).unwrap().is_some());
        for bad in [-1.0, 1.5, f64::NAN, f64::INFINITY] {
            assert_eq!(field_of(max_fmr(bad)), "max_fmr");
            assert_eq!(field_of(max_fpir(bad)), "max_fpir");
        }
        assert_eq!(max_candidates(0).unwrap(), 10);
        assert_eq!(max_candidates(100).unwrap(), 100);
        assert_eq!(field_of(max_candidates(101)), "max_candidates");
        assert_eq!((page_size(0).unwrap(), page_size(100).unwrap()), (20, 100));
        assert_eq!(field_of(page_size(101)), "page_size");
        assert_eq!(page_token("").unwrap(), None);
        let case = CaseId::from_random_bytes([7; 16]);
        assert_eq!(page_token(&case.to_string()).unwrap(), Some(case));
        for bad in ["0", "7", "x", "99999999999999999999"] {
            assert_eq!(field_of(page_token(bad)), "page_token");
        }
        assert_eq!((field_of(verdict(0)), field_of(verdict(9))), ("verdict", "verdict"));
        assert_eq!((field_of(reviewer("")), field_of(reviewer("Jane Doe"))), ("reviewer", "reviewer"));
    }
}
