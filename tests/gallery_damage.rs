//! Directories that must not be served: locked, of another key, tampered with, damaged, somebody else's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use common::{digest, enrol, gallery, name, open, open_case, root, search, subject, template};
use vultus::{
    access::{Access, Right},
    config::Config,
    domain::{
        CandidateList, Case, CaseId, ClientId, ConsentReference, Judgement, Purpose, RequestContext, ReviewerId, Site,
        TransactionId, Verdict,
    },
    gallery::{CaseError, Galleries, OpenError, Selector, Settings, bench_enrol},
    seal::{RootKey, random},
};

#[tokio::test]
async fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let second = Galleries::open(dir.path(), &root(), Settings::default()).unwrap_err();
    assert!(matches!(second, OpenError::Locked { .. }), "{second}");
    galleries.close().await;
    open(dir.path()).close().await;
}

#[tokio::test]
async fn another_root_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().await;
    let wrong = Galleries::open(dir.path(), &RootKey::from_bytes([9; 32]), Settings::default()).unwrap_err();
    assert!(matches!(wrong, OpenError::WrongKey), "{wrong}");
}

/// Changes the closed store behind its back.
fn tamper(dir: &Path, sql: &str) {
    rusqlite::Connection::open(dir.join("galleries.db")).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_tampered_reference_stops_the_start_and_is_named() {
    let edits = [
        "UPDATE reference SET template = zeroblob(length(template)) WHERE subject = 'a'",
        "UPDATE reference SET template = substr(template, 1, 20) WHERE subject = 'a'",
        "UPDATE reference SET template = (SELECT template FROM reference WHERE subject = 'b') WHERE subject = 'a'",
        "UPDATE reference SET subject = 'c' WHERE subject = 'a'",
        "UPDATE reference SET subject = 'not a subject' WHERE subject = 'a'",
        "UPDATE reference SET gallery = (SELECT key FROM gallery WHERE name = 'other') WHERE subject = 'a'",
        "PRAGMA foreign_keys = OFF; UPDATE reference SET gallery = 77 WHERE subject = 'a'",
        "UPDATE gallery SET model = zeroblob(32) WHERE name = 'main'",
        "UPDATE reference SET position = 3 WHERE subject = 'a'",
    ];
    for edit in edits {
        let dir = tempfile::tempdir().unwrap();
        let galleries = open(dir.path());
        let main = gallery(&galleries).await;
        galleries.get_or_create(&name("other"), digest(1), 16).await.unwrap();
        let a = enrol(&main, "a", template(1)).await;
        enrol(&main, "b", template(2)).await;
        galleries.close().await;
        tamper(dir.path(), edit);
        let refused = Galleries::open(dir.path(), &root(), Settings::default()).unwrap_err();
        assert!(matches!(refused, OpenError::Reference { id } if id == a), "{edit}: {refused}");
    }
}

#[tokio::test]
async fn a_damaged_or_foreign_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("galleries.db");
    let refused = || Galleries::open(dir.path(), &root(), Settings::default()).unwrap_err();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    bench_enrol(&main, 300, 30).await.unwrap();
    galleries.close().await;
    let good = fs::read(&path).unwrap();

    for length in [1, 15, 99, 100, 5000, good.len() / 2, good.len() - 8192, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        refused();
    }
    fs::write(&path, b"").unwrap();
    assert!(matches!(refused(), OpenError::Damaged { .. }));
    fs::write(&path, b"a text file, and long enough to be read as something else".repeat(200)).unwrap();
    assert!(matches!(refused(), OpenError::Foreign { .. }));
    fs::remove_file(&path).unwrap();
    tamper(dir.path(), "CREATE TABLE recipes (name TEXT)");
    assert!(matches!(refused(), OpenError::Foreign { .. }));
    fs::write(&path, &good).unwrap();
    tamper(dir.path(), "PRAGMA user_version = 7");
    assert!(matches!(refused(), OpenError::Version { found: 7, known: 6 }));
    fs::remove_file(&path).unwrap();
    fs::write(dir.path().join("galleries.db-wal"), b"left behind").unwrap();
    assert!(matches!(refused(), OpenError::Damaged { .. }));
    fs::remove_file(dir.path().join("galleries.db-wal")).unwrap();
    // Any page overwritten: an error, or, where it was unused, nothing lost.
    for page in 1..good.len() / 8192 {
        let mut bad = good.clone();
        bad[page * 8192..(page + 1) * 8192].fill(0x5a);
        fs::write(&path, bad).unwrap();
        refused();
    }
    fs::write(&path, &good).unwrap();
    let galleries = open(dir.path());
    assert_eq!(galleries.get(&name("main")).unwrap().describe().references, 300);
    galleries.close().await;
}

