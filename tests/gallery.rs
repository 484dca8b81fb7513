//! Galleries through their public API: what is acknowledged stays, what is erased is gone, what is refused says why.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use common::{digest, enrol, finish, gallery, name, open, open_case, rates, root, search, subject, template, turn};
use vultus::{
    domain::{CandidateList, Case, CaseId, ModelDigest, Purpose, ReferenceId, Template, TransactionId, compare},
    gallery::{
        CreateError, EnrolError, Finding, Galleries, NewReference, SearchError, Selector, ServiceTime, Settings,
        SpendError, StoreError,
    },
};

/// All bytes of all files of a directory.
fn bytes_on_disk(dir: &Path) -> Vec<u8> {
    let files = fs::read_dir(dir).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
    files.collect::<Vec<_>>().concat()
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn a_restart_serves_the_same_answers() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    for i in 0..50 {
        enrol(&main, &format!("s{}", i % 20), template(i)).await;
    }
    let probe = template(7);
    let before = (main.describe(), search(&main, &probe, &subject("s1"), 10).await);
    assert_eq!((before.0.subjects, before.0.references, before.0.indexed, before.0.epoch), (20, 50, 50, 50));
    let references = main.references_of(&subject("s3")).unwrap();
    galleries.close().await;
    assert!(matches!(
        main.enrol(NewReference {
            id: None,
            subject: subject("x"),
            template: template(1),
            extraction: Default::default()
        })
        .await,
        Err(EnrolError::Store(StoreError::Closed))
    ));

    let galleries = open(dir.path());
    let main = galleries.get(&name("main")).unwrap();
    assert_eq!((main.describe(), search(&main, &probe, &subject("s1"), 10).await), before);
    let again = main.references_of(&subject("s3")).unwrap();
    assert_eq!(references.len(), 3);
    for (a, b) in references.iter().zip(&again) {
        assert_eq!((a.id, &a.subject, &a.template, a.enrolled_at), (b.id, &b.subject, &b.template, b.enrolled_at));
    }
    galleries.close().await;
}

#[tokio::test]
async fn search_leaves_out_the_subject_and_scores_as_compare_does() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let probe = template(0);
    for i in 0..10 {
        enrol(&main, "own", template(i)).await;
    }
    for i in 10..30 {
        enrol(&main, &format!("s{i}"), template(i)).await;
    }
    let twin = enrol(&main, "twin", template(0)).await;
    let (list, epoch) = search(&main, &probe, &subject("own"), 5).await;
    assert_eq!((list.len(), epoch), (5, 31));
    assert_eq!((list.as_slice()[0].reference, list.as_slice()[0].score.value()), (twin, 1.0));
    let mut expected: Vec<_> = (10..30).map(|i| compare(&probe, &template(i)).unwrap().value()).collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    let scores: Vec<_> = list.as_slice()[1..].iter().map(|c| c.score.value()).collect();
    assert_eq!(scores, expected[..4]);
    assert!(list.as_slice().iter().all(|c| c.subject != subject("own")));
    let foreign = Template::new(digest(2), vec![0.0; 16]).unwrap();
    assert!(matches!(
        main.search(&foreign, &subject("own"), 5, &rates(0.0), &turn()).await,
        Err(SearchError::Model(_))
    ));
    galleries.close().await;
}

#[tokio::test]
async fn enrolling_again_changes_nothing_and_an_id_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let id = Some(ReferenceId::from_random_bytes(vultus::seal::random().unwrap()));
    let new = |who, seed| NewReference {
        id,
        subject: subject(who),
        template: template(seed),
        extraction: Default::default(),
    };
    // Both may share a commit.
    let (first, second) = tokio::join!(main.enrol(new("a", 1)), main.enrol(new("a", 1)));
    assert!(!first.unwrap().repeated && second.unwrap().repeated);
    let again = main.enrol(new("a", 2)).await.unwrap();
    assert!(again.repeated && again.epoch == 1);
    assert_eq!(main.references_of(&subject("a")).unwrap()[0].template, template(1));
    assert!(matches!(main.enrol(new("b", 1)).await, Err(EnrolError::Exists { .. })));
    let other = galleries.get_or_create(&name("other"), digest(1), 16).await.unwrap();
    // A gallery does not tell what another holds.
    assert!(!other.enrol(new("b", 1)).await.unwrap().repeated);
    assert_eq!((main.describe().references, other.describe().references), (1, 1));
    galleries.close().await;
}

