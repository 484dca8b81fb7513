//! What a follower of the feed is told, and what becomes of a store whose follower fails.

use std::sync::mpsc;

use vultus_index::IndexError;

use super::*;
use crate::{
    domain::{ReferenceId, SubjectId},
    gallery::{MachineClocks, store::StoredGallery},
    seal::RootKey,
};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    /// Name and position.
    Created(String, u64),
    /// Gallery, changes and position.
    Changed(i64, Vec<What>, u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Enrolled(i64),
    Erased(Vec<i64>),
}
use Told::{Changed, Created};
use What::{Enrolled as In, Erased as Out};

/// Notes what it is told, and fails as the test wishes.
#[derive(Default)]
struct Notes {
    told: Mutex<Vec<Told>>,
    fails: AtomicBool,
}

impl Notes {
    fn note(&self, told: Told) -> Result<(), FollowError> {
        self.told.lock().unwrap().push(told);
        match self.fails.load(Ordering::SeqCst) {
            true => Err(IndexError::Engine("as the test wishes".into()).into()),
            false => Ok(()),
        }
    }

    /// Since the last look.
    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

impl Follower for Notes {
    fn created(&self, gallery: StoredGallery) -> Result<(), FollowError> {
        self.note(Created(gallery.name.to_string(), gallery.position))
    }

    fn changed(&self, gallery: i64, changes: Vec<Change>, position: u64) -> Result<(), FollowError> {
        let what = |change| match change {
            Change::Enrolled(stored) => In(stored.seq),
            Change::Erased(rows) => Out(rows),
        };
        self.note(Changed(gallery, changes.into_iter().map(what).collect(), position))
    }
}

struct House {
    dir: tempfile::TempDir,
    notes: Arc<Notes>,
    store: Arc<Sqlite>,
}

/// Keys of the galleries of the test.
const ONE: i64 = 1;
const TWO: i64 = 2;

fn serve(dir: &Path, notes: &Arc<Notes>) -> Result<Sqlite, OpenError> {
    let check = RootKey::from_bytes([7; 32]).sealer("a test");
    let settings = Settings { reserve_bytes: 1 << 16, ..Settings::default() };
    Opened::open(dir, &check, settings, Arc::new(MachineClocks))?.serve(Arc::clone(notes) as Arc<dyn Follower>)
}

impl House {
    async fn open() -> Self {
        let (dir, notes) = (tempfile::tempdir().unwrap(), Arc::<Notes>::default());
        let store = Arc::new(serve(dir.path(), &notes).unwrap());
        let house = Self { dir, notes, store };
        house.create("one").await.unwrap();
        house.create("two").await.unwrap();
        assert_eq!(house.notes.told(), [Created("one".into(), 0), Created("two".into(), 0)]);
        house
    }

    /// Whatever the follower was, this one does not fail.
    async fn open_again(self) -> Self {
        self.store.close().await;
        let notes = Arc::<Notes>::default();
        let store = Arc::new(serve(self.dir.path(), &notes).unwrap());
        Self { notes, store, ..self }
    }

    async fn create(&self, name: &str) -> Result<(), CreateError> {
        self.store.create(GalleryName::new(name).unwrap(), ModelDigest::new([1; 32]), 4).await
    }

    async fn enrol(&self, gallery: i64, number: u16) -> Result<Enrolled, EnrolError> {
        enrol(&self.store, gallery, number).await
    }

    async fn erase(&self, gallery: i64, number: u16) -> Result<Erased, EraseError> {
        self.store.erase(gallery, Selector::Subject(who(number))).await
    }

