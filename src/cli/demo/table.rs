//! The story as a table that a person can read.

use super::story::Story;

/// In the order of a request's life.
const STAGES: [&str; 6] = ["decode", "align", "queue", "extract", "compare", "total"];

pub fn print(story: &Story, real_pairs: bool) {
    println!("\n{:<20} {:<28} {:<13} {:>7} {:>8}", "claimed subject", "probe", "decision", "score", "ms");
    for v in &story.verifications {
        let score = v.score.map_or_else(String::new, |score| format!("{score:.4}"));
        let odd = if v.mated == (v.decision == "MATCH") { "" } else { "  <- wrong" };
        println!("{:<20} {:<28} {:<13} {score:>7} {:>8.1}{odd}", v.subject, v.probe, v.decision, v.ms);
    }
    let Story { people, enrolled, mated, non_mated, no_duplicate, .. } = story;
    let changed = if real_pairs { "" } else { " (the same photo, changed)" };
    println!("\n{enrolled} of {people} people enrolled, {} refused for their image's quality", story.refused.len());
    println!("{} of {} mated probes{changed} matched", mated.right, mated.trials);
    println!("{} of {} non-mated probes were refused", non_mated.right, non_mated.trials);
    let alarms = no_duplicate.trials - no_duplicate.right;
    println!(
        "{} of {} searches after a match found no duplicate, as there was none; {alarms} false alarms are cases to review",
        no_duplicate.right, no_duplicate.trials
    );
    if let Some(d) = &story.duplicate {
        println!("{} came back as {}: {}", d.person, d.second_identity, d.outcome);
        println!("  case {}; the front end that asks for it is told {}", d.case_id, d.front_end_is_told);
        for (rank, (subject, score)) in (1..).zip(&d.candidates) {
            let score = score.map_or_else(String::new, |score| format!(", score {score:.4}"));
            println!("  the back office sees candidate {rank}: {subject}{score}");
        }
        if let Some(fnir) = story.expected_fnir {
            println!("  such a search is expected to miss {:.1} % of duplicates, says the card", 100.0 * fnir);
        }
        let (before, after) = d.open_cases;
        println!("  its verdict is recorded: same person; {before} open cases before, {after} after");
    }
    let stage = |name: &&str| format!("{name} {:.1}", *story.stage_p50_us.get(*name).unwrap_or(&0) as f64 / 1000.0);
    println!("medians of the stages, ms: {}", STAGES.iter().map(stage).collect::<Vec<_>>().join(", "));
}