#[tokio::test]
async fn the_erased_are_gone_from_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let probe = template(1);
    enrol(&main, "gone", template(1)).await;
    enrol(&main, "gone", template(2)).await;
    let single = enrol(&main, "stays", template(3)).await;
    let kept = enrol(&main, "stays", template(4)).await;

    let (candidates, _) = search(&main, &probe, &subject("claimed"), 10).await;
    let case = case(candidates);
    open_case(&main, case.clone()).await.unwrap();
    assert_eq!(galleries.case(case.id).await.unwrap().unwrap(), case);
    assert!(matches!(open_case(&main, case.clone()).await, Err(SpendError::CaseExists { .. })));
    assert_eq!(galleries.case(CaseId::from_random_bytes(vultus::seal::random().unwrap())).await.unwrap(), None);

    assert_eq!(main.erase(Selector::Subject(subject("gone"))).await.unwrap().references, 2);
    let erased = main.erase(Selector::Reference(single)).await.unwrap();
    assert_eq!((erased.references, erased.epoch), (1, 6));
    assert_eq!(main.erase(Selector::Reference(single)).await.unwrap().references, 0);
    assert_eq!(main.erase(Selector::Subject(subject("nobody"))).await.unwrap().epoch, 6);
    // What was found before is not recorded after: the erased do not come back with it. Another search tells how it is now.
    let late = Case { id: CaseId::from_random_bytes(vultus::seal::random().unwrap()), ..case.clone() };
    assert!(matches!(open_case(&main, late.clone()).await, Err(SpendError::Moved)));
    assert_eq!(galleries.case(late.id).await.unwrap(), None);
    let (candidates, _) = search(&main, &probe, &subject("claimed"), 10).await;
    let late = Case { candidates, ..late };
    open_case(&main, late.clone()).await.unwrap();
    for id in [case.id, late.id] {
        let shown = galleries.case(id).await.unwrap().unwrap();
        let shown: Vec<_> = shown.candidates.as_slice().iter().map(|c| (c.rank, c.reference)).collect();
        assert_eq!(shown, [(1, kept)]);
    }
    assert!(main.references_of(&subject("gone")).unwrap().is_empty());
    assert_eq!(search(&main, &probe, &subject("claimed"), 10).await.0.len(), 1);
    galleries.close().await;
    let galleries = open(dir.path());
    let main = galleries.get(&name("main")).unwrap();
    assert_eq!((main.describe().references, main.describe().indexed, main.epoch()), (1, 1, 6));
    assert_eq!(galleries.case(case.id).await.unwrap().unwrap().candidates.len(), 1);
    assert_eq!(search(&main, &probe, &subject("claimed"), 10).await.0.as_slice()[0].reference, kept);
    galleries.close().await;
}

#[tokio::test]
async fn an_erased_subject_is_claimed_in_no_case() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let other = galleries.get_or_create(&name("other"), digest(1), 16).await.unwrap();
    let first = enrol(&main, "claims-it", template(1)).await;
    enrol(&main, "claims-it", template(2)).await;
    enrol(&other, "claims-it", template(3)).await;
    let by = |claims: Option<&str>, gallery| Case {
        claimed: claims.map(subject),
        gallery: name(gallery),
        ..case(CandidateList::default())
    };
    let (here, elsewhere) = (by(Some("claims-it"), "main"), by(Some("claims-it"), "other"));
    open_case(&main, here.clone()).await.unwrap();
    open_case(&other, elsewhere.clone()).await.unwrap();
    let claimed = async |id| galleries.case(id).await.unwrap().unwrap().claimed;
    main.erase(Selector::Reference(first)).await.unwrap();
    assert_eq!(claimed(here.id).await, Some(subject("claims-it")), "one reference is left");
    main.erase(Selector::Subject(subject("claims-it"))).await.unwrap();
    assert_eq!(claimed(here.id).await, None);
    assert_eq!(claimed(elsewhere.id).await, Some(subject("claims-it")));
    // Decided on before, opened after.
    let late = by(Some("claims-it"), "main");
    open_case(&main, late.clone()).await.unwrap();
    assert_eq!(claimed(late.id).await, None);
    let last = other.references_of(&subject("claims-it")).unwrap()[0].id;
    other.erase(Selector::Reference(last)).await.unwrap();
    assert_eq!(claimed(elsewhere.id).await, None);
    assert!(!holds(&bytes_on_disk(dir.path()), b"claims-it"));
    galleries.close().await;
}

