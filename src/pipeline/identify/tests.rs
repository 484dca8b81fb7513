//! Between the search and its record anything may happen: here it does.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, mpsc},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::*;
use crate::{
    domain::{
        CalibrationPoint, ClientId, Fmr, Fnir, GalleryName, Lane, Purpose, Score, SubjectId, Tail, Template, Threshold,
    },
    gallery::{Clocks, Galleries, NewReference, Selector, Settings},
    pipeline::RECEIPT_LIFETIME,
    seal::RootKey,
};

const MODEL: ModelDigest = ModelDigest::new([1; 32]);

/// Clocks that stand until the test moves them.
#[derive(Debug)]
struct Hands(Mutex<Duration>);

impl Clocks for Hands {
    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1 << 30) + *self.0.lock().unwrap()
    }
    fn uptime(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// Whoever is told of outcomes: keeps them, takes its time while the gate is closed, and fails as the test wishes.
#[derive(Debug, Default)]
struct Notes {
    told: Mutex<Vec<(Outcome, bool)>>,
    fails: Mutex<bool>,
    gate: tokio::sync::RwLock<()>,
}

impl Notes {
    fn tell(self: &Arc<Self>) -> Tell<&'static str> {
        let notes = Arc::clone(self);
        Arc::new(move |_, outcome, repeated| {
            let notes = Arc::clone(&notes);
            Box::pin(async move {
                let _open = notes.gate.read().await;
                if *notes.fails.lock().unwrap() {
                    return Err("as the test wishes");
                }
                notes.told().push((outcome, repeated));
                Ok(())
            })
        })
    }

    fn told(&self) -> MutexGuard<'_, Vec<(Outcome, bool)>> {
        self.told.lock().unwrap()
    }
}

struct House {
    notes: Arc<Notes>,
    /// What every call holds.
    held: Arc<()>,
    galleries: Galleries,
    gallery: Arc<Gallery>,
    line: Identification,
    hands: Arc<Hands>,
    client: ClientId,
    name: GalleryName,
    transaction: TransactionId,
}

fn subject(text: &str) -> SubjectId {
    SubjectId::new(text).unwrap()
}

/// One of two faces that are far from each other.
fn face(number: u8) -> Template {
    Template::new(MODEL, vec![if number == 0 { 0.0 } else { 9.0 }; 4]).unwrap()
}

fn line(model: ModelDigest) -> Identification {
    let threshold = Threshold::new(Score::new(0.5).unwrap());
    let point = CalibrationPoint { fmr: Fmr::ONE, threshold, trials: 1, fnmr: Some(0.1) };
    let rates = RatePolicy { max_fmr: Fmr::ONE, max_fpir: Fpir::ONE, max_fnir: Fnir::ONE, tail: Tail::Measured };
    let calibration = Arc::new(Calibration::new(vec![point]).unwrap());
    Identification::new(Receipts::new(&RootKey::from_bytes([7; 32])), calibration, rates, model)
}

impl House {
    /// `a` and `b` have one face.
    async fn open(dir: &Path, write_queue_depth: usize) -> Arc<Self> {
        let hands = Arc::new(Hands(Mutex::new(Duration::from_secs(100))));
        let settings = Settings { write_queue_depth, reserve_bytes: 1 << 16, ..Settings::default() };
        let clocks = Arc::clone(&hands) as Arc<dyn Clocks>;
        let galleries = Galleries::open_by(dir, &RootKey::from_bytes([7; 32]), settings, clocks).unwrap();
        let name = GalleryName::new("main").unwrap();
        let gallery = galleries.get_or_create(&name, MODEL, 4).await.unwrap();
        let (client, transaction) = (ClientId::new("shop").unwrap(), TransactionId::new("t-1").unwrap());
        let (notes, held, line) = (Arc::default(), Arc::default(), line(MODEL));
        let house = Self { notes, held, galleries, gallery, line, hands, client, name, transaction };
        house.enrol("a", 0).await;
        house.enrol("b", 0).await;
        Arc::new(house)
    }