/// With somebody in it, who is enrolled for it.
async fn case_with_somebody(gallery: &std::sync::Arc<vultus::gallery::Gallery>) -> Case {
    enrol(gallery, "found", template(77)).await;
    let (candidates, _) = search(gallery, &template(77), &subject("a"), 1).await;
    Case { candidates, ..case() }
}

fn case() -> Case {
    Case {
        id: CaseId::from_random_bytes(random().unwrap()),
        gallery: name("main"),
        claimed: Some(subject("a")),
        opened_at: SystemTime::now(),
        opened_by: TransactionId::new("t-1").unwrap(),
        opened_for: Purpose::SimActivation,
        model: digest(1),
        candidates: CandidateList::default(),
        judgements: Vec::new(),
    }
}

#[tokio::test]
async fn a_damaged_case_concerns_only_who_asks_for_it() {
    for edit in [
        "review_case SET model = zeroblob(3)",
        "review_case SET opened_by = 'not an id'",
        "review_case SET opened_for = 'x'",
        "review_case SET claimed = 'not a subject'",
        "judgement SET verdict = 'x'",
        "judgement SET reviewer = 'Jane Doe'",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let galleries = open(dir.path());
        let main = gallery(&galleries).await;
        enrol(&main, "a", template(1)).await;
        let case = case_with_somebody(&main).await;
        open_case(&main, case.clone()).await.unwrap();
        let judged = Judgement {
            verdict: Verdict::Unclear,
            client: ClientId::new("office").unwrap(),
            reviewer: ReviewerId::new("r-1").unwrap(),
            at: SystemTime::now(),
        };
        assert!(main.judge(case.id, judged).await.unwrap());
        galleries.close().await;
        tamper(dir.path(), &format!("UPDATE {edit}"));
        let galleries = open(dir.path());
        let main = galleries.get(&name("main")).unwrap();
        let refused = galleries.case(case.id).await.unwrap_err().to_string();
        assert!(refused.contains("is damaged"), "{edit}: {refused}");
        enrol(&main, "b", template(2)).await;
        assert!(!galleries.has_failed());
        galleries.close().await;
    }
}

#[tokio::test]
async fn a_store_that_is_lost_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!Galleries::were_made_in(dir.path()));
    fs::write(dir.path().join("galleries.lock"), "").unwrap();
    assert!(!Galleries::were_made_in(dir.path()), "whoever locked it made no store");
    open(dir.path()).close().await;
    assert!(Galleries::were_made_in(dir.path()));
    fs::remove_file(dir.path().join("galleries.db")).unwrap();
    assert!(Galleries::were_made_in(dir.path()));
    for _ in 0..2 {
        let refused = Galleries::open(dir.path(), &root(), Settings::default()).unwrap_err();
        assert!(matches!(&refused, OpenError::Damaged { what } if what.contains("galleries.db")), "{refused}");
    }
}

/// Takes out what version 6 added.
const WITHOUT_VERSION_6: &str = "ALTER TABLE reference DROP COLUMN extraction;";

