//! Clocks that jump, both ways, within a process and between two: what was promised for a time holds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{enrol, finish, gallery, name, root, search, subject, template};
use vultus::{
    domain::{Case, CaseId, ClientId, GalleryName, Purpose, TransactionId},
    gallery::{Clocks, Finding, Galleries, Gallery, Selector, Settings},
    pipeline::{Bearer, Now, RECEIPT_LIFETIME, ReceiptError, Receipts},
};

/// Wall clock and uptime, for the test to turn.
#[derive(Debug)]
struct Hands(Mutex<(SystemTime, Duration)>);

impl Hands {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new((UNIX_EPOCH + 56 * YEAR, Duration::from_secs(100)))))
    }

    fn pass(&self, time: Duration) {
        let mut hands = self.0.lock().unwrap();
        (hands.0, hands.1) = (hands.0 + time, hands.1 + time);
    }

    /// In steps such as the writer looks at: more at a time would be a jump.
    async fn pass_slowly(&self, mut time: Duration, gallery: &Gallery) {
        while time > Duration::ZERO {
            let step = time.min(Duration::from_secs(240));
            self.pass(step);
            purge(gallery).await;
            time -= step;
        }
    }

    fn set_uptime(&self, uptime: Duration) {
        self.0.lock().unwrap().1 = uptime;
    }

    fn set_wall(&self, wall: SystemTime) {
        self.0.lock().unwrap().0 = wall;
    }

    /// The machine starts anew.
    fn reboot(&self) {
        self.0.lock().unwrap().1 = Duration::from_secs(1);
    }
}

impl Clocks for Hands {
    fn wall(&self) -> SystemTime {
        self.0.lock().unwrap().0
    }
    fn uptime(&self) -> Duration {
        self.0.lock().unwrap().1
    }
}

/// How long cases are kept here.
const RETENTION: Duration = Duration::from_secs(6 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn open(dir: &Path, hands: &Arc<Hands>) -> Galleries {
    // Every commit deletes what has expired.
    let settings = Settings {
        purge_interval: Duration::ZERO,
        case_retention: RETENTION,
        reserve_bytes: 1 << 16,
        ..Settings::default()
    };
    Galleries::open_by(dir, &root(), settings, Arc::clone(hands) as Arc<dyn Clocks>).unwrap()
}

/// A commit, which purges.
async fn purge(gallery: &Gallery) {
    gallery.erase(Selector::Subject(subject("nobody"))).await.unwrap();
}

/// With somebody in it.
async fn case(gallery: &Arc<Gallery>) -> Case {
    enrol(gallery, "found", template(77)).await;
    let (candidates, _) = search(gallery, &template(77), &subject("a"), 1).await;
    Case {
        id: CaseId::from_random_bytes(vultus::seal::random().unwrap()),
        gallery: name("main"),
        claimed: Some(subject("a")),
        opened_at: gallery.clock().wall(),
        opened_by: TransactionId::new("t-1").unwrap(),
        opened_for: Purpose::SimActivation,
        model: gallery.model(),
        candidates,
        judgements: Vec::new(),
    }
}

#[tokio::test]
async fn a_clock_that_jumps_revives_no_receipt_and_ends_no_case() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::new());
    let mut galleries = open(dir.path(), &hands);
    let mut main = gallery(&galleries).await;
    enrol(&main, "a", template(1)).await;
    let (client, gallery_name) = (ClientId::new("shop").unwrap(), GalleryName::new("main").unwrap());
    let bearer =
        Bearer { client: &client, gallery: &gallery_name, purpose: Purpose::SimActivation, model: main.model() };
    let receipts = Receipts::new(&root());
    let issue =
        |gallery: &Gallery| receipts.issue(&template(1), &subject("a"), bearer, Now::by(gallery.clock())).unwrap().0;
    let opened = |sealed: &[u8], gallery: &Gallery| {
        let receipt = receipts.open(sealed, bearer).unwrap();
        receipt.may_be_spent(gallery.model(), Now::by(gallery.clock())).map(|()| receipt)
    };

    let (used, unused) = (issue(&main), issue(&main));
    let receipt = opened(&used, &main).unwrap();
    let found = case(&main).await;
    let finding = Finding { case: Some(found.clone()), epoch: main.epoch(), fnir: None };
    let (outcome, _) = main.finish_identification(receipt.nonce, receipt.expires, finding).await.unwrap();
    let before = main.clock().now();

    // Ahead and back, in one process and over a restart; the machine's uptime begins anew.
    let now = hands.wall();
    for wall in [now + YEAR, now, now - 50 * YEAR, UNIX_EPOCH, now + 100 * YEAR, now] {
        for restart in [false, true] {
            hands.set_wall(wall);
            if restart {
                galleries.close().await;
                hands.reboot();
                galleries = open(dir.path(), &hands);
                main = galleries.get(&name("main")).unwrap();
            }
            purge(&main).await;
            purge(&main).await;
            assert!(main.clock().now() >= before, "service time fell");
            assert_eq!(galleries.case(found.id).await.unwrap(), Some(found.clone()), "a case is gone");
            assert_eq!(main.open_cases(None, 9).await.unwrap().len(), 1);
            assert_eq!(main.outcome(receipt.nonce).await.unwrap(), Some(outcome), "a spent receipt is forgotten");
        }
    }
    // The receipt opens again, as its ten minutes are not over; it gets what was recorded.
    let again = opened(&used, &main).unwrap();
    let finding = Finding { case: None, epoch: 9, fnir: None };
    let answer = main.finish_identification(again.nonce, again.expires, finding).await.unwrap();
    assert_eq!(answer, (outcome, true));

    // Ten minutes are ten minutes, however the wall clock stands.
    hands.pass_slowly(RECEIPT_LIFETIME, &main).await;
    for wall in [now, now - YEAR, UNIX_EPOCH] {
        hands.set_wall(wall);
        assert_eq!(opened(&used, &main).unwrap_err(), ReceiptError::Expired);
        assert_eq!(opened(&unused, &main).unwrap_err(), ReceiptError::Expired);
    }
    // What has expired stays so in every later process.
    purge(&main).await;
    galleries.close().await;
    hands.reboot();
    let galleries = open(dir.path(), &hands);
    let main = galleries.get(&name("main")).unwrap();
    assert_eq!(opened(&unused, &main).unwrap_err(), ReceiptError::Expired);

    // A case lives for its retention of service time, and no longer. What has passed since it was opened is ten minutes.
    hands.pass_slowly(RETENTION - RECEIPT_LIFETIME - Duration::from_secs(60), &main).await;
    hands.set_wall(now - YEAR);
    purge(&main).await;
    assert!(galleries.case(found.id).await.unwrap().is_some());
    hands.pass_slowly(Duration::from_secs(60), &main).await;
    assert_eq!(galleries.case(found.id).await.unwrap(), None);
    purge(&main).await;
    galleries.close().await;
    let disk = std::fs::read(dir.path().join("galleries.db")).unwrap();
    assert!(!disk.windows(16).any(|part| part == found.id.as_bytes() || part == receipt.nonce));
}

