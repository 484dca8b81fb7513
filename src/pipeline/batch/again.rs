//! What becomes of a batch that failed.

use std::{collections::VecDeque, time::Instant};

use vultus_engine::executor::ExecuteError;

use super::{DeviceError, Job, drop_dead};
use crate::domain::Waits;

/// What failed.
#[derive(Default)]
pub(super) struct Again {
    /// Of batches that failed: each is run alone, so that a bad image fails alone.
    pub jobs: VecDeque<Job>,
    /// How the device was lost.
    pub lost: Option<String>,
}

impl Again {
    /// The next of those that are run alone; who has left or is late by now is not.
    pub fn next(&mut self) -> Option<Job> {
        while let Some(job) = self.jobs.pop_front() {
            match () {
                () if job.gone() => drop_dead(vec![], &[job]),
                () if job.turn.deadline <= Instant::now() => drop_dead(vec![job], &[]),
                () => return Some(job),
            }
        }
        None
    }

    /// A batch that failed: one alone is told, of several each is run again, where there is a device to run it.
    pub fn fail(&mut self, jobs: Vec<Job>, error: &ExecuteError) {
        if let ExecuteError::Lost(reason) = error {
            self.lost = Some(reason.clone());
            return jobs.into_iter().for_each(|job| job.answer(Err(DeviceError::Lost(reason.clone()))));
        }
        if jobs.len() > 1 {
            return self.jobs.extend(jobs);
        }
        for job in jobs {
            tracing::warn!(role = job.role.as_str(), %error, "an image failed on the device");
            job.answer(Err(DeviceError::Failed(error.to_string())));
        }
    }
}
