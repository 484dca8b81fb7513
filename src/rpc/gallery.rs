//! GalleryService: Enrol, EnrolStream, Erase, DescribeGallery.

use std::{pin::Pin, sync::Arc, time::Instant};

use prost::Message;
use tokio::sync::{Notify, Semaphore, mpsc, mpsc::error::SendTimeoutError};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming, async_trait};
use tracing::{Instrument, Span};

use super::{
    Service,
    admission::StreamPlace,
    error::Error,
    observe::{Call, observe, refuse},
    pb, receive, respond,
};
use crate::{
    access::{Pass, Right},
    audit::{Decided, DecisionEvent},
    domain::{GalleryName, ReferenceId, RequestContext, SubjectId, Turn},
    gallery::{Lease, Selector, carried},
    pipeline::Timings,
    telemetry::Metrics,
};

type StatusStream = Pin<Box<dyn Stream<Item = Result<pb::EnrolStreamResponse, Status>> + Send>>;

#[async_trait]
impl pb::gallery_service_server::GalleryService for Service {
    type EnrolStreamStream = StatusStream;

    async fn enrol(&self, request: Request<pb::EnrolRequest>) -> Result<Response<pb::EnrolResponse>, Status> {
        let (turn, lease) = (receive::turn(request.extensions()), receive::lease(request.extensions()));
        self.answer("Enrol", turn, |turn| async { self.enrol_face(turn, lease?, request.into_inner()).await }).await
    }

    async fn enrol_stream(
        &self,
        request: Request<Streaming<pb::EnrolStreamRequest>>,
    ) -> Result<Response<StatusStream>, Status> {
        let turn = receive::turn(request.extensions()).map_err(Error::into_status)?;
        let place = request.extensions().get::<StreamPlace>().cloned();
        let items = request.into_inner();
        let window = self.0.limits.enrol_stream_window;
        let (statuses, answers) = mpsc::channel(window);
        tokio::spawn(self.clone().enrol_items(turn, place, items, statuses).instrument(Span::current()));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn erase(&self, request: Request<pb::EraseRequest>) -> Result<Response<pb::EraseResponse>, Status> {
        let (turn, lease) = (receive::turn(request.extensions()), receive::lease(request.extensions()));
        self.answer("Erase", turn, |turn| async { self.erase_references(turn, lease?, request.into_inner()).await })
            .await
    }

    async fn describe_gallery(
        &self,
        request: Request<pb::DescribeGalleryRequest>,
    ) -> Result<Response<pb::DescribeGalleryResponse>, Status> {
        let turn = receive::turn(request.extensions());
        self.answer("DescribeGallery", turn, |turn| self.describe(turn, request.into_inner())).await
    }
}

impl Service {
    async fn enrol_face(
        &self,
        turn: Turn,
        lease: Lease,
        request: pb::EnrolRequest,
    ) -> Result<pb::EnrolResponse, Error> {
        let started = Instant::now();
        let (pass, context) = self.enter(receive::client_of(&turn)?, request.context, &[Right::Enrol])?;
        let name = receive::id("gallery", GalleryName::new(&request.gallery))?;
        let subject = receive::id("subject_id", SubjectId::new(&request.subject_id))?;
        let id = match request.reference_id.as_str() {
            "" => None,
            text => Some(receive::id("reference_id", ReferenceId::parse(text))?),
        };
        let chip = receive::chip(request.image.as_ref())?;
        let pipeline = &self.0.pipeline;
        // Before any image byte is decoded; and a reference that is there needs no second extraction.
        let known = pass.gallery(&name)?;
        if let (Some(gallery), Some(id)) = (&known, id)
            && gallery.model() == pipeline.model()
            && let Some(epoch) = gallery.held_at(&subject, id)
        {
            let decided = Decided::Enrolled { reference: id, repeated: true, chip: None };
            self.changed(&pass, &context, name, epoch, Some(subject), decided).await?;
            return Ok(pb::EnrolResponse {
                reference_id: id.to_string(),
                gallery_epoch: epoch,
                model_digest: pipeline.model().to_string(),
                transaction_id: context.transaction_id.to_string(),
                timings: Some(respond::timings(Timings::default(), started.elapsed())),
                already_enrolled: true,
                chip,
            });
        }
        let image = receive::face("image", request.image)?;
        let (template, mut timings) = pipeline.extract_reference(image, &turn).await?;
        // Only a face that became a template makes a gallery.
        let gallery = pass.gallery_for_enrolment(&name, pipeline.model(), template.dimension()).await??;
        let (service, transaction_id) = (self.clone(), context.transaction_id.to_string());
        let told = chip.as_ref().map(respond::told);
        let committing = Instant::now();
        let change = async move {
            let enrolled = service.0.pipeline.enrol(&gallery, subject.clone(), id, template).await?;
            let took = committing.elapsed();
            let decided = Decided::Enrolled { reference: enrolled.id, repeated: enrolled.repeated, chip: told };
            service.changed(&pass, &context, name, enrolled.epoch, Some(subject), decided).await?;
            Ok::<_, Error>((enrolled, took))
        };
        let (enrolled, took) = carried(lease, change).await??;
        timings.compare = took;
        Ok(pb::EnrolResponse {
            reference_id: enrolled.id.to_string(),
            gallery_epoch: enrolled.epoch,
            model_digest: pipeline.model().to_string(),
            transaction_id,
            timings: Some(respond::timings(timings, started.elapsed())),
            already_enrolled: enrolled.repeated,
            chip,
        })
    }