/// Makes the closed store one of version 2, or 1, with the rows that it has.
fn as_of_version(dir: &Path, version: u8) {
    let (new, old) = (dir.join("galleries.db"), dir.join("old.db"));
    let connection = rusqlite::Connection::open(&old).unwrap();
    let copied = format!(
        "PRAGMA page_size = 8192; PRAGMA application_id = 0x56554c54;
         {}
         ATTACH '{}' AS new;
         INSERT INTO seal SELECT * FROM new.seal;
         INSERT INTO gallery SELECT * FROM new.gallery;
         INSERT INTO reference SELECT seq, id, gallery, subject, template, enrolled_at FROM new.reference;
         UPDATE sqlite_sequence SET seq = (SELECT seq FROM new.sqlite_sequence WHERE name = 'reference');
         INSERT INTO review_case SELECT key, id, gallery, claimed, opened_at, opened_by, opened_for, model FROM new.review_case;
         INSERT INTO candidate SELECT * FROM new.candidate;
         INSERT INTO spent_receipt VALUES (x'00112233445566778899aabbccddeeff', 1);
         PRAGMA user_version = {version};",
        include_str!("data/store_v2.sql"),
        new.display()
    );
    connection.execute_batch(&copied).unwrap();
    if version == 1 {
        connection.execute_batch("DROP INDEX review_case_of_claimed").unwrap();
    }
    connection.close().unwrap();
    fs::rename(old, new).unwrap();
}

#[tokio::test]
async fn a_store_of_an_older_version_serves_as_before() {
    for version in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let galleries = open(dir.path());
        let main = gallery(&galleries).await;
        enrol(&main, "a", template(1)).await;
        let twin = enrol(&main, "twin", template(1)).await;
        let last = enrol(&main, "b", template(2)).await;
        let (candidates, _) = search(&main, &template(1), &subject("a"), 9).await;
        let (kept, gone) = (Case { candidates, ..case() }, case());
        for case in [&kept, &gone] {
            open_case(&main, case.clone()).await.unwrap();
        }
        // Its number must not come again.
        main.erase(Selector::Reference(last)).await.unwrap();
        let before = main.describe();
        galleries.close().await;
        as_of_version(dir.path(), version);
        if version == 1 {
            let id: String = gone.id.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
            tamper(dir.path(), &format!("UPDATE review_case SET claimed = 'erased-before' WHERE id = x'{id}'"));
        }
        for _ in 0..2 {
            let galleries = open(dir.path());
            let main = galleries.get(&name("main")).unwrap();
            assert_eq!(main.describe(), before);
            let claimed = async |case: &Case| galleries.case(case.id).await.unwrap().unwrap().claimed;
            let forgotten = if version == 1 { None } else { gone.claimed.clone() };
            assert_eq!((claimed(&kept).await, claimed(&gone).await), (kept.claimed.clone(), forgotten));
            let found = galleries.case(kept.id).await.unwrap().unwrap().candidates;
            assert_eq!(found.as_slice()[0].reference, twin);
            assert_eq!(main.open_cases(None, 9).await.unwrap().len(), 1, "in the other is nobody");
            galleries.close().await;
        }
        let galleries = open(dir.path());
        let main = galleries.get(&name("main")).unwrap();
        enrol(&main, "c", template(3)).await;
        main.erase(Selector::Subject(subject("twin"))).await.unwrap();
        assert!(galleries.case(kept.id).await.unwrap().unwrap().candidates.is_empty());
        galleries.close().await;
        let connection = rusqlite::Connection::open(dir.path().join("galleries.db")).unwrap();
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("SELECT max(seq) FROM reference"), 4, "a number came again");
        assert_eq!(number("SELECT count(*) FROM pragma_foreign_key_check"), 0);
    }
}

