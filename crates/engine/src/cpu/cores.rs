//! The core that an executor's thread keeps to.
//!
//! Threads that are left to the system meet on one core now and then, while the other runs what may wait: to the system
//! a core with nothing but idle work is not free enough to move a thread to it.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A core for each of so many threads, where the process may use exactly so many: all of a small machine, or those that
/// a container was given for itself. Where it may use more, which of them are others' can't be known: then none.
pub fn for_each(threads: usize) -> impl Iterator<Item = Option<usize>> {
    let mine = sched_getaffinity(None).ok().filter(|mine| mine.count() as usize == threads);
    let cores = mine.into_iter().flat_map(|mine| (0..CpuSet::MAX_CPU).filter(move |core| mine.is_set(*core)));
    cores.map(Some).chain(std::iter::repeat(None)).take(threads)
}

/// Keeps the calling thread, and those that it starts from now on, to the core.
pub fn keep_to(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // Where the system does not allow it, the thread runs where it may.
    let _ = sched_setaffinity(None, &set);
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn mine() -> Vec<usize> {
        let mine = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).filter(|core| mine.is_set(*core)).collect()
    }

    #[test]
    fn each_thread_has_a_core_where_there_are_exactly_so_many() {
        let all = mine();
        assert_eq!(for_each(all.len()).collect::<Vec<_>>(), all.iter().copied().map(Some).collect::<Vec<_>>());
        for other in [all.len() - 1, all.len() + 1] {
            assert_eq!(for_each(other).collect::<Vec<_>>(), vec![None; other]);
        }
    }

    #[test]
    fn a_thread_stays_where_it_is_kept() {
        let last = *mine().last().unwrap();
        let kept = thread::spawn(move || {
            keep_to(last);
            mine()
        });
        assert_eq!(kept.join().unwrap(), [last]);
    }
}
