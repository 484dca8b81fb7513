//! kill -9 at any moment, over a disk that forgets what was not synced, and disks that fail: what was acknowledged is there, what was
//! erased is not, nothing is half.
//!
//! The child is this program again, with `CHILD` in its environment: it enrols, finds, judges and erases from many tasks, over the disk of
//! `common/disk`, and prints a line per acknowledgement. `VULTUS_KILLS` sets the number of kills (50), `VULTUS_SEED` the seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;
#[path = "common/disk.rs"]
mod disk;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use common::{digest, finish, name, open, root, search, subject, template};
use disk::Faults;
use vultus::{
    domain::{
        Admitted, CandidateList, Case, CaseId, ClientId, Judgement, Purpose, ReferenceId, ReviewerId, Score,
        TransactionId, Verdict,
    },
    gallery::{EnrolError, Galleries, Gallery, NewReference, OpenError, Selector, Settings, StoreError},
};

const CHILD: &str = "VULTUS_CRASH_CHILD";
const CHILD_FIRST: &str = "VULTUS_CRASH_FIRST";
const CHILD_DISK: &str = "VULTUS_CRASH_DISK";
/// Tasks of the child.
const CALLERS: u64 = 32;
/// Numbers that one life of the child may use.
const NUMBERS: u64 = 1_000_000;

/// A reference's number gives its id, subject and template.
fn reference(number: u64) -> NewReference {
    let mut id = [0xab; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let id = Some(ReferenceId::from_bytes(id));
    NewReference {
        id,
        subject: subject(&format!("s{number}")),
        template: template(number),
        extraction: Default::default(),
    }
}

/// Of the receipt under which reference `number` was found.
fn nonce(number: u64) -> [u8; 16] {
    *reference(number).id.unwrap().as_bytes()
}

/// A case that names the reference.
fn finding(number: u64) -> Case {
    let NewReference { id, subject, .. } = reference(number);
    let found = Admitted { subject: subject.clone(), reference: id.unwrap(), score: Score::new(0.9).unwrap() };
    Case {
        id: CaseId::from_bytes(nonce(number)),
        gallery: name("main"),
        claimed: Some(subject),
        opened_at: UNIX_EPOCH,
        opened_by: TransactionId::new("t-1").unwrap(),
        opened_for: Purpose::SimActivation,
        model: digest(1),
        candidates: CandidateList::new([found], 1),
        judgements: Vec::new(),
    }
}

fn judgement() -> Judgement {
    let (client, reviewer) = (ClientId::new("office").unwrap(), ReviewerId::new("r-1").unwrap());
    Judgement { verdict: Verdict::SamePerson, client, reviewer, at: UNIX_EPOCH }
}

fn say(line: &str) {
    // One write call per line: a killed child leaves at most one partial line, the last.
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

/// Not a test of its own: what the parent kills.
#[test]
fn child() {
    let Ok(dir) = env::var(CHILD) else { return };
    let first: u64 = env::var(CHILD_FIRST).unwrap().parse().unwrap();
    disk::install(Faults::parse(&env::var(CHILD_DISK).unwrap()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let galleries = open(Path::new(&dir));
        let gallery = galleries.get_or_create(&name("main"), digest(1), 16).await.unwrap();
        say("open");
        let callers: Vec<_> =
            (0..CALLERS).map(|caller| tokio::spawn(enrol_and_erase(Arc::clone(&gallery), first, caller))).collect();
        for caller in callers {
            let _ = caller.await;
        }
        // Only a failing disk leads here.
        let after = gallery.enrol(reference(first + NUMBERS - 1)).await;
        say(if matches!(after, Err(EnrolError::Store(StoreError::Failed(_)))) { "refuses" } else { "accepts" });
        // Reading goes on beside a writer that has failed.
        let listed = gallery.open_cases(None, 9).await.is_ok() && galleries.tally().await.is_ok();
        let known = galleries
            .case(CaseId::from_random_bytes(vultus::seal::random().unwrap()))
            .await
            .is_ok_and(|case| case.is_none())
            && gallery.outcome([0; 16]).await.is_ok_and(|outcome| outcome.is_none());
        say(if listed && known && gallery.describe().references > 0 { "reads" } else { "is blind" });
        galleries.close().await;
    });
}

async fn enrol_and_erase(gallery: Arc<Gallery>, first: u64, caller: u64) {
    for number in (first + caller..first + NUMBERS).step_by(CALLERS as usize) {
        match gallery.enrol(reference(number)).await {
            Ok(_) => say(&format!("+ {number}")),
            Err(e) => return say(&format!("failed {e}")),
        }
        if number % 3 == 0 {
            match finish(&gallery, nonce(number), Some(finding(number))).await {
                Ok(_) => say(&format!("f {number}")),
                Err(e) => return say(&format!("failed {e}")),
            }
            match gallery.judge(finding(number).id, judgement()).await {
                Ok(known) => assert!(known),
                Err(e) => return say(&format!("failed {e}")),
            }
            say(&format!("v {number}"));
        }
        if number % 5 == 0 {
            // From here on it may be gone.
            say(&format!("? {number}"));
            let selector = if number % 2 == 0 {
                Selector::Subject(subject(&format!("s{number}")))
            } else {
                Selector::Reference(reference(number).id.unwrap())
            };
            match gallery.erase(selector).await {
                Ok(erased) => assert_eq!(erased.references, 1),
                Err(e) => return say(&format!("failed {e}")),
            }
            say(&format!("- {number}"));
        }
    }
}

/// What the child was told.
#[derive(Default)]
struct Told {
    enrolled: BTreeSet<u64>,
    erasing: BTreeSet<u64>,
    erased: BTreeSet<u64>,
    finished: BTreeSet<u64>,
    judged: BTreeSet<u64>,
    failed: Vec<String>,
    refuses: bool,
    reads: bool,
}

impl Told {
    fn hear(&mut self, line: &str) {
        let number = |text: &str| text.parse().unwrap();
        // The test harness may have put its own words before the first line.
        match line.split_once(' ') {
            Some(("+", n)) => drop(self.enrolled.insert(number(n))),
            Some(("?", n)) => drop(self.erasing.insert(number(n))),
            Some(("-", n)) => drop(self.erased.insert(number(n))),
            Some(("f", n)) => drop(self.finished.insert(number(n))),
            Some(("v", n)) => drop(self.judged.insert(number(n))),
            Some(("failed", why)) => self.failed.push(why.into()),
            _ => {
                self.refuses |= line == "refuses";
                self.reads |= line == "reads";
            }
        }
    }
}

fn command(dir: &Path, first: u64, faults: Faults) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, dir).env(CHILD_FIRST, first.to_string()).env(CHILD_DISK, faults.to_text());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Runs the child, kills it `after` it has opened the gallery, and returns every whole line that it wrote.
fn live_and_die(dir: &Path, first: u64, faults: Faults, after: Duration, told: &mut Told) {
    let mut child = command(dir, first, faults).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut killed_at = None;
    let (sender, opened) = std::sync::mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        let mut line = String::new();
        while out.read_line(&mut line).unwrap_or(0) > 0 && line.ends_with('\n') {
            if line.trim_end().ends_with("open") {
                let _ = sender.send(());
            }
            lines.push(std::mem::take(&mut line));
        }
        lines
    });
    if opened.recv_timeout(Duration::from_secs(20)).is_ok() {
        std::thread::sleep(after);
        killed_at = Some(Instant::now());
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    let lines = reader.join().unwrap();
    assert!(killed_at.is_some(), "the child did not open the gallery: {lines:?}");
    lines.iter().for_each(|line| told.hear(line.trim_end()));
}

