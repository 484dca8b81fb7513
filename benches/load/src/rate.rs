//! A rate, as it is asked for.

use std::{fmt, str::FromStr};

/// Requests a second, or a share of the peak.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    PerSecond(f64),
    /// 1 is the peak itself.
    OfPeak(f64),
}

impl Rate {
    pub fn is_of_peak(self) -> bool {
        matches!(self, Self::OfPeak(_))
    }

    /// `peak` is requests a second; without one, a share of it is 0.
    pub fn per_s(self, peak: Option<f64>) -> f64 {
        match self {
            Self::PerSecond(rate) => rate,
            Self::OfPeak(share) => share * peak.unwrap_or_default(),
        }
    }
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, of_peak) = text.strip_suffix('%').map_or((text, false), |number| (number, true));
        let number: f64 = number.trim().parse().map_err(|_| "expected a number, such as 40, or 80%")?;
        if !(number.is_finite() && number > 0.0) {
            return Err("expected a number above 0");
        }
        Ok(if of_peak { Self::OfPeak(number / 100.0) } else { Self::PerSecond(number) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => write!(f, "{rate}"),
            Self::OfPeak(share) => write!(f, "{}%", share * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_or_a_share_of_the_peak() {
        assert_eq!("40".parse(), Ok(Rate::PerSecond(40.0)));
        let rate: Rate = "80%".parse().unwrap();
        assert_eq!((rate.per_s(Some(50.0)), rate.is_of_peak(), rate.to_string().as_str()), (40.0, true, "80%"));
        for bad in ["", "%", "-3", "0", "inf", "nan", "8 0"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad:?}");
        }
    }
}
