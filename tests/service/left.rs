//! A change that has begun is carried to its event, whether or not its caller still waits.

use std::{
    borrow::Cow,
    future::Future,
    path::Path,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::task::JoinHandle;
use tonic::{Code, Request};
use vultus::{
    audit::{Decided, DecisionEvent},
    domain::{GalleryName, SubjectId},
    gallery::{Clocks, Gallery, MachineClocks},
    rpc::pb::{self, erase_request::Selector},
};
use vultus_index::{ExactIndex, FaissIndexes, Index, IndexError, Indexes, Neighbour, Snapshot, Vectors, Within};

use crate::{
    house::{GALLERY, House, face},
    requests::{enrol, erase, identify, of, record_verdict, refusal, verify},
    server::CONFIG,
};

/// The machine's clocks, at which the store's writer waits while they are stopped: it looks at them within each commit.
#[derive(Debug, Default)]
struct Hands {
    stopped: Mutex<bool>,
    go: Condvar,
}

impl Clocks for Hands {
    fn wall(&self) -> SystemTime {
        if thread::current().name() == Some("gallery-writer") {
            let _going = self.go.wait_while(self.stopped.lock().unwrap(), |stopped| *stopped).unwrap();
        }
        MachineClocks.wall()
    }

    fn uptime(&self) -> Duration {
        MachineClocks.uptime()
    }
}

impl Hands {
    fn stop(&self, stop: bool) {
        *self.stopped.lock().unwrap() = stop;
        self.go.notify_all();
    }
}

/// Long enough for a call to come to what holds it back, and for its end to be known.
const A_WHILE: Duration = Duration::from_millis(400);

/// Where a call is when its caller leaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Store,
    Sink,
}

/// A server whose store and sink can be held back.
struct Held {
    house: House,
    hands: Arc<Hands>,
}

impl Held {
    async fn open(dir: &Path, config: &str) -> Self {
        let hands = Arc::<Hands>::default();
        let clocks = Arc::clone(&hands) as Arc<dyn Clocks>;
        Self { house: House::open_with(dir, config, clocks, Arc::new(FaissIndexes)).await, hands }
    }

    fn gallery(&self) -> Arc<Gallery> {
        self.house.galleries.get(&GalleryName::new(GALLERY).unwrap()).unwrap()
    }

    fn knows(&self, subject: &str) -> bool {
        self.gallery().knows(&SubjectId::new(subject).unwrap())
    }

    /// The one event that comes.
    async fn told(&self) -> DecisionEvent {
        until("the event", async || !self.house.notes.told.lock().unwrap().is_empty()).await;
        tokio::time::sleep(A_WHILE / 4).await; // for a second one
        self.house.notes.one()
    }

    fn nothing_is_told(&self) {
        let told = self.house.notes.told.lock().unwrap();
        assert!(told.is_empty(), "{told:?}");
    }

    /// Makes a call whose caller leaves there, and lets it go on; `done` says whether its change is there.
    async fn left(&self, at: At, call: JoinHandle<Code>, done: impl AsyncFn() -> bool) -> DecisionEvent {
        let closed = if at == At::Sink { Some(self.house.notes.gate.write().await) } else { None };
        self.hands.stop(at == At::Store);
        match at {
            At::Store => tokio::time::sleep(A_WHILE).await,
            At::Sink => until("the change", &done).await,
        }
        assert!(!call.is_finished(), "an answer left before the event was told");
        call.abort();
        tokio::time::sleep(A_WHILE).await;
        self.nothing_is_told();
        assert_eq!(done().await, at == At::Sink);
        self.hands.stop(false);
        drop(closed);
        let event = self.told().await;
        assert!(done().await, "{event:?} is told of a change that is not there");
        event
    }
}

async fn until(what: &str, done: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not come");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Begins once the runtime comes to it: what is to hold it back is there first. Its code, were it answered.
fn begin<T>(call: impl Future<Output = Result<T, tonic::Status>> + Send + 'static) -> JoinHandle<Code> {
    tokio::spawn(async {
        tokio::time::sleep(A_WHILE / 4).await;
        call.await.map_or_else(|status| status.code(), |_| Code::Ok)
    })
}

fn item(subject: &str) -> Request<impl tokio_stream::Stream<Item = pb::EnrolStreamRequest> + Send + 'static> {
    let item = pb::EnrolStreamRequest { item: 1, enrolment: Some(enrol(GALLERY, subject, face())) };
    of("shop", tokio_stream::StreamExt::chain(tokio_stream::iter([item]), tokio_stream::pending()))
}

