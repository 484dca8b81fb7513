//! What several subcommands say.

use std::fmt;

use serde::Serialize;

use crate::domain::Assessment;

/// A file that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refused {
    pub path: String,
    pub reason: String,
}

/// For a terminal: what a file is named may hold anything.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", printable(&self.path), printable(&self.reason))
    }
}

/// `text` without what makes a terminal do or hide things: control characters, and those that turn the direction of writing, are
/// written as their numbers.
pub fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || turns(c) {
            printable.extend(c.escape_unicode());
        } else {
            printable.push(c);
        }
    }
    printable
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_makes_a_terminal_do_nothing() {
        let refused = Refused { path: "a\u{1b}[2J\n\u{202e}gnp.png".into(), reason: "no\rface \u{9b}31m é".into() };
        assert_eq!(refused.to_string(), "a\\u{1b}[2J\\u{a}\\u{202e}gnp.png: no\\u{d}face \\u{9b}31m é");
    }
}
