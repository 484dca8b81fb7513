//! Random operations, with restarts in between, against a model that is too simple to be wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{digest, enrol, gallery, name, open, root, search, subject, template};
use proptest::prelude::*;
use vultus::{
    domain::{ExtractionVersion, ReferenceId, Template, compare},
    gallery::{EnrolError, Galleries, NewReference, Selector, Settings},
};

const GALLERIES: [&str; 2] = ["one", "two"];
const SUBJECTS: u8 = 4;
const MAX_PER_SUBJECT: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Enrol { gallery: usize, subject: u8, id: u8, seed: u64 },
    EraseSubject { gallery: usize, subject: u8 },
    EraseReference { gallery: usize, id: u8 },
    Search { gallery: usize, exclude: u8, seed: u64, most: usize },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let (gallery, subject, seed) = (0..GALLERIES.len(), 0..SUBJECTS, 0..40_u64);
    prop_oneof![
        8 => (gallery.clone(), subject.clone(), 0..30_u8, seed.clone())
            .prop_map(|(gallery, subject, id, seed)| Step::Enrol { gallery, subject, id, seed }),
        1 => (gallery.clone(), subject.clone()).prop_map(|(gallery, subject)| Step::EraseSubject { gallery, subject }),
        2 => (gallery.clone(), 0..30_u8).prop_map(|(gallery, id)| Step::EraseReference { gallery, id }),
        3 => (gallery, subject, seed, 0..12_usize)
            .prop_map(|(gallery, exclude, seed, most)| Step::Search { gallery, exclude, seed, most }),
        1 => Just(Step::Reopen),
    ]
}

/// Subject and template's seed by gallery and id.
type Model = BTreeMap<(usize, u8), (u8, u64)>;

fn settings() -> Settings {
    Settings { max_references_per_subject: MAX_PER_SUBJECT, ..Settings::default() }
}

fn who(number: u8) -> vultus::domain::SubjectId {
    subject(&format!("s{number}"))
}

fn named(id: u8) -> ReferenceId {
    ReferenceId::from_bytes([id; 16])
}

async fn check(galleries: &Galleries, model: &Model) {
    for (at, gallery) in GALLERIES.iter().enumerate() {
        let gallery = galleries.get(&name(gallery)).unwrap();
        let here: Vec<_> = model.iter().filter(|((gallery, _), _)| *gallery == at).collect();
        let described = gallery.describe();
        assert_eq!((described.references, described.indexed), (here.len(), here.len()));
        let mut subjects = 0;
        for number in 0..SUBJECTS {
            let mut found = gallery.references_of(&who(number)).unwrap();
            found.sort_by_key(|r| r.id);
            let expected: Vec<_> = here.iter().filter(|(_, owner)| owner.0 == number).collect();
            assert_eq!(found.len(), expected.len());
            for (found, ((_, id), owner)) in found.iter().zip(&expected) {
                assert_eq!((found.id, &found.template), (named(*id), &template(owner.1)));
            }
            subjects += usize::from(!expected.is_empty());
        }
        assert_eq!(described.subjects, subjects);
    }
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let mut galleries = Galleries::open(dir.path(), &root(), settings()).unwrap();
    for gallery in GALLERIES {
        galleries.get_or_create(&name(gallery), digest(1), 16).await.unwrap();
    }
    let mut model = Model::new();
    let mut epochs = [0; GALLERIES.len()];
    for step in steps {
        let open = |gallery: usize| galleries.get(&name(GALLERIES[gallery])).unwrap();
        match step {
            Step::Enrol { gallery, subject, id, seed } => {
                let new = NewReference {
                    id: Some(named(id)),
                    subject: who(subject),
                    template: template(seed),
                    extraction: Default::default(),
                };
                let answer = open(gallery).enrol(new).await;
                let own = model.iter().filter(|(at, owner)| (at.0, owner.0) == (gallery, subject)).count();
                match model.get(&(gallery, id)) {
                    Some(owner) if owner.0 == subject => assert!(answer.unwrap().repeated),
                    Some(_) => assert!(matches!(answer, Err(EnrolError::Exists { .. }))),
                    None if own == MAX_PER_SUBJECT => {
                        assert!(matches!(answer, Err(EnrolError::TooManyForSubject { limit: MAX_PER_SUBJECT })));
                    }
                    None => {
                        epochs[gallery] += 1;
                        assert_eq!(answer.unwrap().epoch, epochs[gallery]);
                        model.insert((gallery, id), (subject, seed));
                    }
                }
            }
            Step::EraseSubject { gallery, subject } => {
                let erased = open(gallery).erase(Selector::Subject(who(subject))).await.unwrap();
                let before = model.len();
                model.retain(|at, owner| (at.0, owner.0) != (gallery, subject));
                epochs[gallery] += u64::from(model.len() < before);
                assert_eq!((erased.references, erased.epoch), (before - model.len(), epochs[gallery]));
            }
            Step::EraseReference { gallery, id } => {
                let erased = open(gallery).erase(Selector::Reference(named(id))).await.unwrap();
                let before = model.len();
                model.retain(|at, _| *at != (gallery, id));
                epochs[gallery] += u64::from(model.len() < before);
                assert_eq!((erased.references, erased.epoch), (before - model.len(), epochs[gallery]));
            }
            Step::Search { gallery, exclude, seed, most } => {
                let probe = template(seed);
                let (list, epoch) = search(&open(gallery), &probe, &who(exclude), most).await;
                let others = model.iter().filter(|(at, owner)| at.0 == gallery && owner.0 != exclude);
                let mut expected: Vec<_> = others
                    .map(|(at, owner)| {
                        (compare(&probe, &template(owner.1)).unwrap().value(), named(at.1), who(owner.0))
                    })
                    .collect();
                expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                // People by their best references.
                let mut seen = BTreeSet::new();
                expected.retain(|(_, _, subject)| seen.insert(subject.clone()));
                expected.truncate(most);
                let found: Vec<_> =
                    list.as_slice().iter().map(|c| (c.score.value(), c.reference, c.subject.clone())).collect();
                assert_eq!((found, epoch), (expected, epochs[gallery]));
            }
            Step::Reopen => {
                galleries.close().await;
                galleries = Galleries::open(dir.path(), &root(), settings()).unwrap();
                check(&galleries, &model).await;
            }
        }
    }
    check(&galleries, &model).await;
    galleries.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    // A failure prints the steps and keeps its seed.
    #[test]
    fn a_gallery_does_what_the_model_does(steps in prop::collection::vec(step(), 1..80)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(steps));
    }
}