    async fn enrol(&self, who: &str, number: u8) {
        self.gallery
            .enrol(NewReference {
                id: None,
                subject: subject(who),
                template: face(number),
                extraction: Default::default(),
            })
            .await
            .unwrap();
    }

    async fn erase(&self, who: &str) {
        self.gallery.erase(Selector::Subject(subject(who))).await.unwrap();
    }

    fn bearer(&self) -> Bearer<'_> {
        Bearer { client: &self.client, gallery: &self.name, purpose: Purpose::SimActivation, model: MODEL }
    }

    /// A receipt of `a`.
    fn receipt(&self) -> (Vec<u8>, [u8; 16]) {
        let now = Now::by(self.gallery.clock());
        let sealed = self.line.receipts.issue(&face(0), &subject("a"), self.bearer(), now).unwrap().0;
        let nonce = self.line.receipts.open(&sealed, self.bearer()).unwrap().nonce;
        (sealed, nonce)
    }

    async fn identify_by(&self, line: &Identification, receipt: &[u8]) -> Result<Identified, IdentifyError> {
        let (bearer, transaction) = (self.bearer(), &self.transaction);
        let search = Search { receipt, bearer, transaction, max_candidates: 9, max_fpir: None };
        let turn = Turn::own(Lane::Identification, Instant::now() + Duration::from_secs(600));
        let lease = Lease::new(Arc::clone(&self.held));
        let identified = line.of(&self.gallery, search, &turn, &lease, &self.notes.tell()).await?;
        Ok(identified.expect("it was told"))
    }

    async fn identify(&self, receipt: &[u8]) -> Result<Identified, IdentifyError> {
        self.identify_by(&self.line, receipt).await
    }

    /// Waits until no call and nothing that one began is under way; fails where that takes long.
    async fn idle(&self) {
        let begun = Instant::now();
        while Arc::strong_count(&self.held) > 1 {
            assert!(begun.elapsed() < Duration::from_secs(20), "a lease is not given back");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Keeps the writer until what is returned is dropped.
    async fn keep_writer(&self) -> mpsc::SyncSender<()> {
        let (free, kept) = mpsc::sync_channel::<()>(0);
        let (began, begun) = tokio::sync::oneshot::channel();
        let work = move || {
            let _ = began.send(());
            let _ = kept.recv();
        };
        self.gallery.in_turn(work).await;
        begun.await.unwrap();
        free
    }
}

/// Long enough for a search in a gallery of two.
const A_WHILE: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_leaves_between_search_and_record_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), 1).await;
    let (receipt, nonce) = house.receipt();
    // The writer is busy, and nobody can queue: a finding waits for a place.
    let free = house.keep_writer().await;
    house.gallery.in_turn(|| {}).await;
    let left = tokio::time::timeout(A_WHILE, house.identify(&receipt)).await;
    assert!(left.is_err(), "the record was to wait: {left:?}");
    assert_eq!(house.gallery.outcome(nonce).await.unwrap(), None);
    assert_eq!((Arc::strong_count(&house.held), house.notes.told().len()), (2, 0), "what it held is kept meanwhile");
    drop(free);
    house.idle().await;
    let outcome = house.gallery.outcome(nonce).await.unwrap().expect("what was found is lost");
    assert_eq!(*house.notes.told(), [(outcome, false)]);
    let again = house.identify(&receipt).await.unwrap();
    assert_eq!((again.case, again.repeated), (outcome.case, true));
    assert!(outcome.case.is_some());
    assert_eq!(*house.notes.told(), [(outcome, false), (outcome, true)]);
    house.galleries.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_one_that_leaves_while_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), 64).await;
    let (receipt, nonce) = house.receipt();
    let closed = house.notes.gate.write().await;
    assert!(tokio::time::timeout(A_WHILE, house.identify(&receipt)).await.is_err());
    let outcome = house.gallery.outcome(nonce).await.unwrap().expect("it is recorded, and not told yet");
    assert_eq!((Arc::strong_count(&house.held), house.notes.told().len()), (2, 0));
    drop(closed);
    house.idle().await;
    assert_eq!(*house.notes.told(), [(outcome, false)]);
    house.galleries.close().await;
}

