//! Thresholds are error rates: a table from measured rates to scores, with the trials behind each.

use std::sync::Arc;

use super::Threshold;

/// Not a rate.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a rate is above 0 and at most 1")]
pub struct RateError;

macro_rules! rate {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
        pub struct $name(f64);

        impl $name {
            /// The laxest of all.
            pub const ONE: Self = Self(1.0);

            /// 0 < rate <= 1.
            pub fn new(rate: f64) -> Result<Self, RateError> {
                if rate > 0.0 && rate <= 1.0 { Ok(Self(rate)) } else { Err(RateError) }
            }

            pub fn value(self) -> f64 {
                self.0
            }
        }
    };
}

rate!(
    /// False match rate of 1:1 comparisons.
    Fmr
);
rate!(
    /// False positive identification rate of 1:N searches.
    Fpir
);
rate!(
    /// False negative identification rate of 1:N searches.
    Fnir
);

/// One line of the table: at this threshold, this share of non-mated comparisons would match.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationPoint {
    pub fmr: Fmr,
    pub threshold: Threshold,
    /// Non-mated comparisons behind the figure; 0 marks an extrapolation of the card's tail model.
    pub trials: u64,
    /// Share of mated comparisons below the threshold; `None` where nobody has measured it.
    pub fnmr: Option<f64>,
}

/// In the place of an FNMR that nobody measured.
const UNKNOWN: f64 = f64::INFINITY;

/// Why points are not a table.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrationError {
    #[error(
        "there is no calibration in this precision: expected a table of one point or more, as `vultus evaluate` measures them in it"
    )]
    Empty,
    #[error("calibration points go by falling FMR and rising threshold; point {index} does not")]
    Order { index: usize },
    #[error(
        "a stricter threshold misses no fewer mates: the FNMR of point {index} is below that of the one before, or no rate, or stands behind \
         a point without one"
    )]
    Fnmr { index: usize },
    #[error("no threshold is known for a false match rate of {asked:e}; the table's least is {least:e}")]
    BeyondTable { asked: f64, least: f64 },
    #[error(
        "at the threshold that this rate asks for the model misses {} of the duplicates, and {allowed} at most is allowed",
        expected.map_or_else(|| "an unknown share".to_owned(), |fnir| fnir.to_string())
    )]
    Misses { expected: Option<f64>, allowed: f64 },
}

/// Thresholds by error rate, of one model bundle.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    points: Vec<CalibrationPoint>,
}

impl Calibration {
    /// `points` by falling FMR. Those of which nobody measured the FNMR are the strictest.
    pub fn new(points: Vec<CalibrationPoint>) -> Result<Self, CalibrationError> {
        if points.is_empty() {
            return Err(CalibrationError::Empty);
        }
        let ordered = |pair: &[CalibrationPoint]| {
            pair[0].fmr > pair[1].fmr && pair[0].threshold.value() <= pair[1].threshold.value()
        };
        if let Some(index) = points.windows(2).position(|pair| !ordered(pair)) {
            return Err(CalibrationError::Order { index: index + 1 });
        }
        // Without one: more is missed than anybody has counted.
        let mut missed = 0.0;
        for (index, point) in points.iter().enumerate() {
            let is_rate = point.fnmr.is_none_or(|fnmr| (0.0..=1.0).contains(&fnmr));
            let fnmr = point.fnmr.unwrap_or(UNKNOWN);
            if !is_rate || fnmr < missed {
                return Err(CalibrationError::Fnmr { index });
            }
            missed = fnmr;
        }
        Ok(Self { points })
    }

    /// Of a model that nobody has measured: no rate has a threshold.
    pub fn unmeasured() -> Self {
        Self { points: vec![] }
    }

    pub fn points(&self) -> &[CalibrationPoint] {
        &self.points
    }

