//! The demonstration's two clients, over the wire, as any other client would call.

use prost::bytes::Bytes;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use vultus_engine::image::Pixels;

use crate::{
    cli::Failure,
    config::{Config, ConfigFaults},
    rpc::pb::{
        self, gallery_service_client::GalleryServiceClient, match_service_client::MatchServiceClient,
        review_service_client::ReviewServiceClient,
    },
};

/// Names of the clients, as the policy knows them, and of the gallery.
pub const FRONT_END: &str = "front-end";
pub const BACK_OFFICE: &str = "back-office";
pub const GALLERY: &str = "demo";
/// The person in the back office.
const REVIEWER: &str = "reviewer-1";

/// Rights are separate: the front end cannot review, the back office can do nothing else. The front end may see scores here, so that the
/// table can show them; a real one needs none.
const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
metrics_listen = "127.0.0.1:0"
[policy]
alternative_route = "Ask for a second ID document and call the back office."
[clients.front-end]
rights = ["verify", "identify", "enrol", "scores"]
purposes = ["sim_activation"]
galleries = ["demo"]
[clients.back-office]
rights = ["review", "scores"]
purposes = ["case_review"]
galleries = ["demo"]
"#;

/// Rates that the default model's card keeps, for faces of which there are real mated pairs, which differ: one false match in a hundred,
/// one false alarm in ten searches.
const REAL_PAIRS: &str = "\nmax_fmr = 0.01\nmax_fpir = 0.1\n";
/// The same for people who look alike to the default model, far more so than those it was measured on; changed copies of one photo keep
/// the least rate that was measured, two in a thousand.
const ALIKE: &str = "\nmax_fmr = 0.002\nmax_fpir = 0.1\n";

/// The server's configuration.
pub fn config(real_pairs: bool) -> Result<Config, ConfigFaults> {
    let policy = if real_pairs { REAL_PAIRS } else { ALIKE };
    Config::parse(&CONFIG.replacen("[policy]", &format!("[policy]{policy}"), 1))
}

/// A connection under one name.
#[derive(Debug, Clone)]
pub struct Client {
    name: &'static str,
    channel: Channel,
}

/// What became of an enrolment.
pub type Enrolment = Result<pb::EnrolResponse, String>;

impl Client {
    pub async fn connect(name: &'static str, address: std::net::SocketAddr) -> Result<Self, Failure> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        Ok(Self { name, channel })
    }

    /// Enrols all in one stream; answers in the order of `faces`.
    pub async fn enrol(&self, faces: Vec<(String, pb::FaceImage)>) -> Result<Vec<Enrolment>, Failure> {
        let mut answers: Vec<Enrolment> = faces.iter().map(|_| Err("there was no answer".into())).collect();
        let (sender, items) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            for (item, (subject_id, image)) in (0..).zip(faces) {
                let enrolment = pb::EnrolRequest {
                    context: context(pb::Purpose::SimActivation),
                    gallery: GALLERY.into(),
                    subject_id,
                    image: Some(image),
                    reference_id: String::new(),
                };
                let request = pb::EnrolStreamRequest { item, enrolment: Some(enrolment) };
                if sender.send(request).await.is_err() {
                    return; // the stream has ended; its reader says why
                }
            }
        });
        let mut gallery = GalleryServiceClient::new(self.channel.clone());
        let mut statuses = gallery.enrol_stream(self.request(ReceiverStream::new(items))).await?.into_inner();
        while let Some(status) = statuses.message().await? {
            let place = usize::try_from(status.item).ok().and_then(|item| answers.get_mut(item));
            match (place, status.result) {
                (Some(place), Some(pb::enrol_stream_response::Result::Enrolled(done))) => *place = Ok(done),
                (Some(place), Some(pb::enrol_stream_response::Result::Refused(why))) => *place = Err(why.message),
                _ => return Err("the server answered for an item that was not sent".into()),
            }
        }
        Ok(answers)
    }

    pub async fn verify(&self, subject: &str, probe: pb::FaceImage) -> Result<pb::VerifyResponse, Status> {
        let claimed = pb::ClaimedSubject { gallery: GALLERY.into(), subject_id: subject.into() };
        let request = pb::VerifyRequest {
            context: context(pb::Purpose::SimActivation),
            probe: Some(probe),
            claim: Some(pb::verify_request::Claim::ClaimedSubject(claimed)),
            max_fmr: 0.0,
        };
        Ok(MatchServiceClient::new(self.channel.clone()).verify(self.request(request)).await?.into_inner())
    }

    pub async fn identify(&self, receipt: Bytes) -> Result<pb::IdentifyResponse, Status> {
        let request = pb::IdentifyRequest {
            context: context(pb::Purpose::SimActivation),
            receipt,
            gallery: GALLERY.into(),
            max_candidates: 0,
            max_fpir: 0.0,
        };
        Ok(MatchServiceClient::new(self.channel.clone()).identify(self.request(request)).await?.into_inner())
    }

    pub async fn case(&self, id: &str) -> Result<pb::GetCaseResponse, Status> {
        let context = context(pb::Purpose::CaseReview);
        let request = pb::GetCaseRequest { context, case_id: id.into(), reviewer: REVIEWER.into() };
        Ok(ReviewServiceClient::new(self.channel.clone()).get_case(self.request(request)).await?.into_inner())
    }

    /// Ids of the open cases, oldest first.
    pub async fn open_cases(&self) -> Result<Vec<String>, Status> {
        let request = pb::ListCasesRequest {
            context: context(pb::Purpose::CaseReview),
            gallery: GALLERY.into(),
            page_size: 100,
            page_token: String::new(),
            reviewer: REVIEWER.into(),
        };
        let listed = ReviewServiceClient::new(self.channel.clone()).list_cases(self.request(request)).await?;
        Ok(listed.into_inner().cases.into_iter().map(|case| case.case_id).collect())
    }

    pub async fn judge(&self, case: &str, verdict: pb::Verdict) -> Result<(), Status> {
        let request = pb::RecordVerdictRequest {
            context: context(pb::Purpose::CaseReview),
            case_id: case.into(),
            verdict: verdict.into(),
            reviewer: REVIEWER.into(),
        };
        ReviewServiceClient::new(self.channel.clone()).record_verdict(self.request(request)).await?;
        Ok(())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("vultus-client", MetadataValue::from_static(self.name));
        request
    }
}

/// Why the call is made; every call says so.
fn context(purpose: pb::Purpose) -> Option<pb::RequestContext> {
    Some(pb::RequestContext {
        purpose: purpose.into(),
        consent_reference: "demo-consent".into(),
        transaction_id: "demo".into(),
        site: "demo-counter".into(),
    })
}

/// As a camera gives it: raw.
pub fn image(pixels: &Pixels) -> pb::FaceImage {
    let rgb8 = Bytes::copy_from_slice(pixels.rgb8());
    let raw = pb::RawImage { rgb8, width: pixels.width(), height: pixels.height() };
    pb::FaceImage { content: Some(pb::face_image::Content::Raw(raw)), ..Default::default() }
}