/// What the gallery lacks of what the child was told is there.
async fn lost(dir: &Path, told: &Told) -> Result<usize, OpenError> {
    let galleries = Galleries::open(dir, &root(), Settings::default())?;
    let here = |number: &&u64| match galleries.get(&name("main")) {
        Some(gallery) => !gallery.references_of(&reference(**number).subject).unwrap().is_empty(),
        None => false,
    };
    let lost = told.enrolled.difference(&told.erasing).filter(|number| !here(number)).count();
    let unfinished = lost_findings(&galleries, told).await;
    galleries.close().await;
    Ok(lost + unfinished)
}

/// Spent receipts and verdicts that the child was told of, and that are not there, or not whole.
async fn lost_findings(galleries: &Galleries, told: &Told) -> usize {
    let Some(gallery) = galleries.get(&name("main")) else { return told.finished.len() };
    let mut lost = 0;
    for &number in &told.finished {
        let spent = gallery.outcome(nonce(number)).await.unwrap().and_then(|outcome| outcome.case);
        let case = galleries.case(CaseId::from_bytes(nonce(number))).await.unwrap();
        let is_whole = |case: &Case| {
            let judged = case.judgements.len();
            // A finding that names a reference which is gone came back from the dead.
            let erased = told.erased.contains(&number);
            let named = case.candidates.len();
            (judged == 1 || judged == 0 && !told.judged.contains(&number))
                && (named == 1 && !erased || named == 0 && told.erasing.contains(&number))
        };
        let whole = spent == case.as_ref().map(|case| case.id) && case.as_ref().is_some_and(is_whole);
        lost += usize::from(!whole);
    }
    lost
}

