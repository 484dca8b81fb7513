//! Ten times more than the server can do: it does what it can, and refuses the rest at once.

use crate::{
    MACHINE,
    bench::{assert_sound, bench, number},
    set,
};

/// Each request's, milliseconds.
const DEADLINE_MS: f64 = 10_000.0;

/// Of a window so long figures are to be reached; a short one on a busy machine says less.
const LONG_S: u32 = 60;

/// `VULTUS_OVERLOAD_S` seconds of it.
#[test]
fn an_overload_is_refused_and_costs_no_answer() {
    let _alone = MACHINE.blocking_lock();
    let seconds = set("VULTUS_OVERLOAD_S", 6);
    let is_long = seconds >= LONG_S;
    // The first window fills the server's memory, the second must not add to it. A generator that offers ten times the peak takes a
    // tenth of two cores, which are then not the server's: it gets cores of its own where there are some.
    let apart =
        if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) { &["--apart"][..] } else { &[] };
    let report = bench(&[&["--rate", "1000%,1000%", "--seconds", &seconds.to_string()], apart].concat());
    let peak = number(&report["peak"], "answers_per_s");
    for row in report["rows"].as_array().unwrap() {
        println!(
            "{:.0}/s for {seconds} s at a peak of {peak:.1}/s: goodput {:.1}/s ({:.3} of the peak), accepted p99 {:.0} ms, {} late, \
             {} refused, p99 {:.1} ms, memory {:.0} MiB before, {:.0} at most, cores: server {:.2}, generator {:.2}",
            number(row, "issued_per_s"),
            number(row, "goodput_per_s"),
            number(row, "goodput_per_s") / peak,
            number(row, "p99_ms"),
            row["late"],
            row["refused"],
            number(row, "refusals_p99_ms"),
            number(row, "server_rss_before_mib"),
            number(row, "server_rss_most_mib"),
            number(row, "server_cores"),
            number(row, "generator_cores"),
        );
        assert_sound(row);
        assert!(number(row, "refused") > number(row, "ok"), "{row}");
        assert!(number(row, "p99_ms") <= DEADLINE_MS, "{row}");
        // So that the 99th percentile of all that was let in keeps its deadline, and not of the answered alone.
        assert!(number(row, "late") <= 0.01 * number(row, "ok"), "{row}");
        if is_long {
            assert!(number(row, "goodput_per_s") >= 0.9 * peak, "{row}");
            assert!(number(row, "refusals_p99_ms") <= 5.0, "{row}");
        }
    }
    let most = |row: usize| number(&report["rows"][row], "server_rss_most_mib");
    let growth = if is_long { 1.05 } else { 1.25 };
    assert!(most(1) <= growth * most(0), "memory grows with time: {} MiB, then {} MiB", most(0), most(1));
}
