//! Requests that are right, for tests to send or to spoil.

use std::{
    io::ErrorKind,
    sync::atomic::{AtomicUsize, Ordering},
};

use prost::bytes::Bytes;
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use vultus::rpc::pb;

pub fn context(purpose: pb::Purpose) -> Option<pb::RequestContext> {
    Some(pb::RequestContext {
        purpose: purpose.into(),
        consent_reference: "consent-1".into(),
        transaction_id: "t-1".into(),
        site: "shop-7".into(),
    })
}

/// Under the name of a client of the test's configuration.
pub fn of<T>(client: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("vultus-client", client.parse().unwrap());
    request
}

/// Whether the call never left, as its connection was going: this client says "operation was canceled", with the transport's error
/// behind it, or INTERNAL with the server's GOAWAY behind it, which refused nothing; others say UNAVAILABLE, or try again themselves.
pub fn never_sent(status: &Status) -> bool {
    let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    let mut of_http2 = causes.filter_map(|cause| cause.downcast_ref::<h2::Error>());
    let told_to_go =
        |error: &h2::Error| error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    of_http2.any(told_to_go) || status.code() == Code::Cancelled && std::error::Error::source(status).is_some()
}

/// Whether the connection was cut under the call: what the server sends last, that it is to go, is lost where the client's next call meets
/// the socket closed.
fn cut(status: &Status) -> bool {
    let mut causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    causes.any(|cause| {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        matches!(kind, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset))
    })
}

/// Calls under which their connection was cut.
pub static CUT: AtomicUsize = AtomicUsize::new(0);

/// What the call is answered, which is made again as long as it never left, a few times. It is one that may be made twice.
pub async fn sent<T, C: Future<Output = Result<Response<T>, Status>>>(
    mut call: impl FnMut() -> C,
) -> Result<T, Status> {
    const TRIES: usize = 5;
    for _ in 1..TRIES {
        match call().await {
            Err(status) if never_sent(&status) => {}
            Err(status) if cut(&status) => _ = CUT.fetch_add(1, Ordering::Relaxed),
            answered => return answered.map(Response::into_inner),
        }
    }
    call().await.map(Response::into_inner)
}

pub fn encoded(file: impl Into<Bytes>) -> Option<pb::FaceImage> {
    Some(pb::FaceImage { content: Some(pb::face_image::Content::Encoded(file.into())), ..Default::default() })
}

pub fn raw(width: u32, height: u32, rgb8: impl Into<Bytes>) -> Option<pb::FaceImage> {
    let raw = pb::RawImage { rgb8: rgb8.into(), width, height };
    Some(pb::FaceImage { content: Some(pb::face_image::Content::Raw(raw)), ..Default::default() })
}

pub fn enrol(gallery: &str, subject: &str, image: Option<pb::FaceImage>) -> pb::EnrolRequest {
    pb::EnrolRequest {
        context: context(pb::Purpose::SimActivation),
        gallery: gallery.into(),
        subject_id: subject.into(),
        image,
        reference_id: String::new(),
    }
}

pub fn verify(gallery: &str, subject: &str, probe: Option<pb::FaceImage>) -> pb::VerifyRequest {
    let claimed = pb::ClaimedSubject { gallery: gallery.into(), subject_id: subject.into() };
    pb::VerifyRequest {
        context: context(pb::Purpose::SimActivation),
        probe,
        claim: Some(pb::verify_request::Claim::ClaimedSubject(claimed)),
        max_fmr: 0.0,
    }
}

pub fn verify_inline(probe: Option<pb::FaceImage>, reference: Option<pb::FaceImage>) -> pb::VerifyRequest {
    pb::VerifyRequest {
        context: context(pb::Purpose::SimActivation),
        probe,
        claim: reference.map(pb::verify_request::Claim::InlineReference),
        max_fmr: 0.0,
    }
}

pub fn identify(gallery: &str, receipt: impl Into<Bytes>) -> pb::IdentifyRequest {
    pb::IdentifyRequest {
        context: context(pb::Purpose::SimActivation),
        receipt: receipt.into(),
        gallery: gallery.into(),
        max_candidates: 0,
        max_fpir: 0.0,
    }
}

pub fn assess(image: Option<pb::FaceImage>) -> pb::AssessRequest {
    pb::AssessRequest { context: context(pb::Purpose::SimActivation), image }
}

pub fn erase(gallery: &str, selector: Option<pb::erase_request::Selector>) -> pb::EraseRequest {
    pb::EraseRequest { context: context(pb::Purpose::DataSubjectRequest), gallery: gallery.into(), selector }
}

pub fn describe(gallery: &str) -> pb::DescribeGalleryRequest {
    pb::DescribeGalleryRequest { context: context(pb::Purpose::Operations), gallery: gallery.into() }
}

pub fn case(id: &str) -> pb::GetCaseRequest {
    pb::GetCaseRequest { context: context(pb::Purpose::CaseReview), case_id: id.into(), reviewer: "reviewer-7".into() }
}

pub fn list_cases(gallery: &str, page_size: u32, page_token: &str) -> pb::ListCasesRequest {
    pb::ListCasesRequest {
        context: context(pb::Purpose::CaseReview),
        gallery: gallery.into(),
        page_size,
        page_token: page_token.into(),
        reviewer: "reviewer-7".into(),
    }
}

pub fn record_verdict(id: &str, verdict: pb::Verdict) -> pb::RecordVerdictRequest {
    pb::RecordVerdictRequest {
        context: context(pb::Purpose::CaseReview),
        case_id: id.into(),
        verdict: verdict.into(),
        reviewer: "reviewer-7".into(),
    }
}

/// Code and stable reason of a refusal.
pub fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    let details = status.get_error_details();
    (status.code(), details.error_info().map(|info| info.reason.clone()).unwrap_or_default())
}
