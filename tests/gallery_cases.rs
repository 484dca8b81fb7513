//! Cases and candidates: people, not references; read beside the writer, and when the store takes no more changes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use common::{enrol, gallery, name, open, open_case, rates, root, search, subject, template, turn};
use vultus::{
    domain::{
        CalibrationError, CandidateList, Case, CaseId, ClientId, Fnir, Judgement, Purpose, ReviewerId, SearchRates,
        Template, TransactionId, Verdict,
    },
    gallery::{CaseError, Galleries, Gallery, SearchError, Selector, Settings, Tally},
};

fn case(gallery: &Gallery, claimed: &str, candidates: CandidateList) -> Case {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Case {
        id: CaseId::from_random_bytes(vultus::seal::random().unwrap()),
        gallery: gallery.name().clone(),
        claimed: Some(subject(claimed)),
        opened_at: UNIX_EPOCH + Duration::from_secs(now.as_secs()),
        opened_by: TransactionId::new("t-1").unwrap(),
        opened_for: Purpose::SimActivation,
        model: gallery.model(),
        candidates,
        judgements: Vec::new(),
    }
}

/// A case of `claimed` in which somebody else was found.
async fn with_somebody(gallery: &Arc<Gallery>, claimed: &str) -> Case {
    enrol(gallery, &format!("found-beside-{claimed}"), template(77)).await;
    let (candidates, _) = search(gallery, &template(77), &subject(claimed), 1).await;
    case(gallery, claimed, candidates)
}

/// At a distance from `template(0)` that grows with `step`.
fn near(step: u8) -> Template {
    let mut values = template(0).values().to_vec();
    values[3] += f32::from(step) / 1000.0;
    Template::new(template(0).model(), values).unwrap()
}

#[tokio::test]
async fn a_crowd_of_references_hides_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    // Before everyone else stand people with all the references that one may have.
    for person in 0..4 {
        for step in 0..16 {
            enrol(&main, &format!("crowd-{person}"), near(16 * person + step)).await;
        }
    }
    enrol(&main, "own", template(0)).await;
    let second = enrol(&main, "second", near(100)).await;
    for far in 1..400 {
        enrol(&main, &format!("far-{far}"), template(far)).await;
    }
    let people = |list: &CandidateList| list.as_slice().iter().map(|c| c.subject.to_string()).collect::<Vec<_>>();
    let (list, _) = search(&main, &template(0), &subject("own"), 5).await;
    assert_eq!(people(&list), ["crowd-0", "crowd-1", "crowd-2", "crowd-3", "second"]);
    assert_eq!((list.as_slice()[4].reference, list.as_slice()[4].rank), (second, 5));
    assert_eq!(list.as_slice()[0].others.len(), 15);
    // The threshold parts them as well: a distance of 0.05 is a score of 1 - 0.00125.
    let least = 1.0 - 0.05_f32.powi(2) / 2.0;
    let found = main.search(&template(0), &subject("own"), 5, &rates(least), &turn()).await.unwrap();
    assert_eq!(people(&found.candidates), ["crowd-0", "crowd-1", "crowd-2", "crowd-3"]);
    assert_eq!((found.size, found.epoch), (4 * 16 + 1 + 399, 465), "the own reference is not compared with");
    assert_eq!(found.candidates.as_slice()[3].others.len(), 2);

    // The best reference of a candidate is erased: the next one stands in, and the person stays.
    let opened = case(&main, "own", list.clone());
    open_case(&main, opened.clone()).await.unwrap();
    main.erase(Selector::Reference(list.as_slice()[0].reference)).await.unwrap();
    let shown = galleries.case(opened.id).await.unwrap().unwrap().candidates;
    assert_eq!(shown.as_slice().iter().filter(|c| c.subject == subject("crowd-0")).count(), 1);
    assert_eq!(shown.len(), 5);
    galleries.close().await;
}

#[tokio::test]
async fn a_search_that_would_miss_too_many_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    enrol(&main, "a", template(1)).await;
    // The table says that one in eight is missed.
    let strict = SearchRates { max_fnir: Fnir::new(0.1).unwrap(), ..rates(0.5) };
    let refused = main.search(&template(1), &subject("b"), 5, &strict, &turn()).await;
    let expected = CalibrationError::Misses { expected: Some(0.125), allowed: 0.1 };
    assert!(matches!(refused, Err(SearchError::Rates(error)) if error == expected));
    let allowed = SearchRates { max_fnir: Fnir::new(0.125).unwrap(), ..strict };
    assert_eq!(main.search(&template(1), &subject("b"), 5, &allowed, &turn()).await.unwrap().point.fnmr, Some(0.125));
    galleries.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_threshold_is_of_the_state_that_is_searched() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let enrolling = {
        let main = Arc::clone(&main);
        tokio::spawn(async move {
            for seed in 0..400 {
                let who = if seed % 25 == 0 { "own".to_owned() } else { format!("s{seed}") };
                enrol(&main, &who, template(seed)).await;
            }
        })
    };
    let mut sizes = std::collections::BTreeSet::new();
    while !enrolling.is_finished() {
        let found = main.search(&template(7), &subject("own"), 3, &rates(-1e6), &turn()).await.unwrap();
        // Each enrolment is a reference and an epoch more; each 25th is of the subject that is not searched for.
        assert_eq!(found.size as u64, found.epoch - found.epoch.div_ceil(25));
        sizes.insert(found.size);
    }
    enrolling.await.unwrap();
    assert!(sizes.len() > 1, "the gallery did not grow meanwhile");
    galleries.close().await;
}

