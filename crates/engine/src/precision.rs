//! What a network computes in.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the factors of products are rounded to; sums are f32, or exact. Templates of two classes are not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    F32,
    Bf16,
    Int8,
}

/// Another word than a precision's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected f32, bf16 or int8")]
pub struct NotAPrecision;

impl Precision {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl FromStr for Precision {
    type Err = NotAPrecision;

    fn from_str(word: &str) -> Result<Self, NotAPrecision> {
        [Self::F32, Self::Bf16, Self::Int8].into_iter().find(|p| p.as_str() == word).ok_or(NotAPrecision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_precisions() {
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            assert_eq!(precision.as_str().parse(), Ok(precision));
        }
        for bad in ["", "F32", "f16", "int8 "] {
            assert_eq!(bad.parse::<Precision>(), Err(NotAPrecision), "{bad}");
        }
    }
}