#[tokio::test]
async fn an_idle_process_keeps_its_time() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::new());
    let settings = Settings { purge_interval: Duration::from_millis(20), ..Settings::default() };
    let clocks = Arc::clone(&hands) as Arc<dyn Clocks>;
    let galleries = Galleries::open_by(dir.path(), &root(), settings, clocks).unwrap();
    let main = gallery(&galleries).await;
    finish(&main, [1; 16], None).await.unwrap();
    hands.pass(Duration::from_secs(200));
    // Nobody asks for anything; then the process dies, and the machine starts anew.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let before = main.clock().now();
    galleries.close().await;
    hands.reboot();
    let galleries = open(copy.path(), &hands);
    assert_eq!(galleries.clock().now(), before, "time that was served is forgotten");
    galleries.close().await;
}

#[tokio::test]
async fn an_uptime_that_leaps_or_falls_deletes_nothing() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::new());
    let galleries = open(dir.path(), &hands);
    let main = gallery(&galleries).await;
    enrol(&main, "a", template(1)).await;
    let found = case(&main).await;
    let finding = Finding { case: Some(found.clone()), epoch: main.epoch(), fnir: None };
    let expires = main.clock().now().after(RECEIPT_LIFETIME);
    let (outcome, _) = main.finish_identification([3; 16], expires, finding).await.unwrap();
    let begun = main.clock().now();
    let mut latest = begun;
    let uptimes = [YEAR, 50 * YEAR, Duration::ZERO, 90 * YEAR, Duration::from_secs(5), YEAR];
    for uptime in uptimes {
        hands.set_uptime(uptime);
        // Before the writer has looked at the clocks, and after.
        for _ in 0..2 {
            assert!(main.clock().now() >= latest, "service time fell");
            latest = main.clock().now();
            assert_eq!(galleries.case(found.id).await.unwrap(), Some(found.clone()), "a case is gone");
            purge(&main).await;
        }
        assert_eq!(main.outcome([3; 16]).await.unwrap(), Some(outcome), "a spent receipt is forgotten");
    }
    // Each leap counts for minutes, not for years.
    assert!(latest < begun.after(Duration::from_secs(300 * uptimes.len() as u64 + 1)));
    galleries.close().await;
}