    /// Enrols what comes in, at most a window of items at a time, of this stream and of all together: a sender that is faster waits,
    /// in its own flow control, with one item received at most. Ends with the sender, after a silence of the greatest deadline, when
    /// the client has read no answer for as long, or when the server is told to stop.
    async fn enrol_items(
        self,
        turn: Turn,
        place: Option<StreamPlace>,
        mut items: Streaming<pb::EnrolStreamRequest>,
        statuses: mpsc::Sender<Result<pb::EnrolStreamResponse, Status>>,
    ) {
        let limits = &self.0.limits;
        let window = Arc::new(Semaphore::new(limits.enrol_stream_window));
        let unread = Arc::new(Notify::new());
        let mut stopping = self.0.stopping.subscribe();
        let end = loop {
            let next = async {
                let Ok(permit) = Arc::clone(&window).acquire_owned().await else { return Ok(None) };
                let silence = tokio::time::sleep(limits.max_deadline);
                let request = tokio::select! {
                    next = items.next() => match next.transpose().map_err(|status| self.named(status))? {
                        Some(request) => request,
                        None => return Ok(None),
                    },
                    () = silence => return Err(Error::Silence.into_status()),
                };
                // Before the next item is read, so that streams together hold no more than the window.
                let worked_on = Arc::clone(&self.0.stream_items).acquire_owned().await;
                Ok(worked_on.ok().map(|worked_on| (permit, worked_on, request)))
            };
            // None of these waits may be for ever: what they wait for may be this very client.
            let next = tokio::select! {
                next = next => next,
                _ = stopping.wait_for(|stop| *stop) => Err(Error::Stopping.into_status()),
                () = unread.notified() => Err(Error::Unread.into_status()),
            };
            let (permit, worked_on, request) = match next {
                Ok(Some(next)) => next,
                Ok(None) => break None,
                Err(status) => break Some(status),
            };
            if statuses.is_closed() {
                break None;
            }
            let deadline = Instant::now() + limits.max_deadline;
            let turn = Turn { arrived: Instant::now(), deadline, ..turn.clone() };
            // Before another item is unpacked.
            let held = place.as_ref().map(|place| place.hold(request.encoded_len())).transpose();
            // Until the work is done: others may work while this client has yet to read its answer.
            let lease = held.map(|held| Lease::new(Arc::new((held, worked_on))));
            let (service, statuses, unread) = (self.clone(), statuses.clone(), Arc::clone(&unread));
            tokio::spawn(async move {
                let status = tokio::select! {
                    status = service.enrol_item(turn, lease, request) => status,
                    () = statuses.closed() => return, // nobody waits for it
                };
                let patience = service.0.limits.max_deadline;
                if let Err(SendTimeoutError::Timeout(_)) = statuses.send_timeout(Ok(status), patience).await {
                    unread.notify_one();
                }
                drop(permit);
            });
        };
        if let Some(status) = end {
            // What is being worked on is answered first, as far as the client reads; within the grace, where it is that.
            let patience = limits.max_deadline.min(limits.drain_grace / 2);
            let all = u32::try_from(limits.enrol_stream_window).unwrap_or(u32::MAX);
            let _answered = tokio::time::timeout(patience, window.acquire_many(all)).await;
            let _ = statuses.send_timeout(Err(status), patience / 2).await; // the client has gone if nobody listens
        }
    }

    /// As the table of errors has it, where the transport broke off.
    fn named(&self, status: Status) -> Status {
        let most = self.0.limits.message_bytes;
        let error = if status.details().is_empty() { Error::of_transport(status.code(), most) } else { None };
        error.map_or(status, |error| refuse("EnrolStream", error))
    }

