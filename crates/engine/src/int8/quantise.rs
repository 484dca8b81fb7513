//! Scales and codes of weights and of ranges. In f64, in the order written, by additions, multiplications, divisions
//! and roundings alone; rounded once where the program holds f32. So one card gives one program on every machine.

use super::program::Form;
use crate::plan::{ActivationRange, Prologue};

/// What is smaller than this is none: its step would have no inverse in f32.
const LEAST: f64 = 1e-30;
/// The greatest code of a weight, and of a stem's.
const MOST: f64 = 127.0;
const MOST_OF_STEM: f64 = 16383.0;

/// How a convolution's input is coded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Codes {
    pub form: Form,
    /// The value that a code of 1 stands for.
    pub step: f64,
    /// The greatest magnitude of a code.
    pub most: i64,
}

impl Codes {
    pub fn new(range: &ActivationRange) -> Self {
        let (low, high) = (f64::from(range.low), f64::from(range.high));
        if low >= 0.0 {
            return Self { form: Form::U8, step: high.max(LEAST) / 255.0, most: 255 };
        }
        Self { form: Form::S8, step: high.max(-low).max(LEAST) / 127.0, most: 128 }
    }

    /// What makes codes of each channel's values before the prologue: scale and shift.
    pub fn of(self, prologue: Option<&Prologue>, channels: usize) -> (Vec<f32>, Vec<f32>) {
        let steps = |v: f64| (v / self.step) as f32;
        match prologue {
            None => (vec![steps(1.0); channels], vec![0.0; channels]),
            Some(Prologue { scale, shift, .. }) => {
                let of = |values: &[f32]| values.iter().map(|&v| steps(f64::from(v))).collect();
                (of(scale), of(shift))
            }
        }
    }
}

/// A filter as codes, and their step. They are rounded half to even, then those nearest to a half the other way until
/// their sum is right: inputs are rarely 0 in the mean, and what rounding adds to all of them is no noise but an
/// offset.
pub fn filter_of(filter: &[f32]) -> (Vec<i8>, f64) {
    let step = filter.iter().fold(LEAST, |most, &w| most.max(f64::from(w).abs())) / MOST;
    let exact: Vec<f64> = filter.iter().map(|&w| f64::from(w) / step).collect();
    let mut codes: Vec<f64> = exact.iter().map(|w| w.round_ties_even()).collect();
    // By how much each is too large; those that may become smaller or larger first, of equal ones the earlier.
    let errors: Vec<f64> = codes.iter().zip(&exact).map(|(code, w)| code - w).collect();
    let sum: f64 = errors.iter().sum();
    let mut order: Vec<usize> = (0..errors.len()).collect();
    order.sort_by(|&a, &b| (errors[b] * sum.signum()).total_cmp(&(errors[a] * sum.signum())));
    for &at in order.iter().take((sum.abs() - 0.5).ceil() as usize) {
        codes[at] = (codes[at] - sum.signum()).clamp(-MOST, MOST);
    }
    (codes.iter().map(|&code| code as i8).collect(), step)
}

/// A stem's filter as codes, and their step: rounded half to even.
pub fn stem_filter_of(filter: &[f64]) -> (Vec<i16>, f64) {
    let step = filter.iter().fold(LEAST, |most, w| most.max(w.abs())) / MOST_OF_STEM;
    (filter.iter().map(|w| (w / step).round_ties_even() as i16).collect(), step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(low: f32, high: f32) -> ActivationRange {
        ActivationRange { value: 3, low, high }
    }

    #[test]
    fn a_range_without_negative_values_has_no_sign() {
        assert_eq!(Codes::new(&range(0.0, 510.0)), Codes { form: Form::U8, step: 2.0, most: 255 });
        assert_eq!(Codes::new(&range(-0.0, 510.0)).form, Form::U8);
        assert_eq!(Codes::new(&range(-1.0, 254.0)), Codes { form: Form::S8, step: 2.0, most: 128 });
        assert_eq!(Codes::new(&range(-254.0, 1.0)), Codes { form: Form::S8, step: 2.0, most: 128 });
        assert_eq!(Codes::new(&range(-f32::MIN_POSITIVE, 0.0)).form, Form::S8);
        for nothing in [range(0.0, 0.0), range(0.0, 1e-40), range(-1e-40, 0.0)] {
            let (scale, shift) = Codes::new(&nothing).of(None, 2);
            assert!(scale.iter().all(|v| v.is_finite()) && shift == [0.0; 2], "{nothing:?}");
        }
    }

    #[test]
    fn a_prologue_is_part_of_the_scale() {
        let prologue = Prologue { value: 3, scale: vec![4.0, -1.0], shift: vec![1.0, 0.0] };
        let (scale, shift) = Codes::new(&range(0.0, 510.0)).of(Some(&prologue), 2);
        assert_eq!((scale, shift), (vec![2.0, -0.5], vec![0.5, 0.0]));
    }

    #[test]
    fn ties_go_to_even_and_sums_stay() {
        // Steps of 1: 127 says so.
        assert_eq!(filter_of(&[127.0, 0.5, 1.5, -0.5, -1.5]), (vec![127, 0, 2, 0, -2], 1.0));
        // Four halves: each alone goes to 0, two of them are needed.
        assert_eq!(filter_of(&[127.0, 0.5, 0.5, 0.5, 0.5]).0, [127, 1, 1, 0, 0]);
        assert_eq!(filter_of(&[0.0, 0.0]).0, [0, 0]);
        assert_eq!(stem_filter_of(&[-16383.0, 0.5, 1.5, 2.4]), (vec![-16383, 0, 2, 2], 1.0));
    }

    proptest! {
        #[test]
        fn filters_are_near_their_weights_and_their_sums_nearer(
            filter in proptest::collection::vec(-1.0f32..1.0, 1..300),
        ) {
            let (codes, step) = filter_of(&filter);
            prop_assert!(codes.iter().all(|code| *code >= -127));
            let apart = |(code, w): (&i8, &f32)| f64::from(*code) - f64::from(*w) / step;
            prop_assert!(codes.iter().zip(&filter).all(|pair| apart(pair).abs() <= 1.0 + 1e-9));
            let sum: f64 = codes.iter().zip(&filter).map(apart).sum();
            prop_assert!(sum.abs() <= 0.5 + 1e-6, "{sum}");
        }
    }
}