#[tokio::test]
async fn a_store_of_version_3_keeps_its_verdicts() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let (judged, open_one) = (case_with_somebody(&main).await, case_with_somebody(&main).await);
    for case in [&judged, &open_one] {
        open_case(&main, case.clone()).await.unwrap();
    }
    galleries.close().await;
    // As it was then: one verdict in the case's row, by a client whose reviewer may be nobody.
    let id: String = judged.id.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    tamper(
        dir.path(),
        &format!(
            "ALTER TABLE review_case ADD COLUMN judged_client TEXT;
             ALTER TABLE review_case ADD COLUMN judged_by TEXT;
             ALTER TABLE review_case ADD COLUMN judged_at INTEGER;
             DROP TABLE judgement;
             ALTER TABLE reference DROP COLUMN position;
             {WITHOUT_VERSION_6}
             UPDATE review_case SET verdict = 'unclear', judged_client = 'office', judged_at = 7000000 WHERE id = x'{id}';
             PRAGMA user_version = 3;"
        ),
    );
    for _ in 0..2 {
        let galleries = open(dir.path());
        let main = galleries.get(&name("main")).unwrap();
        let [kept] = &galleries.case(judged.id).await.unwrap().unwrap().judgements[..] else { panic!("no verdict") };
        assert_eq!(
            (kept.verdict, kept.client.as_str(), kept.reviewer.as_str()),
            (Verdict::Unclear, "office", "unknown")
        );
        assert_eq!(main.open_cases(None, 9).await.unwrap().iter().map(|c| c.id).collect::<Vec<_>>(), [open_one.id]);
        galleries.close().await;
    }
}

#[tokio::test]
async fn what_a_store_of_version_4_holds_is_found_and_made_a_case_of() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    enrol(&main, "found", template(77)).await;
    galleries.close().await;
    let old = format!("ALTER TABLE reference DROP COLUMN position; {WITHOUT_VERSION_6} PRAGMA user_version = 4;");
    tamper(dir.path(), &old);
    for count in 1..3 {
        let galleries = open(dir.path());
        let main = galleries.get(&name("main")).unwrap();
        open_case(&main, case_with_somebody(&main).await).await.unwrap();
        assert_eq!(main.open_cases(None, 9).await.unwrap().len(), count);
        galleries.close().await;
    }
}

#[tokio::test]
async fn one_damaged_case_keeps_nobody_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let mut cases = Vec::new();
    for _ in 0..5 {
        let case = case_with_somebody(&main).await;
        open_case(&main, case.clone()).await.unwrap();
        cases.push(case);
    }
    galleries.close().await;
    let of = |case: &Case| case.id.as_bytes().iter().map(|b| format!("{b:02x}")).collect::<String>();
    tamper(dir.path(), &format!("UPDATE review_case SET opened_for = 'x' WHERE id = x'{}'", of(&cases[1])));
    tamper(dir.path(), &format!("UPDATE review_case SET opened_by = 'a b' WHERE id = x'{}'", of(&cases[2])));
    let galleries = open(dir.path());
    let main = galleries.get(&name("main")).unwrap();
    // Pages are as long as if the damaged were not there.
    let page = async |after| main.open_cases(after, 2).await.unwrap().iter().map(|c| c.id).collect::<Vec<_>>();
    let first = page(None).await;
    assert_eq!(first, [cases[0].id, cases[3].id]);
    assert_eq!(page(first.last().copied()).await, [cases[4].id]);
    assert!(galleries.case(cases[1].id).await.is_err());
    galleries.close().await;
}

#[tokio::test]
async fn a_damaged_case_of_another_gallery_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let case = case();
    open_case(&main, case.clone()).await.unwrap();
    galleries.close().await;
    tamper(dir.path(), "UPDATE review_case SET opened_for = 'x'");
    let galleries = Arc::new(open(dir.path()));
    let client = |name: &str, gallery: &str| {
        format!("[clients.{name}]\nrights = [\"review\"]\npurposes = [\"case_review\"]\ngalleries = [\"{gallery}\"]\n")
    };
    let policy = Config::parse(&[client("own", "main"), client("other", "staff")].concat()).unwrap();
    let access = Access::new(policy.clients, Arc::clone(&galleries));
    let context = RequestContext {
        purpose: Purpose::CaseReview,
        consent_reference: ConsentReference::new("c-1").unwrap(),
        transaction_id: TransactionId::new("t-1").unwrap(),
        site: Site::new("office").unwrap(),
    };
    let pass = |name| access.authorise(&ClientId::new(name).unwrap(), &[Right::Review], &context).unwrap();
    assert!(matches!(pass("own").case(case.id).await, Err(CaseError::Damaged { .. })));
    assert!(matches!(pass("other").case(case.id).await, Ok(None)), "whether it is damaged is not theirs to know");
    galleries.close().await;
}