    /// `lease`: the item's bytes and its place in the window, or that there is no room for it.
    async fn enrol_item(
        &self,
        turn: Turn,
        lease: Result<Lease, Error>,
        request: pb::EnrolStreamRequest,
    ) -> pb::EnrolStreamResponse {
        use pb::enrol_stream_response::Result as Outcome;
        let (deadline, call) = (turn.deadline, Call::begun("EnrolStream"));
        let work = async {
            let lease = lease?;
            let enrolment = request.enrolment.ok_or(Error::field("enrolment", "an EnrolRequest"))?;
            self.enrol_face(turn, lease, enrolment).await
        };
        let outcome = observe("EnrolStream", deadline, work).await;
        call.answered(outcome.as_ref().map_or_else(Status::code, |_| Code::Ok));
        let outcome = match outcome {
            Ok(enrolled) => Outcome::Enrolled(enrolled),
            Err(status) => Outcome::Refused(tonic_types::Status {
                code: status.code() as i32,
                message: status.message().into(),
                details: details(&status),
            }),
        };
        pb::EnrolStreamResponse { item: request.item, result: Some(outcome) }
    }

    async fn erase_references(
        &self,
        turn: Turn,
        lease: Lease,
        request: pb::EraseRequest,
    ) -> Result<pb::EraseResponse, Error> {
        let (pass, context) = self.enter(receive::client_of(&turn)?, request.context, &[Right::Erase])?;
        let name = receive::id("gallery", GalleryName::new(&request.gallery))?;
        let selector = match request.selector {
            None => return Err(Error::field("selector", "subject_id or reference_id; nothing is never all")),
            Some(pb::erase_request::Selector::SubjectId(id)) => {
                Selector::Subject(receive::id("selector.subject_id", SubjectId::new(&id))?)
            }
            Some(pb::erase_request::Selector::ReferenceId(id)) => {
                Selector::Reference(receive::id("selector.reference_id", ReferenceId::parse(&id))?)
            }
        };
        let (subject, reference) = match &selector {
            Selector::Subject(subject) => (Some(subject.clone()), None),
            Selector::Reference(id) => (None, Some(*id)),
        };
        let gallery = pass.gallery(&name)?;
        let (service, transaction_id) = (self.clone(), context.transaction_id.to_string());
        let change = async move {
            let (references, epoch) = match gallery {
                None => (0, 0),
                Some(gallery) => {
                    let erased = gallery.erase(selector).await?;
                    (erased.references, erased.epoch)
                }
            };
            Metrics::get().erased_references_total.inc_by(references as u64);
            let decided = Decided::Erased { reference, references };
            service.changed(&pass, &context, name, epoch, subject, decided).await?;
            Ok::<_, Error>((references, epoch))
        };
        let (references, epoch) = carried(lease, change).await??;
        Ok(pb::EraseResponse {
            erased_references: u32::try_from(references).unwrap_or(u32::MAX),
            gallery_epoch: epoch,
            transaction_id,
        })
    }

    /// Tells what a change of the gallery has come to.
    async fn changed(
        &self,
        pass: &Pass,
        context: &RequestContext,
        gallery: GalleryName,
        epoch: u64,
        subject: Option<SubjectId>,
        decided: Decided,
    ) -> Result<(), Error> {
        let (gallery, position) = (Some(gallery), Some(epoch));
        let event = DecisionEvent { gallery, position, subject, ..DecisionEvent::new(pass.client(), context, decided) };
        self.0.decided(event).await
    }

    async fn describe(
        &self,
        turn: Turn,
        request: pb::DescribeGalleryRequest,
    ) -> Result<pb::DescribeGalleryResponse, Error> {
        let rights = [Right::Admin, Right::Enrol, Right::Verify];
        let (pass, context) = self.enter(receive::client_of(&turn)?, request.context, &rights)?;
        let name = receive::id("gallery", GalleryName::new(&request.gallery))?;
        let gallery = pass.gallery(&name)?.ok_or(Error::Unknown("there is no gallery of this name"))?;
        let description = gallery.describe();
        Ok(pb::DescribeGalleryResponse {
            gallery: name.to_string(),
            subjects: description.subjects as u64,
            references: description.references as u64,
            model_digest: gallery.model().to_string(),
            dimension: u32::try_from(gallery.dimension()).unwrap_or(u32::MAX),
            gallery_epoch: description.epoch,
            created_at: Some(respond::timestamp(description.created_at)),
            transaction_id: context.transaction_id.to_string(),
            extractions: description.extractions.into_iter().map(respond::extraction).collect(),
        })
    }
}

/// The typed details, as they travel in a status' binary metadata.
fn details(status: &Status) -> Vec<prost_types::Any> {
    tonic_types::Status::decode(status.details()).map(|status| status.details).unwrap_or_default()
}
