//! Who used the cores, and how much memory the server holds, as the system tells it.

use std::{fs, time::Instant};

use serde::Serialize;

/// What a process has used so far, and holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User's and system's time of all its threads, seconds; counted in ticks of 10 ms.
    pub cpu_s: f64,
    pub rss_mib: f64,
}

/// Server, generator and the whole machine at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    at: Instant,
    pub server: Option<Usage>,
    own: Option<Usage>,
    machine_s: Option<f64>,
}

/// Cores that were used between two moments, in the mean.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Used {
    /// `None` where the server's process is not known.
    pub server_cores: Option<f64>,
    pub generator_cores: Option<f64>,
    /// By everything else on the machine: where this is much, the figures are its, too.
    pub other_cores: Option<f64>,
    #[serde(skip)]
    pub server_cpu_s: Option<f64>,
}

impl Snapshot {
    pub fn take(server: Option<u32>) -> Self {
        Self {
            at: Instant::now(),
            server: server.and_then(usage),
            own: usage(std::process::id()),
            machine_s: machine(),
        }
    }

    #[cfg(test)]
    pub fn of_server(at: Instant, cpu_s: f64, rss_mib: f64) -> Self {
        Self { at, server: Some(Usage { cpu_s, rss_mib }), own: None, machine_s: None }
    }

    /// Since this moment.
    pub fn until(&self, later: &Self) -> Used {
        let seconds = (later.at - self.at).as_secs_f64().max(1e-3);
        let spent = |from: Option<Usage>, to: Option<Usage>| from.zip(to).map(|(from, to)| to.cpu_s - from.cpu_s);
        let (server, own) = (spent(self.server, later.server), spent(self.own, later.own));
        let machine = self.machine_s.zip(later.machine_s).map(|(from, to)| to - from);
        // Of a server whose process is not known nobody can say whether it is on this machine.
        let other = machine.zip(server).map(|(all, server)| (all - server - own.unwrap_or_default()).max(0.0));
        Used {
            server_cores: server.map(|s| s / seconds),
            generator_cores: own.map(|s| s / seconds),
            other_cores: other.map(|s| s / seconds),
            server_cpu_s: server,
        }
    }
}

impl Used {
    /// Of some that took equally long.
    pub fn mean(all: &[Self]) -> Self {
        let mean =
            |of: fn(&Self) -> Option<f64>| Some(all.iter().map(of).sum::<Option<f64>>()? / all.len().max(1) as f64);
        Self {
            server_cores: mean(|used| used.server_cores),
            generator_cores: mean(|used| used.generator_cores),
            other_cores: mean(|used| used.other_cores),
            server_cpu_s: mean(|used| used.server_cpu_s),
        }
    }

    pub fn text(&self) -> String {
        let cores = |cores: Option<f64>| cores.map_or_else(|| "-".into(), |cores| format!("{cores:.2}"));
        format!(
            "cores used: server {}, generator {}, others {}",
            cores(self.server_cores),
            cores(self.generator_cores),
            cores(self.other_cores)
        )
    }
}

/// A process's; `None` once it has gone.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let cpu_s = seconds(&fields, [11, 12])?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = rss.trim().trim_end_matches(" kB").parse().ok()?;
    Some(Usage { cpu_s, rss_mib: kib / 1024.0 })
}

/// Time of all cores that was not idle, seconds: user, nice, system, irq, softirq, steal.
fn machine() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<&str> = stat.lines().next()?.split_whitespace().collect();
    seconds(&fields, [1, 2, 3, 6, 7, 8])
}

/// The sum of some fields, which are ticks.
fn seconds<const N: usize>(fields: &[&str], at: [usize; N]) -> Option<f64> {
    let ticks = at.iter().map(|at| fields.get(*at)?.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_process_is_measured() {
        let own = std::process::id();
        let before = Snapshot::take(Some(own));
        let held = vec![1u8; 64 << 20];
        let started = Instant::now();
        let mut sum = 0u64;
        while started.elapsed() < Duration::from_millis(300) {
            sum += held.iter().step_by(4096).map(|v| u64::from(*v)).sum::<u64>();
        }
        let after = Snapshot::take(Some(own));
        let used = before.until(&after);
        assert!(sum > 0 && used.server_cpu_s.unwrap() > 0.0 && used.other_cores.is_some(), "{used:?}");
        let (before, after) = (before.server.unwrap(), after.server.unwrap());
        assert!(after.rss_mib > before.rss_mib + 32.0, "{before:?} {after:?}");
        assert!(usage(u32::MAX).is_none());
        let unknown = Snapshot::take(None);
        let used = unknown.until(&unknown);
        assert!(used.server_cores.is_none() && used.other_cores.is_none() && used.generator_cores.is_some());
    }
}
