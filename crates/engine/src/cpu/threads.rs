//! Who computes. An executor that has all threads cuts its batches into a part for each. Executors that share them
//! compute on their callers' threads, each its own batch: none waits for another, however the system divides the cores.
//! While all others rest, one shares its images among some of their threads, too.

use std::{num::NonZeroUsize, sync::Arc};

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::{Prepared, Workspace, cores, layout::Line, prologue::Watched};
use crate::{
    executor::{ExecuteError, LoadError},
    image::Pixels,
};

pub struct Threads(rayon::ThreadPool);

/// What an executor has of them, and the memory that its work needs.
pub struct Share {
    threads: Arc<Threads>,
    /// One for each thread of its own.
    work: Vec<Workspace>,
}

impl Threads {
    /// For one executor that has all of them: each keeps to a core of its own, where it has one.
    pub fn of_one(threads: NonZeroUsize) -> Result<Arc<Self>, LoadError> {
        let cores: Vec<Option<usize>> = cores::for_each(threads.get()).collect();
        Self::start(threads, move |thread| cores.get(thread).copied().flatten().into_iter().for_each(cores::keep_to))
    }

    /// For an executor each, which compute on their callers' threads: these only help, on cores that rest.
    pub fn of_each(threads: NonZeroUsize) -> Result<Arc<Self>, LoadError> {
        Self::start(threads, |_| {})
    }

    fn start(threads: NonZeroUsize, begin: impl Fn(usize) + Send + Sync + 'static) -> Result<Arc<Self>, LoadError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|i| format!("vultus-compute-{i}"))
            .start_handler(begin)
            .build()
            .map_err(|e| LoadError::Device(e.to_string()))?;
        Ok(Arc::new(Self(pool)))
    }

    fn count(&self) -> usize {
        self.0.current_num_threads()
    }
}

impl Share {
    pub fn of_all(threads: Arc<Threads>) -> Self {
        let work = (0..threads.count()).map(|_| Workspace::default()).collect();
        Self { threads, work }
    }

    pub fn of_each(threads: Arc<Threads>) -> impl Iterator<Item = Self> {
        (0..threads.count()).map(move |_| Self { threads: Arc::clone(&threads), work: vec![Workspace::default()] })
    }

    /// As [`Prepared::watch`]; images of another size were left out.
    pub fn watch(&mut self, prepared: &Prepared, images: &[&Pixels], watch: impl FnMut(&Watched, &[Line]) + Send) {
        let threads = self.work.len();
        if let [work, ..] = self.work.as_mut_slice() {
            self.threads.0.install(|| prepared.watch(work, threads, images, watch));
        }
    }

    /// All images' outputs, one after the other, in place of what was in `outputs`. `resting` executors may lend their threads, see
    /// [`lent`].
    pub fn run(
        &mut self,
        prepared: &Prepared,
        images: &[&Pixels],
        resting: usize,
        outputs: &mut Zeroizing<Vec<f32>>,
    ) -> Result<(), ExecuteError> {
        let expected = prepared.size;
        for (index, image) in images.iter().enumerate() {
            if (image.width(), image.height()) != (expected.width, expected.height) {
                return Err(ExecuteError::Size { index, width: image.width(), height: image.height(), expected });
            }
        }
        let each = prepared.output_values();
        outputs.resize(images.len() * each, 0.0);
        let parts = self.work.len();
        let count = self.threads.count();
        let threads = (parts + lent(resting, count)).min(count);
        let cut = parts > 1 && (images.len() >= 2 * parts || images.len().is_multiple_of(parts));
        match self.work.as_mut_slice() {
            // Threads with images of their own do not wait for each other; few images are shared by all.
            work if cut => {
                let share = images.len().div_ceil(parts).max(1);
                let parts = images.par_chunks(share).zip(outputs.par_chunks_mut(share * each)).zip(work.par_iter_mut());
                self.threads.0.install(|| parts.for_each(|((images, y), work)| prepared.run(work, 1, images, y)));
            }
            [work, ..] if threads > 1 => self.threads.0.install(|| prepared.run(work, threads, images, outputs)),
            [work, ..] => prepared.run(work, 1, images, outputs),
            [] => {}
        }
        Ok(())
    }
}

/// Threads that one of so many executors is lent: where all others rest, half of them; the rest stay for who comes
/// meanwhile. Who shares an image waits for each other at every layer, the longer the more goes on beside it. So two
/// cores share nothing, and neither do eight of which two are busy: half of those that rested had made a lone
/// verification as fast, and the median of half the load a quarter slower.
fn lent(resting: usize, executors: usize) -> usize {
    if resting + 1 < executors { 0 } else { resting / 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_alone_is_helped() {
        let lent = |executors| (0..executors).map(|resting| lent(resting, executors)).collect::<Vec<_>>();
        assert_eq!((lent(1), lent(2), lent(8)), (vec![0], vec![0, 0], vec![0, 0, 0, 0, 0, 0, 0, 3]));
    }
}