    /// The laxest point of the table that keeps the rate: that of the greatest tabled FMR <= `max`. Never
    /// interpolates towards laxer ones.
    ///
    /// # Errors
    /// [`CalibrationError::BeyondTable`] when the table does not reach so low: a weaker promise is the caller's choice;
    /// [`CalibrationError::Empty`] when nobody has measured one.
    pub fn at_fmr(&self, max: Fmr, tail: Tail) -> Result<CalibrationPoint, CalibrationError> {
        if self.points.is_empty() {
            return Err(CalibrationError::Empty);
        }
        let known = || self.points.iter().filter(|p| p.trials > 0 || tail == Tail::Extrapolated);
        known().find(|p| p.fmr <= max).copied().ok_or_else(|| {
            let least = known().next_back().map_or(1.0, |p| p.fmr.value());
            CalibrationError::BeyondTable { asked: max.value(), least }
        })
    }

    /// For a search of `size` references: `FPIR = 1 - (1 - FMR)^size`, solved for the FMR that one comparison may have.
    ///
    /// # Errors
    /// As [`Self::at_fmr`].
    pub fn at_fpir(&self, max: Fpir, size: u64, tail: Tail) -> Result<CalibrationPoint, CalibrationError> {
        // ln_1p and exp_m1 keep the digits of rates far below f64's epsilon around 1.
        let fmr = if max.value() < 1.0 { -((-max.value()).ln_1p() / size.max(1) as f64).exp_m1() } else { 1.0 };
        self.at_fmr(Fmr(fmr), tail)
    }
}

/// The rates that a search must keep, and the table that says how.
#[derive(Debug, Clone)]
pub struct SearchRates {
    pub calibration: Arc<Calibration>,
    pub max_fpir: Fpir,
    /// A search that would miss more duplicates than this is no answer.
    pub max_fnir: Fnir,
    pub tail: Tail,
}

impl SearchRates {
    /// Where a search of `size` references decides. Its FNIR is the point's FNMR: a duplicate is one reference that must reach the
    /// threshold.
    ///
    /// # Errors
    /// As [`Calibration::at_fpir`]; [`CalibrationError::Misses`] where the point's FNMR passes `max_fnir`, or is not known.
    pub fn at(&self, size: u64) -> Result<CalibrationPoint, CalibrationError> {
        let point = self.calibration.at_fpir(self.max_fpir, size, self.tail)?;
        let allowed = self.max_fnir.value();
        if point.fnmr.unwrap_or(1.0) > allowed {
            return Err(CalibrationError::Misses { expected: point.fnmr, allowed });
        }
        Ok(point)
    }

    /// The most references that can be searched at these rates; `None` if not even one can, `u64::MAX` if there is no limit.
    pub fn greatest_size(&self) -> Option<u64> {
        let reached = |size| self.at(size).is_ok();
        if !reached(1) {
            return None;
        }
        if reached(u64::MAX) {
            return Some(u64::MAX);
        }
        // With the size the threshold rises, and what it misses: what is reached stays below what is not.
        let (mut below, mut above) = (1, u64::MAX);
        while above - below > 1 {
            let middle = below + (above - below) / 2;
            if reached(middle) { below = middle } else { above = middle }
        }
        Some(below)
    }
}