#[tokio::test]
async fn what_is_not_told_is_not_answered_and_what_failed_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), 64).await;
    let (receipt, nonce) = house.receipt();
    *house.notes.fails.lock().unwrap() = true;
    let (bearer, transaction) = (house.bearer(), &house.transaction);
    let search = Search { receipt: &receipt, bearer, transaction, max_candidates: 9, max_fpir: None };
    let turn = Turn::own(Lane::Identification, Instant::now() + Duration::from_secs(600));
    let (lease, tell) = (Lease::new(Arc::clone(&house.held)), house.notes.tell());
    // The first time it is recorded, the second time it was.
    for _ in 0..2 {
        let untold = house.line.of(&house.gallery, search, &turn, &lease, &tell).await.unwrap();
        assert_eq!(untold.unwrap_err(), "as the test wishes");
        assert!(house.gallery.outcome(nonce).await.unwrap().is_some());
    }
    *house.notes.fails.lock().unwrap() = false;
    let (unspent, _) = house.receipt();
    house.galleries.close().await;
    assert!(house.identify(&unspent).await.is_err());
    assert!(house.notes.told().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_found_and_erased_before_the_record_is_in_no_case() {
    for comes_back in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let house = House::open(dir.path(), 64).await;
        let free = house.keep_writer().await;
        let changes = {
            let house = Arc::clone(&house);
            tokio::spawn(async move {
                let enrolled = async {
                    if comes_back {
                        house.enrol("b", 0).await;
                    }
                };
                tokio::join!(house.erase("b"), enrolled);
            })
        };
        tokio::time::sleep(A_WHILE / 4).await;
        let identified = {
            let house = Arc::clone(&house);
            tokio::spawn(async move { house.identify(&house.receipt().0).await })
        };
        tokio::time::sleep(A_WHILE).await;
        drop(free);
        changes.await.unwrap();
        let identified = identified.await.unwrap().unwrap();
        match identified.case {
            None => assert!(!comes_back, "the reference that took the erased one's place was not found"),
            Some(id) => {
                let case = house.galleries.case(id).await.unwrap().unwrap();
                let reference = house.gallery.references_of(&subject("b")).unwrap()[0].id;
                let people = case.candidates.as_slice();
                assert!(comes_back && people.len() == 1 && people[0].reference == reference, "{case:?}");
            }
        }
        assert!(identified.epoch >= 3, "the search that is recorded came after the erasure");
        house.galleries.close().await;
    }
}

#[tokio::test]
async fn what_was_recorded_is_answered_when_nothing_could_be_searched_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::open(dir.path(), 64).await;
    let ((spent, _), (unspent, _)) = (house.receipt(), house.receipt());
    let first = house.identify(&spent).await.unwrap();
    let same = |again: Identified| {
        assert_eq!((again.case, again.epoch, again.repeated), (first.case, first.epoch, true));
    };
    // Another model, an erased subject, an expired receipt.
    let other = line(ModelDigest::new([2; 32]));
    same(house.identify_by(&other, &spent).await.unwrap());
    let refused = house.identify_by(&other, &unspent).await;
    assert!(matches!(refused, Err(IdentifyError::Receipt(ReceiptError::OtherModel))), "{refused:?}");
    house.erase("a").await;
    same(house.identify(&spent).await.unwrap());
    let refused = house.identify(&unspent).await;
    assert!(matches!(refused, Err(IdentifyError::Receipt(ReceiptError::SubjectErased))), "{refused:?}");
    *house.hands.0.lock().unwrap() += RECEIPT_LIFETIME;
    same(house.identify(&spent).await.unwrap());
    let refused = house.identify(&unspent).await;
    assert!(matches!(refused, Err(IdentifyError::Receipt(ReceiptError::Expired))), "{refused:?}");
    house.galleries.close().await;
}
