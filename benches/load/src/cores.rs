//! Which cores the server may use, and which the generator: by default all, the same.

use std::{io, num::NonZeroUsize, thread};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use vultus::cli::{Failure, open::cores};

/// The server's cores, where they are other than the generator's.
#[derive(Debug, Clone, Default)]
pub struct ServerCores(Option<CpuSet>);

impl ServerCores {
    /// Leaves the first half of the cores to the server, and takes the calling thread, with all that it starts from now on, to the
    /// others.
    ///
    /// # Errors
    /// With one core, or where the system forbids it.
    pub fn apart() -> Result<Self, Failure> {
        let all = sched_getaffinity(None)?;
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        let (servers, own) = usable.split_at(usable.len() / 2);
        if servers.is_empty() {
            return Err("--apart: expected two cores or more".into());
        }
        sched_setaffinity(None, &set_of(own))?;
        Ok(Self(Some(set_of(servers))))
    }

    /// Whether they are the server's alone.
    pub fn are_apart(&self) -> bool {
        self.0.is_some()
    }

    pub fn count(&self) -> NonZeroUsize {
        let counted = self.0.as_ref().and_then(|set| NonZeroUsize::new(set.count() as usize));
        counted.unwrap_or_else(cores)
    }

    /// Runs `work` on them; threads and processes that it starts stay there.
    ///
    /// # Errors
    /// When the system gives no thread or no core.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let Some(set) = &self.0 else { return Ok(work()) };
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                sched_setaffinity(None, set)?;
                Ok(work())
            });
            worker.join().map_err(|_| io::Error::other("a thread on the server's cores panicked"))?
        })
    }
}

fn set_of(cores: &[usize]) -> CpuSet {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_where_it_is_sent() {
        let first = (0..CpuSet::MAX_CPU).find(|core| sched_getaffinity(None).unwrap().is_set(*core)).unwrap();
        let cores = ServerCores(Some(set_of(&[first])));
        assert_eq!(cores.count().get(), 1);
        let seen = cores.run(|| thread::spawn(|| sched_getaffinity(None).unwrap()).join().unwrap()).unwrap();
        assert_eq!((seen.count(), seen.is_set(first)), (1, true), "a thread that it starts is there as well");
        assert!(ServerCores::default().count() >= NonZeroUsize::MIN && !ServerCores::default().are_apart());
    }
}