#[tokio::test]
async fn cases_are_listed_oldest_first_and_judged() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let other = galleries.get_or_create(&name("other"), main.model(), 16).await.unwrap();
    enrol(&main, "a", template(1)).await;
    enrol(&main, "b", template(1)).await;
    let (candidates, _) = search(&main, &template(1), &subject("a"), 9).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let case = case(&main, "a", candidates.clone());
        ids.push(case.id);
        open_case(&main, case).await.unwrap();
    }
    let elsewhere = case(&other, "a", CandidateList::default());
    let of_another = elsewhere.id;
    open_case(&other, elsewhere).await.unwrap();
    let list = async |after: Option<CaseId>, most| {
        main.open_cases(after, most).await.unwrap().iter().map(|case| case.id).collect::<Vec<_>>()
    };
    let first = list(None, 2).await;
    let second = list(first.last().copied(), 2).await;
    let third = list(second.last().copied(), 2).await;
    assert_eq!([first, second, third].concat(), ids);
    assert_eq!(main.open_cases(None, 1).await.unwrap()[0].candidates, 1);
    // A page goes on behind a case of this gallery, and behind nothing else.
    for nowhere in [CaseId::from_random_bytes(vultus::seal::random().unwrap()), of_another] {
        assert!(matches!(main.open_cases(Some(nowhere), 2).await, Err(CaseError::NoSuchPage)));
    }

    let judged = |verdict, reviewer: &str| Judgement {
        verdict,
        client: ClientId::new("back-office").unwrap(),
        reviewer: ReviewerId::new(reviewer).unwrap(),
        at: UNIX_EPOCH + Duration::from_secs(7),
    };
    assert!(main.judge(ids[1], judged(Verdict::OtherPerson, "r-7")).await.unwrap());
    assert!(main.judge(ids[3], judged(Verdict::Unclear, "r-8")).await.unwrap());
    assert!(!other.judge(ids[0], judged(Verdict::Unclear, "r-8")).await.unwrap(), "a case of another gallery");
    assert!(
        !main
            .judge(CaseId::from_random_bytes(vultus::seal::random().unwrap()), judged(Verdict::Unclear, "r-8"))
            .await
            .unwrap()
    );
    assert_eq!(list(None, 9).await, [ids[0], ids[2], ids[4]]);
    let shown = galleries.case(ids[1]).await.unwrap().unwrap();
    assert_eq!(shown.judgements, [judged(Verdict::OtherPerson, "r-7")]);
    // Looked at again: the later verdict counts, once.
    assert!(main.judge(ids[3], judged(Verdict::SamePerson, "r-9")).await.unwrap());
    let both = [judged(Verdict::Unclear, "r-8"), judged(Verdict::SamePerson, "r-9")];
    assert_eq!(galleries.case(ids[3]).await.unwrap().unwrap().judgements, both, "no verdict is lost");
    let tally = Tally { searches: 6, cases: 6, same_person: 1, other_person: 1, unclear: 0 };
    assert_eq!(galleries.tally().await.unwrap(), tally);
    assert_eq!(tally.false_positive_rate(), Some(0.5));
    galleries.close().await;
    let galleries = open(dir.path());
    assert_eq!(galleries.tally().await.unwrap(), tally);
    assert_eq!(galleries.case(ids[1]).await.unwrap().unwrap(), shown);
    galleries.close().await;
}

#[tokio::test]
async fn the_last_verdict_stands_and_the_last_ones_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let opened = with_somebody(&main, "a").await;
    open_case(&main, opened.clone()).await.unwrap();
    let judged = |n: u64| Judgement {
        verdict: if n == 39 { Verdict::SamePerson } else { Verdict::Unclear },
        client: ClientId::new("back-office").unwrap(),
        reviewer: ReviewerId::new("r-7").unwrap(),
        at: UNIX_EPOCH + Duration::from_secs(n),
    };
    for n in 0..40 {
        assert!(main.judge(opened.id, judged(n)).await.unwrap());
    }
    let shown = galleries.case(opened.id).await.unwrap().unwrap();
    assert_eq!(shown.judgements, (8..40).map(judged).collect::<Vec<_>>(), "of one case 32 are kept");
    let tally = galleries.tally().await.unwrap();
    assert_eq!((tally.unclear, tally.same_person), (0, 1), "a case counts once");
    galleries.close().await;
}

