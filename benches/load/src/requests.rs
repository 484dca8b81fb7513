//! The requests, made before the load: verifications of mated and non-mated probes in turn, as bytes.

use std::time::Duration;

use jpeg_encoder::{ColorType, Encoder};
use prost::{Message, bytes::Bytes};
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use vultus_engine::image::Pixels;

use crate::{arrivals::Random, codec::Raw, drive::Sender};
use vultus::{
    cli::{Failure, demo::faces::Person},
    rpc::pb::{
        self, Decision, face_image::Content, gallery_service_client::GalleryServiceClient, verify_request::Claim,
    },
};

/// A JPEG as cameras make them.
const QUALITY: u8 = 90;
/// Of a crop as counters send it, at most: about 20 KB then.
const CROP_SIDE: u32 = 256;

const VERIFY: &str = "/vultus.v1.MatchService/Verify";

/// One verification, ready to be sent.
#[derive(Debug, Clone)]
pub struct Prepared {
    message: Bytes,
    /// As it was answered before the load.
    answer: Option<Answer>,
}

/// What must not change under load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    decision: Decision,
    /// To the last bit, where the client may see it.
    score: Option<u32>,
}

impl Prepared {
    fn decision(&self) -> Option<Decision> {
        self.answer.map(|answer| answer.decision)
    }
}

/// Connections, each under a client's name, and what is sent over them.
#[derive(Debug)]
pub struct Load {
    connections: Vec<(Channel, MetadataValue<Ascii>)>,
    requests: Vec<Prepared>,
    deadline: Duration,
}

impl Load {
    pub fn new(
        connections: Vec<(Channel, String)>,
        requests: Vec<Prepared>,
        deadline: Duration,
    ) -> Result<Self, Failure> {
        let named = |(channel, name): (Channel, String)| Ok::<_, Failure>((channel, name.parse()?));
        let connections = connections.into_iter().map(named).collect::<Result<_, _>>()?;
        Ok(Self { connections, requests, deadline })
    }

    /// Sends every request once, one after the other, and keeps those that were decided, with their decision.
    ///
    /// # Errors
    /// When one fails, or none is decided.
    pub async fn settle(mut self) -> Result<Self, Failure> {
        for turn in 0..self.requests.len() {
            let answer = self.send_to(turn, turn).await.map_err(|status| format!("before the load: {status}"))?;
            self.requests[turn].answer = self::answer(&answer);
        }
        self.requests.retain(|r| matches!(r.decision(), Some(Decision::Match | Decision::NonMatch)));
        if self.requests.is_empty() {
            return Err("none of the verifications is decided: nothing to load a server with".into());
        }
        Ok(self)
    }

    /// Of all requests: how many, how many of them match, and the middle size of their messages.
    pub fn describe(&self) -> (usize, usize, usize) {
        let mut sizes: Vec<usize> = self.requests.iter().map(|r| r.message.len()).collect();
        sizes.sort_unstable();
        let mated = self.requests.iter().filter(|r| r.decision() == Some(Decision::Match)).count();
        (sizes.len(), mated, sizes.get(sizes.len() / 2).copied().unwrap_or_default())
    }

    async fn send_to(&self, connection: usize, request: usize) -> Result<Bytes, Status> {
        let none = || Status::internal("a load without connections or requests");
        let (channel, client) = self.connections.get(connection % self.connections.len().max(1)).ok_or_else(none)?;
        let prepared = self.requests.get(request % self.requests.len().max(1)).ok_or_else(none)?;
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(prepared.message.clone());
        request.set_timeout(self.deadline);
        request.metadata_mut().insert("vultus-client", client.clone());
        Ok(grpc.unary(request, PathAndQuery::from_static(VERIFY), Raw).await?.into_inner())
    }

    /// Every request goes over every connection in time.
    fn request_of(&self, turn: usize) -> usize {
        (turn + turn / self.connections.len().max(1)) % self.requests.len().max(1)
    }
}