fn case(candidates: CandidateList) -> Case {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Case {
        id: CaseId::from_random_bytes(vultus::seal::random().unwrap()),
        gallery: name("main"),
        claimed: Some(subject("stays")),
        opened_at: SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970.as_secs()),
        opened_by: TransactionId::new("t-1").unwrap(),
        opened_for: Purpose::SimActivation,
        model: digest(1),
        candidates,
        judgements: Vec::new(),
    }
}

#[tokio::test]
async fn files_hold_no_template_and_nothing_of_the_erased() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    for i in 0..40 {
        enrol(&main, &format!("subject-number-{i}"), template(i)).await;
    }
    let disk = bytes_on_disk(dir.path());
    assert!(holds(&disk, b"subject-number-7"), "the search for bytes works");
    for i in 0..40 {
        let bytes: Vec<u8> = template(i).values().iter().flat_map(|v| v.to_le_bytes()).collect();
        assert!(bytes.chunks(8).all(|part| !holds(&disk, part)), "template {i}");
    }
    main.erase(Selector::Subject(subject("subject-number-7"))).await.unwrap();
    // While it is open: neither the file nor the write-ahead log.
    let disk = bytes_on_disk(dir.path());
    assert!(!holds(&disk, b"subject-number-7") && holds(&disk, b"subject-number-8"));
    galleries.close().await;
}

#[tokio::test]
async fn a_gallery_has_one_model() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    let refused = galleries.get_or_create(&name("main"), digest(2), 16).await;
    assert!(matches!(refused, Err(CreateError::Model { .. })));
    assert!(matches!(galleries.get_or_create(&name("main"), digest(1), 8).await, Err(CreateError::Model { .. })));
    assert!(matches!(galleries.get_or_create(&name("n"), digest(1), 0).await, Err(CreateError::Dimension { .. })));
    let enrol = |model: ModelDigest, values| {
        let template = Template::new(model, values).unwrap();
        main.enrol(NewReference { id: None, subject: subject("s"), template, extraction: Default::default() })
    };
    assert!(matches!(enrol(digest(2), vec![0.0; 16]).await, Err(EnrolError::Model { .. })));
    assert!(matches!(enrol(digest(1), vec![0.0; 15]).await, Err(EnrolError::Dimension { expected: 16, found: 15 })));
    galleries.close().await;
}

#[tokio::test]
async fn racing_creations_make_one_gallery() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = Arc::new(open(dir.path()));
    let race: Vec<_> = (0..16)
        .map(|i| {
            let galleries = Arc::clone(&galleries);
            tokio::spawn(async move { galleries.get_or_create(&name("main"), digest(i % 2), 16).await.is_ok() })
        })
        .collect();
    let mut made = 0;
    for one in race {
        made += usize::from(one.await.unwrap());
    }
    assert_eq!((made, galleries.list().len()), (8, 1));
    galleries.close().await;
}

#[tokio::test]
async fn limits_are_kept_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        Settings { max_galleries: 1, max_references: 5, max_references_per_subject: 3, ..Settings::default() };
    let galleries = Galleries::open(dir.path(), &root(), settings).unwrap();
    let main = gallery(&galleries).await;
    let second = galleries.get_or_create(&name("second"), digest(1), 16).await;
    assert!(matches!(second, Err(CreateError::TooMany { limit: 1 })));
    let new = |who: &str, seed| {
        main.enrol(NewReference {
            id: None,
            subject: subject(who),
            template: template(seed),
            extraction: Default::default(),
        })
    };
    let race = tokio::join!(new("a", 0), new("a", 1), new("a", 2), new("a", 3));
    assert!(race.0.is_ok() && race.1.is_ok() && race.2.is_ok());
    assert!(matches!(race.3, Err(EnrolError::TooManyForSubject { limit: 3 })));
    new("b", 4).await.unwrap();
    new("b", 5).await.unwrap();
    let full = new("c", 6).await.unwrap_err();
    assert!(matches!(full, EnrolError::GalleryFull { limit: 5 }) && full.to_string().contains("max_references"));
    main.erase(Selector::Subject(subject("a"))).await.unwrap();
    new("c", 6).await.unwrap();
    galleries.close().await;
}