/// Whether thresholds beyond the measured part of a table may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tail {
    /// Only thresholds with trials behind them.
    #[default]
    Measured,
    /// Also those of the card's tail model, which nothing was counted for.
    Extrapolated,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Score;

    fn table() -> Calibration {
        let point = |fmr, threshold, trials, fnmr| CalibrationPoint {
            fmr: Fmr::new(fmr).unwrap(),
            threshold: Threshold::new(Score::new(threshold).unwrap()),
            trials,
            fnmr,
        };
        let points = vec![point(0.1, 0.6, 700, Some(0.0)), point(0.01, 0.7, 700, Some(0.1)), point(1e-6, 0.9, 0, None)];
        Calibration::new(points).unwrap()
    }

    fn rates(calibration: Calibration, max_fpir: f64, max_fnir: f64, tail: Tail) -> SearchRates {
        let (max_fpir, max_fnir) = (Fpir::new(max_fpir).unwrap(), Fnir::new(max_fnir).unwrap());
        SearchRates { calibration: Arc::new(calibration), max_fpir, max_fnir, tail }
    }

    #[test]
    fn what_nobody_measured_has_no_threshold() {
        let none = Calibration::unmeasured();
        assert_eq!(none.at_fmr(Fmr::ONE, Tail::Extrapolated), Err(CalibrationError::Empty));
        assert_eq!(rates(none, 1.0, 1.0, Tail::Extrapolated).greatest_size(), None);
    }

    #[test]
    fn a_rate_gets_the_laxest_threshold_that_keeps_it() {
        let at = |fmr, tail| table().at_fmr(Fmr::new(fmr).unwrap(), tail).map(|p| p.threshold.value());
        assert_eq!(at(1.0, Tail::Measured), Ok(0.6));
        assert_eq!(at(0.1, Tail::Measured), Ok(0.6));
        assert_eq!(at(0.09, Tail::Measured), Ok(0.7));
        assert_eq!(at(0.001, Tail::Extrapolated), Ok(0.9));
        assert!(matches!(at(0.001, Tail::Measured), Err(CalibrationError::BeyondTable { least: 0.01, .. })));
        assert!(at(1e-7, Tail::Extrapolated).is_err());
    }

    #[test]
    fn a_growing_gallery_needs_a_higher_threshold() {
        let at = |size| table().at_fpir(Fpir::new(0.1).unwrap(), size, Tail::Measured).map(|p| p.threshold.value());
        assert_eq!(at(0), Ok(0.6));
        assert_eq!(at(1), Ok(0.6));
        assert_eq!(at(2), Ok(0.7));
        assert_eq!(at(10), Ok(0.7));
        assert!(at(11).is_err());
        assert!(at(u64::MAX).is_err());
    }

    #[test]
    fn the_greatest_gallery_is_the_last_that_has_a_threshold() {
        let greatest = |fpir, tail| rates(table(), fpir, 1.0, tail).greatest_size();
        assert_eq!(greatest(0.1, Tail::Measured), Some(10));
        assert_eq!(greatest(0.001, Tail::Measured), None);
        assert_eq!(greatest(1.0, Tail::Measured), Some(u64::MAX));
        let most = greatest(0.1, Tail::Extrapolated).unwrap();
        assert!((105_360..105_361).contains(&most), "{most}");
        assert!(rates(table(), 0.1, 1.0, Tail::Extrapolated).at(most).is_ok());
        assert!(rates(table(), 0.1, 1.0, Tail::Extrapolated).at(most + 1).is_err());
    }

    #[test]
    fn a_search_that_would_miss_too_many_is_refused() {
        let rates = |max_fnir| rates(table(), 0.1, max_fnir, Tail::Extrapolated);
        let misses = |expected, allowed| Err(CalibrationError::Misses { expected, allowed });
        assert_eq!(rates(0.1).at(10).map(|p| p.fnmr), Ok(Some(0.1)));
        assert_eq!(rates(0.05).at(10), misses(Some(0.1), 0.05));
        assert_eq!((rates(0.05).greatest_size(), rates(0.1).greatest_size()), (Some(1), Some(10)));
        // What nobody has measured may be anything.
        assert_eq!(rates(0.99).at(11), misses(None, 0.99));
        assert!(rates(1.0).at(11).is_ok());
    }

    #[test]
    fn a_stricter_threshold_misses_no_fewer() {
        let mut points = table().points().to_vec();
        points[0].fnmr = Some(0.2);
        assert_eq!(Calibration::new(points.clone()), Err(CalibrationError::Fnmr { index: 1 }));
        points[0].fnmr = None;
        assert_eq!(Calibration::new(points.clone()), Err(CalibrationError::Fnmr { index: 1 }), "a gap");
        points[0].fnmr = Some(f64::NAN);
        assert_eq!(Calibration::new(points), Err(CalibrationError::Fnmr { index: 0 }));
    }

    #[test]
    fn a_table_falls_in_rate_and_rises_in_threshold() {
        let mut points = table().points().to_vec();
        points.swap(0, 1);
        assert_eq!(Calibration::new(points), Err(CalibrationError::Order { index: 1 }));
        assert_eq!(Calibration::new(vec![]), Err(CalibrationError::Empty));
    }

    #[test]
    fn rates_are_rates() {
        for bad in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Fmr::new(bad).is_err());
        }
    }
}