impl Sender for Load {
    async fn send(&self, turn: usize) -> Result<Bytes, Status> {
        self.send_to(turn, self.request_of(turn)).await
    }

    fn as_before(&self, turn: usize, answer: &Bytes) -> bool {
        self.requests.get(self.request_of(turn)).is_some_and(|r| r.answer == self::answer(answer))
    }
}

fn answer(message: &Bytes) -> Option<Answer> {
    let answer = pb::VerifyResponse::decode(message.clone()).ok()?;
    Some(Answer { decision: answer.decision(), score: answer.score.map(f32::to_bits) })
}

/// Enrols everyone, and makes verifications of whoever was enrolled: as themselves, by every probe, and as the next.
pub async fn of_people(
    people: &[Person],
    gallery: &str,
    channel: &Channel,
    client: &str,
) -> Result<Vec<Prepared>, Failure> {
    let client: MetadataValue<Ascii> = client.parse()?;
    let mut service = GalleryServiceClient::new(channel.clone());
    let mut enrolled = Vec::new();
    for person in people {
        let mut request = Request::new(pb::EnrolRequest {
            context: context(),
            gallery: gallery.into(),
            subject_id: person.subject.clone(),
            image: Some(face(jpeg(&person.reference)?)),
            reference_id: String::new(),
        });
        request.metadata_mut().insert("vultus-client", client.clone());
        match service.enrol(request).await {
            Ok(_) => enrolled.push(person),
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {} // its quality was refused
            Err(status) => return Err(format!("enrolling {}: {status}", person.subject).into()),
        }
    }
    let mut requests = Vec::new();
    for (person, next) in enrolled.iter().zip(enrolled.iter().cycle().skip(1)) {
        for (at, probe) in person.probes.iter().enumerate() {
            let image = jpeg(&probe.image)?;
            requests.push(verification(gallery, &person.subject, image.clone()));
            if at == 0 && person.subject != next.subject {
                requests.push(verification(gallery, &next.subject, image));
            }
        }
    }
    Ok(requests)
}

/// Verifications with `bytes` of noise for an image, for a server that decodes none.
pub fn of_noise(gallery: &str, bytes: usize, seed: u64) -> Vec<Prepared> {
    let mut random = Random::new(seed);
    let mut image = || -> Bytes { std::iter::repeat_with(|| random.next() as u8).take(bytes).collect() };
    (0..16).map(|subject| verification(gallery, &format!("person-{subject}"), image())).collect()
}

fn verification(gallery: &str, subject: &str, image: Bytes) -> Prepared {
    let claimed = pb::ClaimedSubject { gallery: gallery.into(), subject_id: subject.into() };
    let request = pb::VerifyRequest {
        context: context(),
        probe: Some(face(image)),
        claim: Some(Claim::ClaimedSubject(claimed)),
        max_fmr: 0.0,
    };
    Prepared { message: request.encode_to_vec().into(), answer: None }
}

pub fn context() -> Option<pb::RequestContext> {
    Some(pb::RequestContext {
        purpose: pb::Purpose::SimActivation.into(),
        consent_reference: "bench-consent".into(),
        transaction_id: "bench".into(),
        site: "bench-counter".into(),
    })
}

fn face(file: Bytes) -> pb::FaceImage {
    pb::FaceImage { content: Some(Content::Encoded(file)), ..Default::default() }
}

fn jpeg(pixels: &Pixels) -> Result<Bytes, Failure> {
    let mut file = Vec::new();
    let longer = pixels.width().max(pixels.height()).max(CROP_SIDE);
    let fitted = |side: u32| (side * CROP_SIDE).div_ceil(longer);
    let pixels = pixels.resized(fitted(pixels.width()), fitted(pixels.height()));
    let (width, height) = (u16::try_from(pixels.width())?, u16::try_from(pixels.height())?);
    Encoder::new(&mut file, QUALITY).encode(pixels.rgb8(), width, height, ColorType::Rgb)?;
    Ok(file.into())
}
