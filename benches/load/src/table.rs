//! Figures of one window, and all of them as a table.

use std::time::Duration;

use serde::Serialize;

use crate::{
    flood::Flooded,
    tally::Tally,
    usage::{Snapshot, Used},
};

/// An issued rate that is further off the intended one is marked: the window shows the generator, not the server.
const MOST_OFF: f64 = 0.01;

/// How long a window was, and the time until its last request was sent.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub window: Duration,
    pub took: Duration,
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
    /// What a perfect server of the same peak would have made of the same arrivals; where it could keep up with them.
    pub ideal_p99_9_over_p50: Option<f64>,
    pub refusals_p99_ms: Option<f64>,
    /// How late the generator was to send.
    pub send_lag_p99_ms: Option<f64>,
    /// From the start until the last answer.
    #[serde(flatten)]
    pub used: Used,
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
        Times { window, took }: Times,
        tally: Tally,
        (before, after): (Snapshot, Snapshot),
    ) -> Self {
        let intended_per_s = scheduled as f64 / window.as_secs_f64();
        let issued_per_s = tally.issued() as f64 / took.as_secs_f64();
        let (used, answered) = (before.until(&after), tally.ok.count() + tally.refused.count());
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
            ideal_p99_9_over_p50: None,
            refusals_p99_ms: tally.refused.quantile_ms(0.99),
            send_lag_p99_ms: tally.lag.quantile_ms(0.99),
            used,
            requests_per_core_s: used.server_cpu_s.map(|cpu_s| answered as f64 / cpu_s.max(0.01)),
            flood: None,
            server_rss_before_mib: before.server.map(|usage| usage.rss_mib),
            server_rss_most_mib: None,
            server_rss_after_mib: after.server.map(|usage| usage.rss_mib),
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
        "{:>9} {:>8} {:>8} {:>8} {:>6} {:>7} {:>5} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7} {:>5} {:>5} {:>6} {:>15}",
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
        "others",
        "RSS MiB",
    );
    let line = |row: &Row| {
        let rss = match (row.server_rss_before_mib, row.server_rss_most_mib, row.server_rss_after_mib) {
            (Some(before), Some(most), Some(after)) => format!("{before:.0} {most:.0} {after:.0}"),
            _ => "-".into(),
        };
        let mut line = format!(
            "{:>9} {:>8.1} {:>8.1} {:>8.1} {:>6} {:>7} {:>5} {:>6} {:>7} {:>7} {:>7} {:>7} {:>7} {:>8} {:>7} {:>5} {:>5} {:>6} {:>15}",
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
            cores(row.used.server_cores),
            cores(row.used.generator_cores),
            cores(row.used.other_cores),
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
    use std::time::Instant;

    use super::*;
    use crate::tally::Outcome;

    fn row(issued: usize, took_s: f64) -> Row {
        let mut tally = Tally::new();
        for _ in 0..issued {
            tally.note_lag(Duration::from_micros(50));
            tally.note(Outcome::Ok, Duration::from_millis(12), true);
        }
        tally.shed = 100 - issued as u64;
        let (start, end) = (Instant::now(), Instant::now() + Duration::from_secs(4));
        let snapshots = (Snapshot::of_server(start, 1.0, 100.0), Snapshot::of_server(end, 3.0, 104.0));
        let times = Times { window: Duration::from_secs(2), took: Duration::from_secs_f64(took_s) };
        let row = Row::new("80%".into(), 100, times, tally, snapshots);
        Row { server_rss_most_mib: Some(107.0), ..row }
    }

    #[test]
    fn a_row_says_what_was_measured() {
        let row = row(100, 2.0);
        assert_eq!((row.intended_per_s, row.issued_per_s, row.goodput_per_s), (50.0, 50.0, 50.0));
        assert_eq!((row.requests_per_core_s, row.off), (Some(50.0), false));
        assert!(row.used.server_cores.is_some_and(|cores| (cores - 0.5).abs() < 0.01), "{:?}", row.used);
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
