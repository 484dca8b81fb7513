//! A decision is recorded once, and before its caller learns of it.

use std::{
    num::NonZeroUsize,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{RwLock, oneshot},
    task::JoinHandle,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use vultus::{
    access::Access,
    audit::{Decided, DecisionEvent, NotRecorded, Recording, Sink},
    config::Config,
    domain::{Reason, Template, Turn, Verdict},
    gallery::Galleries,
    model::ModelSet,
    pipeline::{Extract, Extracting, Extraction, FaceInput, Pipeline, Settings, Timings},
    rpc::{
        Core, TakenAtItsWord, bind,
        pb::{
            self, erase_request::Selector, gallery_service_client::GalleryServiceClient,
            match_service_client::MatchServiceClient, review_service_client::ReviewServiceClient,
        },
    },
    seal::RootKey,
};
use vultus_engine::device::DeviceChoice;

use crate::{
    requests::{
        assess, case, describe, enrol, erase, identify, list_cases, of, raw, record_verdict, refusal, verify,
        verify_inline,
    },
    server::{CONFIG, models},
};

const GALLERY: &str = "subscribers";

/// Keeps what it is told, unless it fails; takes its time while the gate is closed.
#[derive(Debug, Default)]
struct Notes {
    told: Mutex<Vec<DecisionEvent>>,
    fails: AtomicBool,
    gate: RwLock<()>,
}

impl Sink for Notes {
    fn record(&self, event: DecisionEvent) -> Recording<'_> {
        Box::pin(async move {
            let _open = self.gate.read().await;
            if self.fails.load(Ordering::SeqCst) {
                return Err(NotRecorded("the disk of the audit is full".into()));
            }
            self.told.lock().unwrap().push(event);
            Ok(())
        })
    }
}

impl Notes {
    /// The one event since the last look.
    fn one(&self) -> DecisionEvent {
        let mut told = std::mem::take(&mut *self.told.lock().unwrap());
        assert_eq!(told.len(), 1, "{told:?}");
        told.remove(0)
    }

    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }
}

/// Whose faces are all alike.
#[derive(Debug)]
struct Alike(Template);

impl Extract for Alike {
    fn extract<'a>(&'a self, _: FaceInput, _: &'a Turn) -> Extracting<'a> {
        Box::pin(async { Ok(Extraction { outcome: Ok(self.0.clone()), timings: Timings::default() }) })
    }
}

/// A server in this process.
struct House {
    notes: Arc<Notes>,
    galleries: Arc<Galleries>,
    channel: Channel,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl House {
    async fn open(dir: &Path) -> Self {
        let (config, root) = (Config::parse(CONFIG).unwrap(), RootKey::from_bytes([7; 32]));
        let set = ModelSet::open(&models(), "default").unwrap();
        let settings = Settings {
            decode: config.decode,
            batch: config.batch,
            rates: config.rates,
            decoders: NonZeroUsize::MIN,
            pixel_bytes: config.pixel_bytes,
        };
        let executor = set.executor(DeviceChoice::Cpu, NonZeroUsize::MIN).unwrap();
        let pipeline = Pipeline::start(&set, vec![executor], settings, &root).unwrap();
        let face = Template::new(pipeline.model(), vec![0.0; pipeline.dimension()]).unwrap();
        let galleries = Arc::new(Galleries::open(dir, &root, config.galleries.clone()).unwrap());
        let access = Access::new(config.clients.clone(), Arc::clone(&galleries));
        let notes = Arc::new(Notes::default());
        let (pipeline, sink) = (pipeline.extracting_with(Arc::new(Alike(face))), Arc::clone(&notes));
        let core = Core::new(access, pipeline, sink, config.alternative_route, config.limits).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let serving = bind(core, Arc::new(TakenAtItsWord), any, any, false).await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", serving.address().unwrap())).unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap() };
            serving.until(stopped).await.unwrap();
        });
        Self { notes, galleries, channel: endpoint.connect().await.unwrap(), stop, server }
    }

    fn gallery(&self) -> GalleryServiceClient<Channel> {
        GalleryServiceClient::new(self.channel.clone())
    }

    fn matching(&self) -> MatchServiceClient<Channel> {
        MatchServiceClient::new(self.channel.clone())
    }

    fn review(&self) -> ReviewServiceClient<Channel> {
        ReviewServiceClient::new(self.channel.clone())
    }

    async fn enrol(&self, subject: &str) -> pb::EnrolResponse {
        self.gallery().enrol(of("shop", enrol(GALLERY, subject, face()))).await.unwrap().into_inner()
    }

    async fn close(self) {
        drop(self.channel);
        self.stop.send(()).unwrap();
        self.server.await.unwrap();
        self.galleries.close().await;
    }
}

fn face() -> Option<pb::FaceImage> {
    raw(64, 64, vec![128; 64 * 64 * 3])
}

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
    assert_eq!(about(&event, "shop"), (None, Some(identified.gallery_epoch)));
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