/// The first answer of a stream that goes on.
async fn streamed(house: &House, subject: &'static str) -> impl Future<Output = Result<(), tonic::Status>> + use<> {
    let mut gallery = house.gallery();
    async move {
        let mut answers = gallery.enrol_stream(item(subject)).await?.into_inner();
        answers.message().await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_once_also_where_its_caller_has_left() {
    for at in [At::Store, At::Sink] {
        let dir = tempfile::tempdir().unwrap();
        let held = Held::open(dir.path(), CONFIG).await;
        let house = &held.house;
        house.enrol("alice").await;
        house.enrol("bob").await;
        let verified =
            house.matching().verify(of("shop", verify(GALLERY, "alice", face()))).await.unwrap().into_inner();
        house.notes.told.lock().unwrap().clear();

        let mut gallery = house.gallery();
        let call = begin(async move { gallery.enrol(of("shop", enrol(GALLERY, "carol", face()))).await });
        let event = held.left(at, call, async || held.knows("carol")).await;
        let Decided::Enrolled { reference, repeated: false, .. } = event.decided else { panic!("{event:?}") };
        assert!(held.gallery().holds(&SubjectId::new("carol").unwrap(), reference));
        assert_eq!(event.position, Some(held.gallery().epoch()));

        let call = begin(streamed(house, "dave").await);
        let event = held.left(at, call, async || held.knows("dave")).await;
        assert!(matches!(event.decided, Decided::Enrolled { repeated: false, .. }), "{event:?}");
        assert_eq!(event.position, Some(held.gallery().epoch()));

        let mut gallery = house.gallery();
        let bob = erase(GALLERY, Some(Selector::SubjectId("bob".into())));
        let call = begin(async move { gallery.erase(of("shop", bob)).await });
        let event = held.left(at, call, async || !held.knows("bob")).await;
        assert_eq!(event.decided, Decided::Erased { reference: None, references: 1 });
        assert_eq!(event.position, Some(held.gallery().epoch()));

        let mut matching = house.matching();
        let receipt = verified.receipt.clone();
        let call = begin(async move { matching.identify(of("shop", identify(GALLERY, receipt))).await });
        let tally = async || house.galleries.tally().await.unwrap();
        let event = held.left(at, call, async || tally().await.searches == 1).await;
        let Decided::Identified { case: Some(id), repeated: false } = event.decided else { panic!("{event:?}") };
        assert!(house.galleries.case(id).await.unwrap().is_some());

        let mut review = house.review();
        let verdict = record_verdict(&id.to_string(), pb::Verdict::Unclear);
        let call = begin(async move { review.record_verdict(of("auditor", verdict)).await });
        let event = held.left(at, call, async || tally().await.unclear == 1).await;
        assert!(matches!(event.decided, Decided::CaseJudged { case, .. } if case == id), "{event:?}");
        held.house.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_ends_the_wait_alone() {
    let dir = tempfile::tempdir().unwrap();
    let held = Held::open(dir.path(), CONFIG).await;
    held.house.enrol("alice").await;
    held.house.notes.one();
    held.hands.stop(true);
    let mut late = of("shop", enrol(GALLERY, "bob", face()));
    late.set_timeout(A_WHILE);
    let refused = held.house.gallery().enrol(late).await.unwrap_err();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&refused.code()), "{refused:?}");
    held.nothing_is_told();
    held.hands.stop(false);
    let event = held.told().await;
    assert!(matches!(event.decided, Decided::Enrolled { repeated: false, .. }) && held.knows("bob"), "{event:?}");
    held.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_failed_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let held = Held::open(dir.path(), CONFIG).await;
    held.house.enrol("alice").await;
    held.house.notes.one();
    // Another program holds the store: what is asked for now changes nothing.
    let other = rusqlite::Connection::open(dir.path().join("galleries.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    held.hands.stop(true);
    let mut gallery = held.house.gallery();
    let call = begin(async move { gallery.enrol(of("shop", enrol(GALLERY, "bob", face()))).await });
    tokio::time::sleep(A_WHILE).await;
    call.abort();
    held.hands.stop(false);
    let refused = held.house.gallery().enrol(of("shop", enrol(GALLERY, "carol", face()))).await;
    assert_eq!(refusal(refused), (Code::Unavailable, "STORE_BUSY".into()));
    tokio::time::sleep(A_WHILE).await;
    held.nothing_is_told();
    other.execute_batch("ROLLBACK").unwrap();
    assert!(!held.knows("bob") && !held.knows("carol"));
    held.house.enrol("dave").await;
    held.house.notes.one();
    held.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_has_no_more_changes_under_way_than_calls() {
    // Of a lane one client has half at most: one of these two.
    let dir = tempfile::tempdir().unwrap();
    let limits = "[limits]\nback_office_in_flight = 2\nenrol_stream_window = 1";
    let held = Held::open(dir.path(), &format!("{CONFIG}\n{limits}")).await;
    held.house.enrol("alice").await;
    held.house.notes.one();
    let mut gallery = held.house.gallery();
    held.hands.stop(true);
    let call = begin(async move { gallery.enrol(of("shop", enrol(GALLERY, "bob", face()))).await });
    tokio::time::sleep(A_WHILE).await;
    call.abort();
    tokio::time::sleep(A_WHILE).await;
    let refused = held.house.gallery().enrol(of("shop", enrol(GALLERY, "carol", face()))).await;
    assert_eq!(refusal(refused), (Code::ResourceExhausted, "CLIENT_OVER_LIMIT".into()));
    held.hands.stop(false);
    held.told().await;
    held.house.enrol("carol").await;
    held.house.notes.one();
    held.house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_more_items_of_streams_than_the_window_has() {
    let dir = tempfile::tempdir().unwrap();
    let held = Held::open(dir.path(), &format!("{CONFIG}\n[limits]\nenrol_stream_window = 1")).await;
    held.house.enrol("alice").await;
    held.house.notes.one();
    let closed = held.house.notes.gate.write().await;
    let first = begin(streamed(&held.house, "bob").await);
    until("the change", async || held.knows("bob")).await;
    first.abort();
    let second = begin(streamed(&held.house, "carol").await);
    tokio::time::sleep(2 * A_WHILE).await;
    assert!(!held.knows("carol"), "the place of an item that is not told yet was given away");
    drop(closed);
    assert_eq!(second.await.unwrap(), Code::Ok);
    assert_eq!(held.house.notes.told.lock().unwrap().len(), 2);
    held.house.close().await;
}

/// Finds, and cannot read what it keeps.
#[derive(Debug)]
struct Unreadable;

impl Indexes for Unreadable {
    fn make(&self, dimension: usize) -> Result<Box<dyn Index>, IndexError> {
        Ok(Box::new(Sealed(ExactIndex::new(dimension))))
    }
}

#[derive(Clone)]
struct Sealed(ExactIndex);

impl Index for Sealed {
    fn insert(&mut self, rows: &[(i64, &[f32])]) -> Result<(), IndexError> {
        self.0.insert(rows)
    }

    fn remove(&mut self, ids: &[i64]) -> Result<usize, IndexError> {
        self.0.remove(ids)
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(self.clone())
    }
}

impl Snapshot for Sealed {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn within(&self, asks: &[Within<'_>]) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        self.0.within(asks)
    }

    fn nearest(&self, probes: &[&[f32]], k: usize) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        self.0.nearest(probes, k)
    }

    fn vectors(&self) -> &dyn Vectors {
        self
    }
}

impl Vectors for Sealed {
    fn vector(&self, id: i64) -> Result<Option<Cow<'_, [f32]>>, IndexError> {
        Err(IndexError::Unreadable { id, why: "as the test wishes".into() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_that_cannot_be_read_is_no_non_match() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open_with(dir.path(), CONFIG, Arc::new(MachineClocks), Arc::new(Unreadable)).await;
    house.enrol("alice").await;
    house.notes.one();
    let verified = house.matching().verify(of("shop", verify(GALLERY, "alice", face()))).await;
    assert_eq!(refusal(verified), (Code::Unavailable, "STORE_UNREADABLE".into()));
    assert!(house.notes.told.lock().unwrap().is_empty(), "nothing was decided");
    house.close().await;
}