    /// Keeps the writer until what is returned is dropped: what is asked for meanwhile shares a commit.
    async fn keep_writer(&self) -> mpsc::SyncSender<()> {
        let (free, kept) = mpsc::sync_channel::<()>(0);
        let (began, begun) = tokio::sync::oneshot::channel();
        let work = move || {
            let _ = began.send(());
            let _ = kept.recv();
        };
        self.store.in_turn(Box::new(work)).await;
        begun.await.unwrap();
        free
    }
}

/// The store opens no template: any bytes will do.
async fn enrol(store: &Sqlite, gallery: i64, number: u16) -> Result<Enrolled, EnrolError> {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    let (id, subject) = (ReferenceId::from_bytes(id), who(number));
    store.enrol(gallery, SealedReference { id, subject, sealed: vec![0; 32], extraction: Default::default() }).await
}

fn who(number: u16) -> SubjectId {
    SubjectId::new(&format!("s{number}")).unwrap()
}

/// Whether the answer is [`StoreError::Failed`], in whichever error.
fn has_failed<T: fmt::Debug, E: fmt::Display>(answer: Result<T, E>) -> bool {
    answer.err().is_some_and(|e| e.to_string().starts_with("the store failed, and takes no further changes"))
}

#[tokio::test]
async fn changes_are_told_in_order_with_their_position() {
    let house = House::open().await;
    assert_eq!(house.enrol(ONE, 1).await.unwrap().epoch, 1);
    assert_eq!(house.notes.told(), [Changed(ONE, vec![In(1)], 1)]);
    assert!(house.enrol(ONE, 1).await.unwrap().repeated);
    assert_eq!(house.erase(ONE, 9).await.unwrap().references, 0);
    assert_eq!(house.notes.told(), [], "nothing was changed");
    house.enrol(ONE, 2).await.unwrap();
    assert_eq!(house.erase(ONE, 1).await.unwrap().epoch, 3);
    assert_eq!(house.notes.told(), [Changed(ONE, vec![In(2)], 2), Changed(ONE, vec![Out(vec![1])], 3)]);

    // One commit: a gallery is told its part at once.
    let free = house.keep_writer().await;
    let (third, gone, other, fifth, ()) =
        tokio::join!(house.enrol(ONE, 3), house.erase(ONE, 2), house.enrol(TWO, 4), house.enrol(ONE, 5), async {
            drop(free)
        });
    let epochs = [third.unwrap().epoch, gone.unwrap().epoch, other.unwrap().epoch, fifth.unwrap().epoch];
    assert_eq!(epochs, [4, 5, 1, 6]);
    let one = Changed(ONE, vec![In(3), Out(vec![2]), In(5)], 6);
    assert_eq!(house.notes.told(), [one, Changed(TWO, vec![In(4)], 1)]);

    // A restart tells what is left, and then where the gallery stands: the last change may have been an erasure.
    let created = || [Created("one".into(), 0), Created("two".into(), 0)];
    let house = house.open_again().await;
    let left = [Changed(ONE, vec![In(3), In(5)], 6), Changed(TWO, vec![In(4)], 1)];
    assert_eq!(house.notes.told(), [created().as_slice(), &left].concat());
    house.erase(ONE, 5).await.unwrap();
    house.erase(TWO, 4).await.unwrap();
    assert_eq!(house.notes.told(), [Changed(ONE, vec![Out(vec![5])], 7), Changed(TWO, vec![Out(vec![4])], 2)]);
    let house = house.open_again().await;
    let left = [Changed(ONE, vec![In(3)], 7), Changed(TWO, vec![], 2)];
    assert_eq!(house.notes.told(), [created().as_slice(), &left].concat());
    assert_eq!(house.enrol(TWO, 6).await.unwrap().epoch, 3);
    assert_eq!(house.notes.told(), [Changed(TWO, vec![In(6)], 3)]);
    house.store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_position_is_told_before_its_changes() {
    const ALL: u16 = LOAD_ROWS as u16 + 6;
    let house = House::open().await;
    let mut enrolments = tokio::task::JoinSet::new();
    for number in 1..=ALL {
        let store = Arc::clone(&house.store);
        enrolments.spawn(async move { enrol(&store, ONE, number).await.unwrap() });
    }
    enrolments.join_all().await;
    // The first row and the last one.
    for seq in [1, i64::from(ALL)] {
        let read = move |c: &rusqlite::Connection| {
            c.query_row("SELECT subject FROM reference WHERE seq = ?", [seq], |row| row.get::<_, String>(0))
        };
        let subject = house.store.readers.read(read).await.unwrap().unwrap();
        house.store.erase(ONE, Selector::Subject(SubjectId::new(&subject).unwrap())).await.unwrap();
    }
    let house = house.open_again().await;
    let (rows, all) = (LOAD_ROWS as i64, i64::from(ALL));
    let chunk = |from: i64, to: i64, position: i64| Changed(ONE, (from..=to).map(In).collect(), position as u64);
    let told = house.notes.told();
    // Each row was one change, and there were two erasures.
    assert_eq!(told[2..], [chunk(2, rows + 1, rows + 1), chunk(rows + 2, all - 1, all + 2), Changed(TWO, vec![], 0)]);
    house.store.close().await;
}

#[tokio::test]
async fn what_a_follower_failed_to_follow_is_neither_answered_nor_lost() {
    let house = House::open().await;
    house.enrol(ONE, 1).await.unwrap();
    house.notes.told();
    house.notes.fails.store(true, Ordering::SeqCst);
    let free = house.keep_writer().await;
    let (one, two, ()) = tokio::join!(house.enrol(ONE, 2), house.enrol(TWO, 3), async { drop(free) });
    assert!(has_failed(one) && has_failed(two), "who shared the commit is answered alike");
    assert!(house.store.has_failed());
    let told = house.notes.told();
    assert_eq!(told, [Changed(ONE, vec![In(2)], 2), Changed(TWO, vec![In(3)], 1)], "each was told once");

    // Also once it could follow again.
    house.notes.fails.store(false, Ordering::SeqCst);
    assert!(has_failed(house.enrol(ONE, 4).await) && has_failed(house.erase(ONE, 1).await));
    assert!(has_failed(house.create("three").await));
    assert_eq!(house.notes.told(), []);

    let house = house.open_again().await;
    let left = [Changed(ONE, vec![In(1), In(2)], 2), Changed(TWO, vec![In(3)], 1)];
    assert_eq!(house.notes.told()[2..], left);
    assert!(!house.store.has_failed() && house.enrol(ONE, 2).await.unwrap().repeated);
    house.store.close().await;
}

#[tokio::test]
async fn nor_is_a_gallery_that_a_follower_could_not_make() {
    let house = House::open().await;
    house.notes.fails.store(true, Ordering::SeqCst);
    assert!(has_failed(house.create("three").await) && house.store.has_failed());
    assert!(has_failed(house.enrol(ONE, 1).await));
    assert_eq!(house.notes.told(), [Created("three".into(), 0)]);
    let house = house.open_again().await;
    assert_eq!(house.notes.told()[2], Created("three".into(), 0));
    house.store.close().await;

    // A store that cannot be followed from the start is not served.
    let notes = Arc::<Notes>::default();
    notes.fails.store(true, Ordering::SeqCst);
    assert!(matches!(serve(house.dir.path(), &notes), Err(OpenError::Index(_))));
}
