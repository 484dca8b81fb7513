//! Who computes. An executor that has all threads cuts its batches into a part for each. Executors that share them compute on their
//! callers' threads, each its own batch: none waits for another, however the system divides the cores. Only who is alone takes the
//! others' threads, and shares one image among them.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rayon::prelude::*;

use super::{Prepared, Workspace};
use crate::{
    domain::Pixels,
    model::{executor::ExecuteError, set::OpenError},
};

pub struct Threads {
    pool: rayon::ThreadPool,
    /// Executors that compute now.
    busy: AtomicUsize,
}

/// What an executor has of them, and the memory that its work needs.
pub struct Share {
    threads: Arc<Threads>,
    /// One for each part of a batch that runs at a time.
    work: Vec<Workspace>,
}

impl Threads {
    pub fn new(threads: NonZeroUsize) -> Result<Arc<Self>, OpenError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|i| format!("vultus-compute-{i}"))
            .build()
            .map_err(|e| OpenError::Device(e.to_string()))?;
        Ok(Arc::new(Self { pool, busy: AtomicUsize::new(0) }))
    }

    fn count(&self) -> usize {
        self.pool.current_num_threads()
    }
}

/// Counts an executor as busy while it lives.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    /// How many are, this one included.
    fn enter(busy: &'a AtomicUsize) -> (Self, usize) {
        let before = busy.fetch_add(1, Relaxed);
        (Self(busy), before + 1)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
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

    pub fn run(&mut self, prepared: &Prepared, images: &[&Pixels]) -> Result<Vec<Vec<f32>>, ExecuteError> {
        let expected = prepared.size;
        for (index, image) in images.iter().enumerate() {
            if (image.width(), image.height()) != (expected.width, expected.height) {
                return Err(ExecuteError::Size { index, width: image.width(), height: image.height(), expected });
            }
        }
        let (_busy, executors) = Busy::enter(&self.threads.busy);
        let (threads, parts) = ((self.threads.count() / executors).max(1), self.work.len());
        let cut = parts > 1 && (images.len() >= 2 * parts || images.len().is_multiple_of(parts));
        let outputs: Vec<Vec<f32>> = match self.work.as_mut_slice() {
            // Threads with images of their own do not wait for each other; few images are shared by all.
            work if cut => {
                let share = images.len().div_ceil(parts).max(1);
                let parts = images.par_chunks(share).zip(work.par_iter_mut());
                let run = || parts.flat_map_iter(|(images, work)| prepared.run(work, 1, images)).collect();
                self.threads.pool.install(run)
            }
            [work, ..] if threads > 1 => self.threads.pool.install(|| prepared.run(work, threads, images)),
            [work, ..] => prepared.run(work, 1, images),
            [] => Vec::new(),
        };
        match outputs.iter().position(|output| output.iter().any(|v| !v.is_finite())) {
            Some(index) => Err(ExecuteError::NotFinite { index }),
            None => Ok(outputs),
        }
    }
}
