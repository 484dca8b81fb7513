//! What happened since the store was made: counts that outlive receipts and cases, and the false positive rate of the field.

use crate::{domain::Verdict, telemetry::Metrics};

/// Counts, of all galleries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Searches with an outcome.
    pub searches: u64,
    /// Of them, those that opened a case.
    pub cases: u64,
    /// Cases whose verdict is so at present.
    pub same_person: u64,
    pub other_person: u64,
    pub unclear: u64,
}

impl Tally {
    /// The share of searches that named a person who was not it, as far as reviewers have judged: the share of cases among searches, times
    /// the share of false ones among those that were decided. `None` before both are known.
    pub fn false_positive_rate(&self) -> Option<f64> {
        let decided = self.same_person + self.other_person;
        if self.searches == 0 || decided == 0 {
            return None;
        }
        Some(self.cases as f64 / self.searches as f64 * self.other_person as f64 / decided as f64)
    }

    /// Into the metrics.
    pub(super) fn show(&self) {
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let metrics = Metrics::get();
        for (verdict, count) in Verdict::ALL.into_iter().zip([self.same_person, self.other_person, self.unclear]) {
            metrics.case_verdicts.with_label_values(&[verdict.as_str()]).set(gauge(count));
        }
        metrics.field_searches.set(gauge(self.searches));
        metrics.field_cases.set(gauge(self.cases));
        metrics.field_false_positive_rate.set(self.false_positive_rate().unwrap_or(f64::NAN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_rate_counts_what_reviewers_found_false() {
        let tally = Tally { searches: 1000, cases: 20, same_person: 6, other_person: 2, unclear: 1 };
        // 20 of 1000 searches opened a case, and of the eight decided ones two were false.
        assert_eq!(tally.false_positive_rate(), Some(0.02 * 0.25));
        assert_eq!(Tally { searches: 1000, cases: 20, ..Tally::default() }.false_positive_rate(), None);
        assert_eq!(Tally::default().false_positive_rate(), None);
    }
}
