use std::{
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use vultus_index::Indexes;

use super::*;
use crate::gallery::doubles::{Faults, every_kind};

const MODEL: ModelDigest = ModelDigest::new([1; 32]);

fn who(subject: &str) -> SubjectId {
    SubjectId::new(subject).unwrap()
}

/// With nothing in it, one over each kind of index.
fn every_state() -> [State; 4] {
    every_kind().map(|indexes| State::new(indexes.make(4).unwrap(), 0))
}

impl Published {
    /// Where a subject's templates lie.
    fn values_of(&self, subject: &str) -> Vec<f32> {
        let own = self.references_of(&who(subject), MODEL).unwrap();
        own.iter().map(|reference| reference.template.values()[0]).collect()
    }
}

fn enrolled(seq: i64, subject: &str) -> Change {
    let row = Row {
        id: ReferenceId::from_bytes([seq as u8; 16]),
        subject: who(subject),
        extraction: Default::default(),
        enrolled_at: SystemTime::UNIX_EPOCH,
    };
    let template = Template::new(MODEL, vec![seq as f32; 4]).unwrap();
    Change::Enrolled { seq, row, template }
}

#[test]
fn who_searches_keeps_neither_the_writer_nor_a_verification_waiting() {
    for state in every_state() {
        state.apply(vec![enrolled(1, "a"), enrolled(2, "b")], 2).unwrap();
        thread::scope(|scope| {
            let (done, ended) = mpsc::sync_channel(1);
            // Stops in the middle of a search, with everything in hand that one holds.
            let published = state.published();
            let row = published.row(1).unwrap();
            let state = &state;
            scope.spawn(move || {
                let claims = || state.published().values_of("a").len();
                state.apply(vec![enrolled(3, "a"), Change::Erased(vec![1])], 4).unwrap();
                let one = claims();
                state.apply((4..3000).map(|seq| enrolled(seq, "c")).collect(), 5).unwrap();
                done.send((one, claims(), state.published().epoch)).unwrap();
            });
            assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok((1, 1, 5)));
            assert_eq!((row.subject.as_str(), published.index.len(), published.epoch), ("a", 2, 2));
        });
    }
}

#[test]
fn a_writer_in_the_middle_of_a_change_keeps_no_reader_waiting() {
    for state in every_state() {
        state.apply(vec![enrolled(1, "a"), enrolled(2, "b")], 2).unwrap();
        // As while it copies a segment of the index, however long that takes.
        let changing = state.index.lock().unwrap();
        thread::scope(|scope| {
            let (done, ended) = mpsc::sync_channel(1);
            let state = &state;
            scope.spawn(move || {
                let published = state.published();
                let found = published.index.nearest(&[&[2.0; 4]], 1).unwrap()[0][0].id;
                let name = published.row(found).unwrap().subject.to_string();
                done.send((published.values_of("a").len(), name)).unwrap();
            });
            let answered = ended.recv_timeout(Duration::from_secs(20));
            drop(changing); // or a reader that waits would keep this test from ending
            assert_eq!(answered, Ok((1, "b".to_owned())));
        });
    }
}

#[test]
fn a_state_is_one_commit_and_nothing_of_another() {
    for state in every_state() {
        state.apply(vec![enrolled(1, "a"), enrolled(2, "a")], 2).unwrap();
        let (ended, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Relaxed) {
                    let published = state.published();
                    // Each commit replaces both references of the one subject, and adds one to the epoch.
                    let first = published.epoch as i64 * 2 - 3;
                    assert_eq!(published.values_of("a"), [first as f32, (first + 1) as f32]);
                    assert_eq!((published.count_of(&who("a")), published.index.len()), (2, 2));
                    assert_eq!(published.references(), 2);
                    seen.fetch_add(1, Relaxed);
                }
            });
            // As long as it takes for the reader to have seen many.
            for epoch in (3_i64..).take_while(|epoch| *epoch < 500 || seen.load(Relaxed) < 500) {
                let next = epoch * 2 - 3;
                let changes =
                    vec![enrolled(next, "a"), enrolled(next + 1, "a"), Change::Erased(vec![next - 2, next - 1])];
                state.apply(changes, epoch as u64).unwrap();
            }
            ended.store(true, Relaxed);
        });
    }
}

#[test]
fn what_is_enrolled_and_erased_in_one_commit_is_nowhere() {
    for state in every_state() {
        state.apply(vec![enrolled(1, "a"), Change::Erased(vec![1]), enrolled(2, "a")], 3).unwrap();
        let published = state.published();
        assert_eq!((published.references(), published.index.len(), published.subjects()), (1, 1, 1));
        assert!(published.row(1).is_none() && published.row(2).is_some());
    }
}

#[test]
fn the_vectors_of_a_state_are_its_own() {
    for state in every_state() {
        state.apply(vec![enrolled(1, "a"), enrolled(2, "b")], 2).unwrap();
        let before = state.published();
        state.apply(vec![Change::Erased(vec![1]), enrolled(3, "a")], 4).unwrap();
        let after = state.published();
        assert_eq!((before.values_of("a"), after.values_of("a")), (vec![1.0], vec![3.0]));
        let of = |published: &Published, seq| published.index.vectors().vector(seq).unwrap().map(|v| v.into_owned());
        assert_eq!((of(&before, 1), of(&before, 3)), (Some(vec![1.0; 4]), None));
        assert_eq!((of(&after, 1), of(&after, 3)), (None, Some(vec![3.0; 4])));
        let near = |published: &Published| published.index.nearest(&[&[1.0; 4]], 1).unwrap()[0][0].id;
        assert_eq!((near(&before), near(&after)), (1, 2));
    }
}

#[test]
fn what_cannot_be_read_is_no_row_that_is_not_there() {
    let faults = Faults::default();
    let state = State::new(faults.make(4).unwrap(), 0);
    state.apply(vec![enrolled(1, "a"), enrolled(2, "b")], 2).unwrap();
    let published = state.published();
    for fault in [&faults.reading, &faults.keeping] {
        fault.store(true, Relaxed);
        let unreadable = published.references_of(&who("a"), MODEL).unwrap_err();
        assert!(matches!(unreadable, IndexError::Unreadable { id: 1, .. }), "{unreadable:?}");
        assert!(published.found(2, MODEL).is_err() && published.found(3, MODEL).is_err());
        assert_eq!(published.references_of(&who("nobody"), MODEL).unwrap().len(), 0);
        fault.store(false, Relaxed);
    }
    assert_eq!(published.values_of("a"), [1.0]);
}