#[tokio::test]
async fn a_model_that_is_called_otherwise_keeps_its_galleries() {
    let dir = tempfile::tempdir().unwrap();
    let galleries = open(dir.path());
    let main = gallery(&galleries).await;
    enrol(&main, "a", template(1)).await;
    galleries.close().await;
    // Other digests name the same model: the first that was given stays in the seals.
    let (second, third) = (digest(2), digest(3));
    let found_by = ExtractionVersion::new(*b"detector");
    let again = |model, number| Template::new(model, template(number).values().to_vec()).unwrap();
    for (renamed_model, model, references) in [
        (Some((digest(1), second)), second, 1),
        (Some((digest(1), second)), second, 2),
        (Some((digest(1), third)), third, 3),
        (None, digest(1), 4),
    ] {
        let settings = Settings { renamed_model, ..Settings::default() };
        let galleries = Galleries::open(dir.path(), &root(), settings).unwrap();
        let main = galleries.get(&name("main")).unwrap();
        let described = main.describe();
        assert_eq!((described.model, described.references), (model, references));
        let known =
            described.extractions.iter().find(|(version, _)| *version == found_by).map_or(0, |(_, count)| *count);
        assert_eq!((described.extractions[0], known), ((ExtractionVersion::UNKNOWN, 1), references - 1));
        let claim = main.references_of(&subject("a")).unwrap();
        assert_eq!(
            (claim.len(), claim[0].template.model(), claim[0].template.values()),
            (references, model, template(1).values())
        );
        let new =
            |model| NewReference { id: None, subject: subject("a"), template: again(model, 1), extraction: found_by };
        assert!(matches!(main.enrol(new(digest(9))).await, Err(EnrolError::Model { .. })));
        main.enrol(new(model)).await.unwrap();
        galleries.close().await;
    }
    // Of another model nothing is renamed.
    let settings = Settings { renamed_model: Some((second, third)), ..Settings::default() };
    let galleries = Galleries::open(dir.path(), &root(), settings).unwrap();
    assert_eq!(galleries.get(&name("main")).unwrap().model(), digest(1));
    galleries.close().await;
}