#[tokio::test]
async fn a_full_store_acknowledges_nothing_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { max_store_bytes: 400 << 10, max_references_per_subject: 1 << 20, ..Settings::default() };
    let galleries = Galleries::open(dir.path(), &root(), settings.clone()).unwrap();
    let main = gallery(&galleries).await;
    let mut acknowledged = 0;
    let refusal = loop {
        let new = NewReference {
            id: None,
            subject: subject("s"),
            template: template(acknowledged),
            extraction: Default::default(),
        };
        match main.enrol(new).await {
            Ok(_) => acknowledged += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(refusal, EnrolError::Store(StoreError::Full)), "{refusal}");
    assert!(acknowledged > 100);
    assert_eq!(main.describe().references, acknowledged as usize);
    main.erase(Selector::Subject(subject("s"))).await.unwrap();
    let id = enrol(&main, "t", template(1)).await;
    galleries.close().await;
    let galleries = Galleries::open(dir.path(), &root(), settings).unwrap();
    assert_eq!(galleries.get(&name("main")).unwrap().references_of(&subject("t")).unwrap()[0].id, id);
    galleries.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_receipt_has_one_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    enrol(&main, "stays", template(1)).await;
    assert_eq!(main.outcome([7; 16]).await.unwrap(), None);
    // Each found something else: the first to be recorded is everyone's answer.
    let race: Vec<_> = (0..64)
        .map(|n| {
            let main = Arc::clone(&main);
            let case = (n % 2 == 0).then(|| case(CandidateList::default()));
            tokio::spawn(async move { finish(&main, [7; 16], case).await.unwrap() })
        })
        .collect();
    let mut answers = Vec::new();
    for one in race {
        answers.push(one.await.unwrap());
    }
    let (outcome, _) = answers[0];
    assert!(answers.iter().all(|(other, _)| *other == outcome));
    assert_eq!(answers.iter().filter(|(_, repeated)| !repeated).count(), 1);
    assert_eq!(main.outcome([7; 16]).await.unwrap(), Some(outcome));
    let tally = galleries.tally().await.unwrap();
    assert_eq!((tally.searches, tally.cases), (1, u64::from(outcome.case.is_some())));
    galleries.close().await;

    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    assert_eq!(finish(&main, [7; 16], None).await.unwrap(), (outcome, true));
    let long_gone = ServiceTime::from_micros(-3_600_000_000);
    let finding = Finding { case: None, epoch: 1, fnir: None };
    let refused = main.finish_identification([9; 16], long_gone, finding).await;
    assert!(matches!(refused, Err(SpendError::Expired)));
    galleries.close().await;
}

#[tokio::test]
async fn the_expired_is_purged() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        purge_interval: Duration::from_millis(20),
        receipt_grace: Duration::ZERO,
        case_retention: Duration::from_millis(50),
        ..Settings::default()
    };
    let galleries = Galleries::open(dir.path(), &root(), settings).unwrap();
    let main = gallery(&galleries).await;
    let case = case(CandidateList::default());
    let soon = main.clock().now().after(Duration::from_millis(50));
    let finding = Finding { case: Some(case.clone()), epoch: 0, fnir: None };
    main.finish_identification(*b"nonce-of-receipt", soon, finding).await.unwrap();
    assert!(galleries.case(case.id).await.unwrap().is_some());
    // Nobody asks for anything meanwhile.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(galleries.case(case.id).await.unwrap(), None);
    galleries.close().await;
    let disk = bytes_on_disk(dir.path());
    assert!(!holds(&disk, b"nonce-of-receipt") && !holds(&disk, case.id.as_bytes()));
}
