//! Figures of one window, and all of them as a table.

use std::time::Duration;

use serde::Serialize;

use super::{flood::Flooded, tally::Tally, target::Usage};

/// An issued rate that is further off the intended one is marked: the window shows the generator, not the server.
const MOST_OFF: f64 = 0.01;

/// How long a window was, the time until its last request was sent, and until its last answer.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub window: Duration,
    pub took: Duration,
    pub elapsed: Duration,
}

/// One window of the open loop. Latencies are milliseconds from the moment that a request was due.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// As it was asked for.
    pub name: String,
    /// Requests a second.
    pub intended_per_s: f64,
    pub issued_per_s: f64,
    /// Answers a second that came within the window.
    pub goodput_per_s: f64,
    pub ok: u64,
    pub refused: u64,
    pub late: u64,
    pub failed: u64,
    pub changed: u64,
    /// Refusals that do not say when to try again.
    pub unhinted: u64,
    pub shed: u64,
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p99_9_ms: Option<f64>,
    pub max_ms: Option<f64>,
    pub refusals_p99_ms: Option<f64>,
    /// How late the generator was to send.
    pub send_lag_p99_ms: Option<f64>,
    pub server_cores: Option<f64>,
    pub generator_cores: Option<f64>,
    pub server_rss_before_mib: Option<f64>,
    /// The most that was seen.
    pub server_rss_most_mib: Option<f64>,
    pub server_rss_after_mib: Option<f64>,
    /// Requests answered or refused for each second of a core's time that the server used.
    pub requests_per_core_s: Option<f64>,
    /// The identifications beside it.
    pub flood: Option<Flooded>,
    /// True where the rate was not the one that was asked for, or requests were shed.
    pub off: bool,
    pub failure: Option<String>,
}

impl Row {
    pub fn new(
        name: String,
        scheduled: usize,
        Times { window, took, elapsed }: Times,
        tally: Tally,
        (before, after): (Option<Usage>, Option<Usage>),
    ) -> Self {
        let intended_per_s = scheduled as f64 / window.as_secs_f64();
        let issued_per_s = tally.issued() as f64 / took.as_secs_f64();
        let cpu_s = before.zip(after).map(|(before, after)| after.cpu_s - before.cpu_s);
        Self {
            name,
            intended_per_s,
            issued_per_s,
            goodput_per_s: tally.ok_within as f64 / window.as_secs_f64(),
            ok: tally.ok.count(),
            refused: tally.refused.count(),
            late: tally.late.count(),
            failed: tally.failed.count(),
            changed: tally.changed,
            unhinted: tally.unhinted,
            shed: tally.shed,
            p50_ms: tally.ok.quantile_ms(0.5),
            p90_ms: tally.ok.quantile_ms(0.9),
            p99_ms: tally.ok.quantile_ms(0.99),
            p99_9_ms: tally.ok.quantile_ms(0.999),
            max_ms: tally.ok.max_ms(),
            refusals_p99_ms: tally.refused.quantile_ms(0.99),
            send_lag_p99_ms: tally.lag.quantile_ms(0.99),
            server_cores: cpu_s.map(|cpu_s| cpu_s / elapsed.as_secs_f64()),
            generator_cores: None,
            requests_per_core_s: cpu_s.map(|cpu_s| (tally.ok.count() + tally.refused.count()) as f64 / cpu_s.max(0.01)),
            flood: None,
            server_rss_before_mib: before.map(|usage| usage.rss_mib),
            server_rss_most_mib: None,
            server_rss_after_mib: after.map(|usage| usage.rss_mib),
            off: (issued_per_s / intended_per_s - 1.0).abs() > MOST_OFF || tally.shed > 0,
            failure: tally.failure,
        }
    }

    pub fn p99_9_over_p50(&self) -> Option<f64> {
        Some(self.p99_9_ms? / self.p50_ms?)
    }
}

/// Lines for a person: a head, and one for each row.
pub fn lines(rows: &[Row]) -> Vec<String> {
    let number = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.1}"));
    let cores = |cores: Option<f64>| cores.map_or_else(|| "-".into(), |cores| format!("{cores:.2}"));
    let head = format!(
        "{:>9} {:>8} {:>8} {:>8} {:>6} {:>7} {:>5} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7} {:>5} {:>5} {:>15}",
        "rate",
        "intended",
        "issued",
        "goodput",
        "ok",
        "refused",
        "late",
        "failed",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "ref. p99",
        "lag p99",
        "cores",
        "gen.",
        "RSS MiB",
    );
    let line = |row: &Row| {
        let rss = match (row.server_rss_before_mib, row.server_rss_most_mib, row.server_rss_after_mib) {
            (Some(before), Some(most), Some(after)) => format!("{before:.0} {most:.0} {after:.0}"),
            _ => "-".into(),
        };
        let mut line = format!(
            "{:>9} {:>8.1} {:>8.1} {:>8.1} {:>6} {:>7} {:>5} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7} {:>5} {:>5} {:>15}",
            row.name,
            row.intended_per_s,
            row.issued_per_s,
            row.goodput_per_s,
            row.ok,
            row.refused,
            row.late,
            row.failed,
            number(row.p50_ms),
            number(row.p90_ms),
            number(row.p99_ms),
            number(row.p99_9_ms),
            number(row.max_ms),
            number(row.refusals_p99_ms),
            number(row.send_lag_p99_ms),
            cores(row.server_cores),
            cores(row.generator_cores),
            rss,
        );
        if row.off {
            line += &format!("  <- OFF: the generator did not keep the rate ({} shed)", row.shed);
        }
        if row.changed > 0 {
            line += &format!("  <- {} answers changed under load", row.changed);
        }
        if row.unhinted > 0 {
            line += &format!("  <- {} refusals without a hint when to try again", row.unhinted);
        }
        if let Some(failure) = &row.failure {
            line += &format!("  <- {failure}");
        }
        line
    };
    std::iter::once(head).chain(rows.iter().map(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::tally::Outcome, *};

    fn row(issued: usize, took_s: f64) -> Row {
        let mut tally = Tally::new();
        for _ in 0..issued {
            tally.note_lag(Duration::from_micros(50));
            tally.note(Outcome::Ok, Duration::from_millis(12), true);
        }
        tally.shed = 100 - issued as u64;
        let usage = |cpu_s, rss_mib| Some(Usage { cpu_s, rss_mib });
        let elapsed = Duration::from_secs(4);
        let times = Times { window: Duration::from_secs(2), took: Duration::from_secs_f64(took_s), elapsed };
        let row = Row::new("80%".into(), 100, times, tally, (usage(1.0, 100.0), usage(3.0, 104.0)));
        Row { server_rss_most_mib: Some(107.0), ..row }
    }

    #[test]
    fn a_row_says_what_was_measured() {
        let row = row(100, 2.0);
        assert_eq!((row.intended_per_s, row.issued_per_s, row.goodput_per_s), (50.0, 50.0, 50.0));
        assert_eq!((row.server_cores, row.requests_per_core_s, row.off), (Some(0.5), Some(50.0), false));
        assert_eq!(row.p99_9_over_p50(), Some(1.0));
        let lines = lines(&[row]);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("goodput") && lines[1].contains("100 107 104"), "{lines:?}");
        assert!(!lines[1].contains("<-"), "{lines:?}");
    }

    #[test]
    fn a_rate_that_was_not_kept_is_marked() {
        assert!(!row(100, 2.019).off);
        assert!(row(100, 2.03).off, "too slow");
        let shed = row(99, 2.0);
        assert!(shed.off && lines(&[shed])[1].contains("1 shed"));
    }
}
