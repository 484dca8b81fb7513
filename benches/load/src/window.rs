//! One window of the open loop, and what server and generator used in it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    arrivals::{MOST_ARRIVALS, poisson},
    drive::{MOST_OUTSTANDING, Sender, open_loop},
    ideal::Ideal,
    table::{Row, Times},
    target::Target,
    usage::usage,
};
use vultus::cli::Failure;

/// How often the server's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What all windows of a run have in common.
pub struct Windows<'a, S> {
    pub sender: &'a Arc<S>,
    pub target: &'a Target,
    pub seconds: Duration,
    pub seed: u64,
    /// Where the peak is known.
    pub ideal: Option<Ideal>,
}

impl<S: Sender> Windows<'_, S> {
    /// The `number`th window, at `per_s` requests a second. Waits for all answers.
    pub async fn run(&self, name: String, per_s: f64, number: u64) -> Result<Row, Failure> {
        let scheduled = per_s * self.seconds.as_secs_f64();
        if scheduled > MOST_ARRIVALS {
            return Err(format!("--rate {name}: {scheduled:.0} requests are more than a window holds").into());
        }
        let schedule = poisson(per_s, self.seconds.as_secs_f64(), self.seed.wrapping_add(number));
        let ideal = self.ideal.and_then(|ideal| ideal.p99_9_over_p50(&schedule, per_s));
        let (scheduled, before) = (schedule.len(), self.target.snapshot());
        let most_mib = Arc::new(AtomicU64::new(0));
        let looking = tokio::spawn(look(self.target.pid(), Arc::clone(&most_mib)));
        let driven = open_loop(self.sender, schedule, self.seconds, MOST_OUTSTANDING).await;
        looking.abort();
        let (tally, took) = driven?;
        let times = Times { window: self.seconds, took };
        let mut row = Row::new(name, scheduled, times, tally, (before, self.target.snapshot()));
        row.ideal_p99_9_over_p50 = ideal;
        row.server_rss_most_mib = before.server.map(|before| before.rss_mib.max(most_mib.load(Relaxed) as f64));
        Ok(row)
    }
}

/// Notes the most memory that a process held, MiB, until it is aborted.
async fn look(pid: Option<u32>, most_mib: Arc<AtomicU64>) {
    let Some(pid) = pid else { return };
    loop {
        if let Some(usage) = usage(pid) {
            most_mib.fetch_max(usage.rss_mib.ceil() as u64, Relaxed);
        }
        tokio::time::sleep(LOOK).await;
    }
}
