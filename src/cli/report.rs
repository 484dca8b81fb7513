//! What several subcommands say.

use serde::Serialize;

use crate::domain::Assessment;

/// A file that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refused {
    pub path: String,
    pub reason: String,
}

/// A quality measure that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedMeasure {
    pub measure: &'static str,
    /// 0 to 100.
    pub value: u8,
    pub least: u8,
    /// What to do.
    pub advice: &'static str,
}

/// The measures that were refused.
pub fn refusals(assessment: &Assessment) -> Vec<RefusedMeasure> {
    let refusal = |m: &crate::domain::Measure| RefusedMeasure {
        measure: m.name.as_str(),
        value: m.value,
        least: m.least,
        advice: m.advice,
    };
    assessment.refused().map(refusal).collect()
}

/// The same in words, on one line.
pub fn in_words(assessment: &Assessment) -> String {
    let word = |r: RefusedMeasure| format!("{} is {} of 100, expected {}: {}", r.measure, r.value, r.least, r.advice);
    if !assessment.face_found() {
        return "no face was found".into();
    }
    refusals(assessment).into_iter().map(word).collect::<Vec<_>>().join("; ")
}