/// Opens the gallery and compares it with what the child was told.
async fn check(dir: &Path, told: &Told, searched: usize) -> usize {
    let galleries: Galleries = open(dir);
    let gallery = galleries.get(&name("main")).unwrap();
    let found = gallery.describe();
    assert_eq!(found.references, found.indexed, "store and index");
    let mut expected = BTreeMap::new();
    for &number in &told.enrolled {
        if !told.erased.contains(&number) {
            expected.insert(number, !told.erasing.contains(&number));
        }
    }
    let nobody = subject("nobody");
    let step = expected.len() / searched.max(1) + 1;
    for (at, (&number, &certain)) in expected.iter().enumerate() {
        let new = reference(number);
        let stored = gallery.references_of(&new.subject).unwrap();
        assert!(stored.len() == usize::from(certain) || stored.len() <= 1 && !certain, "reference {number} is lost");
        if let Some(stored) = stored.first() {
            assert_eq!((Some(stored.id), &stored.template), (new.id, &new.template));
            if at % step == 0 {
                let (list, _) = search(&gallery, &new.template, &nobody, 1).await;
                assert_eq!(Some(list.as_slice()[0].reference), new.id, "reference {number} is not found");
            }
        }
    }
    for number in &told.erased {
        let new = reference(*number);
        assert!(gallery.references_of(&new.subject).unwrap().is_empty(), "reference {number} came back");
    }
    assert_eq!(lost_findings(&galleries, told).await, 0, "of {} findings", told.finished.len());
    let tally = galleries.tally().await.unwrap();
    assert!(tally.cases >= told.finished.len() as u64 && tally.same_person >= told.judged.len() as u64, "{tally:?}");
    galleries.close().await;
    found.references
}

#[tokio::test]
async fn a_kill_loses_nothing_acknowledged_and_brings_nothing_erased_back() {
    if env::var(CHILD).is_ok() {
        return;
    }
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("VULTUS_KILLS").unwrap_or(50);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("VULTUS_SEED").unwrap_or(clock);
    println!("{kills} kills, VULTUS_SEED={seed}");
    let mut state = seed | 1;
    // A gallery lives through ten kills, so that recovery starts from recovered states too.
    let mut home = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    for kill in 0..kills {
        if kill % 10 == 0 {
            (home, told) = (tempfile::tempdir().unwrap(), Told::default());
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = Duration::from_micros((state >> 33) % 60_000);
        let faults = Faults { seed: state, ..Faults::default() };
        live_and_die(home.path(), kill * NUMBERS, faults, after, &mut told);
        assert_eq!(told.failed, Vec::<String>::new());
        let references = check(home.path(), &told, 50).await;
        if kill % 10 == 9 {
            let (erased, finished) = (told.erased.len(), told.finished.len());
            println!("kill {kill}: {references} references, {erased} erased, {finished} findings");
        }
    }
    assert!(!told.finished.is_empty() || kills % 10 != 0, "the child was never told anything");
}

/// The test above can fail: over a disk that says it has synced, and has not, a kill loses what was acknowledged.
#[tokio::test]
async fn over_a_disk_that_lies_a_kill_is_seen_to_lose() {
    if env::var(CHILD).is_ok() {
        return;
    }
    let (mut told, mut seen) = (0, 0);
    for kill in 0..5 {
        let (home, mut heard) = (tempfile::tempdir().unwrap(), Told::default());
        open(home.path()).close().await; // made over an honest disk
        let faults = Faults { seed: kill, lies: true, ..Faults::default() };
        live_and_die(home.path(), 0, faults, Duration::from_millis(40), &mut heard);
        told += heard.enrolled.len();
        // A file that is damaged by it is seen as well.
        seen += lost(home.path(), &heard).await.unwrap_or(1);
    }
    assert!(told > 0 && seen > 0, "{told} were acknowledged, and nothing was lost");
}

/// Whatever the child was told by a disk that failed, it was told before.
async fn failing(faults: Faults) {
    let home = tempfile::tempdir().unwrap();
    open(home.path()).close().await;
    let out = command(home.path(), 0, faults).output().unwrap();
    let mut told = Told::default();
    String::from_utf8_lossy(&out.stdout).lines().for_each(|line| told.hear(line));
    assert_eq!(told.failed.len(), CALLERS as usize, "{faults:?}");
    assert!(told.failed.iter().all(|why| why.contains("takes no further changes")), "{:?}", told.failed.first());
    assert!(told.refuses, "{faults:?}: the writer went on");
    // With all that it had enrolled erased there is nothing to read.
    let stays = told.enrolled.difference(&told.erasing).count();
    assert!(told.reads || stays == 0, "{faults:?}: nothing can be read of {stays}");
    println!("{faults:?}: {} were acknowledged before", told.enrolled.len());
    assert_eq!(lost(home.path(), &told).await.unwrap(), 0, "{faults:?}");
}

#[tokio::test]
async fn a_failed_sync_acknowledges_nothing_and_stops_the_writer() {
    if env::var(CHILD).is_ok() {
        return;
    }
    for number in [3, 4, 5, 8, 13, 30, 77] {
        failing(Faults { seed: number, failing_sync: Some(number), ..Faults::default() }).await;
    }
}

#[tokio::test]
async fn a_failed_write_acknowledges_nothing_and_stops_the_writer() {
    if env::var(CHILD).is_ok() {
        return;
    }
    for number in [20, 21, 40, 100, 333, 1000] {
        failing(Faults { seed: number, failing_write: Some(number), ..Faults::default() }).await;
    }
}