#[tokio::test]
async fn a_case_with_nobody_left_is_no_work() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let opened = with_somebody(&main, "a").await;
    open_case(&main, opened.clone()).await.unwrap();
    assert_eq!(main.open_cases(None, 9).await.unwrap().len(), 1);
    let candidate = opened.candidates.as_slice()[0].subject.clone();
    main.erase(Selector::Subject(candidate)).await.unwrap();
    assert_eq!(main.open_cases(None, 9).await.unwrap(), []);
    let judged = Judgement {
        verdict: Verdict::OtherPerson,
        client: ClientId::new("back-office").unwrap(),
        reviewer: ReviewerId::new("r-7").unwrap(),
        at: UNIX_EPOCH,
    };
    assert!(matches!(main.judge(opened.id, judged).await, Err(CaseError::Empty)));
    assert_eq!(galleries.tally().await.unwrap().other_person, 0, "it counts in no rate");
    assert!(galleries.case(opened.id).await.unwrap().unwrap().candidates.is_empty());
    galleries.close().await;
}

#[tokio::test]
async fn cases_are_read_when_the_store_takes_no_more_changes() {
    let dir = tempfile::tempdir().unwrap();
    // A store that may not grow takes nothing new; nor does one whose writer waits for a lock that somebody holds.
    let settings = Settings { reserve_bytes: 1 << 16, ..Settings::default() };
    let galleries = Galleries::open(dir.path(), &root(), settings).unwrap();
    let main = gallery(&galleries).await;
    enrol(&main, "a", template(1)).await;
    let opened = with_somebody(&main, "a").await;
    open_case(&main, opened.clone()).await.unwrap();
    let holder = rusqlite::Connection::open(dir.path().join("galleries.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = {
        let main = Arc::clone(&main);
        tokio::spawn(async move { main.erase(Selector::Subject(subject("nobody"))).await })
    };
    let start = Instant::now();
    assert_eq!(galleries.case(opened.id).await.unwrap(), Some(opened.clone()));
    assert_eq!(main.open_cases(None, 9).await.unwrap().len(), 1);
    assert_eq!(main.describe().references, 2);
    assert!(start.elapsed() < Duration::from_secs(5));
    let refused = waiting.await.unwrap().unwrap_err().to_string();
    assert!(refused.contains("another program") && !galleries.has_failed(), "{refused}");
    holder.execute_batch("ROLLBACK").unwrap();
    enrol(&main, "b", template(2)).await;
    galleries.close().await;
}

#[tokio::test]
async fn a_reader_that_keeps_the_log_fails_no_erasure() {
    let dir = tempfile::tempdir().unwrap();
    let mut galleries = open(dir.path());
    let main = gallery(&galleries).await;
    enrol(&main, "who-leaves", template(1)).await;
    enrol(&main, "who-stays", template(2)).await;
    // Another program reads, as an operator's shell would, and keeps the log.
    let reader = rusqlite::Connection::open(dir.path().join("galleries.db")).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    reader.query_row("SELECT count(*) FROM reference", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(main.erase(Selector::Subject(subject("who-leaves"))).await.unwrap().references, 1);
    assert!(!galleries.has_failed() && main.references_of(&subject("who-leaves")).unwrap().is_empty());
    enrol(&main, "who-comes", template(3)).await;
    // Nor does it slow others down: who erases waits for it once, and changes go on.
    let start = Instant::now();
    for number in 0..40 {
        enrol(&main, &format!("many-{number}"), template(number)).await;
        main.erase(Selector::Subject(subject(&format!("many-{number}")))).await.unwrap();
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "40 erasures beside a reader took {took:?}");
    let holds = || {
        let files = std::fs::read_dir(dir.path()).unwrap();
        let bytes = files.map(|file| std::fs::read(file.unwrap().path()).unwrap_or_default()).collect::<Vec<_>>();
        bytes.iter().any(|file| file.windows(10).any(|part| part == b"who-leaves"))
    };
    assert!(holds(), "the log was kept");
    // Nobody asks for anything; the reader ends, and within seconds the log is emptied. Also after a restart in between.
    for restarts in [false, true] {
        if restarts {
            reader.execute_batch("BEGIN").unwrap();
            reader.query_row("SELECT count(*) FROM reference", [], |row| row.get::<_, i64>(0)).unwrap();
            let main = galleries.get(&name("main")).unwrap();
            enrol(&main, "who-leaves", template(1)).await;
            main.erase(Selector::Subject(subject("who-leaves"))).await.unwrap();
            galleries.close().await;
            galleries = open(dir.path());
            assert!(holds(), "the log was kept");
        }
        reader.execute_batch("ROLLBACK").unwrap();
        let start = Instant::now();
        while holds() {
            assert!(start.elapsed() < Duration::from_secs(10), "the log is never emptied");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    galleries.close().await;
}
