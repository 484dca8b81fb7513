//! A flood of searches beside verifications at half of what the server can do: the customer at the counter must not notice.

use crate::{
    MACHINE,
    bench::{assert_sound, bench, number},
    set,
};

/// More than the lane of identifications holds.
const CALLERS: &str = "96";

/// So many rounds must show that verification does not notice.
const ROUNDS_THAT_TELL: u32 = 3;

/// `VULTUS_FLOOD_S` seconds with it, as many without, `VULTUS_FLOOD_ROUNDS` times in turn.
#[test]
fn a_flood_of_identifications_costs_verification_no_answer() {
    let _alone = MACHINE.blocking_lock();
    let (seconds, rounds) = (set("VULTUS_FLOOD_S", 4).to_string(), set("VULTUS_FLOOD_ROUNDS", 1));
    let rates = vec!["50%"; rounds as usize].join(",");
    let report = bench(&["--rate", &rates, "--seconds", &seconds, "--flood", CALLERS, "--references", "5000"]);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2 * rounds as usize);
    for (row, beside) in rows.iter().zip([false, true].into_iter().cycle()) {
        println!(
            "{:>8}: {:.1} verifications/s, p50 {:.1} ms, p99 {:.1} ms{}",
            row["name"].as_str().unwrap(),
            number(row, "issued_per_s"),
            number(row, "p50_ms"),
            number(row, "p99_ms"),
            if beside {
                format!(
                    ", beside {:.0} searches/s and {:.0} refused/s",
                    number(&row["flood"], "searched_per_s"),
                    number(&row["flood"], "refused_per_s")
                )
            } else {
                String::new()
            }
        );
        assert_sound(row);
        assert_eq!(row["refused"], 0, "the lane of verifications is not the flood's: {row}");
        if beside {
            assert!(row["flood"]["failed"] == 0 && number(&row["flood"], "searched_per_s") > 0.0, "{row}");
        }
    }
    let of = |flooded: usize| {
        let mut p99: Vec<f64> = rows.iter().skip(flooded).step_by(2).map(|row| number(row, "p99_ms")).collect();
        p99.sort_by(f64::total_cmp);
        p99[p99.len() / 2]
    };
    let moved = of(1) / of(0);
    println!("p99 with the flood over p99 without, medians of {rounds}: {moved:.3}");
    // A percentile of few calls in one round is chance.
    assert!(rounds < ROUNDS_THAT_TELL || moved <= 1.1, "the flood moved verification's p99: {moved:.3}");
}
