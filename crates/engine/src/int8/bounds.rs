//! How large sums and results can be, whatever the image: what is proved of a program before it runs.

use super::number::MOST_F16;
use crate::plan::{Action, Activation};

/// Sums are held in 32 bits with a sign.
const MOST_SUM: i64 = i32::MAX as i64;
/// The greatest magnitude of what a convolution may give: all that f32 holds, and a little less.
const MOST_RESULT: f64 = 3e38;
/// Then no binary16 stands for more than f32 holds.
const MOST_EXPONENT: u8 = 112;

/// The least exponent, from 0 on, in whose units binary16 holds all of this magnitude. What has no bound saturates: 0.
pub fn exponent(bound: f64) -> u8 {
    let (mut most, mut exponent) = (f64::from(MOST_F16), 0);
    while bound.is_finite() && bound > most && exponent < MOST_EXPONENT {
        most *= 2.0;
        exponent += 1;
    }
    exponent
}

/// What is not proved of a channel out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproved {
    /// That its sums fit.
    Sum { channel: usize },
    /// That its results are finite.
    Result { channel: usize },
}

/// The sums of a convolution.
pub struct Sums<'a> {
    /// The greatest magnitude of a code or a pixel.
    pub most: i64,
    /// Of each channel out.
    pub scale: &'a [f32],
    /// The same; of a stem that of its class with the largest.
    pub bias: &'a [f32],
    /// The greatest magnitude of it.
    pub residual: f64,
    pub activation: &'a Activation,
}

impl Sums<'_> {
    /// Proves that sums fit in 32 bits and that results are finite, for channels out whose weights' magnitudes have
    /// these sums. The greatest magnitude of a result.
    pub fn prove(&self, weights: impl Iterator<Item = i64>) -> Result<f64, Unproved> {
        let mut bound = 0.0f64;
        for (channel, (weights, (&scale, &bias))) in weights.zip(self.scale.iter().zip(self.bias)).enumerate() {
            let sum = weights.saturating_mul(self.most);
            if sum > MOST_SUM {
                return Err(Unproved::Sum { channel });
            }
            let before = sum as f64 * f64::from(scale) + f64::from(bias).abs() + self.residual;
            let result = before * slope(self.activation, Some(channel)).max(1.0);
            if result.is_nan() || result > MOST_RESULT {
                return Err(Unproved::Result { channel });
            }
            bound = bound.max(result);
        }
        Ok(bound)
    }
}

/// The magnitude of what negative values are multiplied by; without a channel the greatest.
fn slope(activation: &Activation, channel: Option<usize>) -> f64 {
    match activation {
        Activation::Identity => 1.0,
        Activation::Relu => 0.0,
        Activation::Leaky(slope) => f64::from(*slope).abs(),
        Activation::PRelu(slopes) => match channel {
            Some(channel) => slopes.get(channel).map_or(1.0, |&slope| f64::from(slope).abs()),
            None => slopes.iter().fold(0.0, |most, &slope| most.max(f64::from(slope).abs())),
        },
    }
}

/// The greatest magnitude of what an action without sums of codes gives, from those of its operands; infinite where
/// there is none.
pub fn of(action: &Action, x: f64, y: f64, channels: usize) -> f64 {
    let greatest = |values: &[f32]| values.iter().fold(0.0f64, |most, &v| most.max(f64::from(v).abs()));
    match action {
        Action::Affine { scale, shift } => greatest(scale) * x + greatest(shift),
        Action::Activate(activation) => x * slope(activation, None).max(1.0),
        Action::Add(activation) => (x + y) * slope(activation, None).max(1.0),
        Action::Clip { low, high } => greatest(&[*low, *high]),
        Action::Sigmoid => 1.0,
        Action::Sqrt => x.max(1.0),
        Action::Multiply => x * y,
        Action::SumChannels | Action::L2Norm => x * channels as f64,
        Action::RepeatChannel
        | Action::MaxPool { .. }
        | Action::AveragePool { .. }
        | Action::GlobalAveragePool
        | Action::Pad { .. }
        | Action::Flatten => x,
        Action::Reciprocal | Action::Divide | Action::Convolution(_) => f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_the_least_that_hold_everything() {
        let bounds = [0.0, 65504.0, 65504.1, 131_008.0, 3e38, f64::MAX, f64::INFINITY, f64::NAN];
        assert_eq!(bounds.map(exponent), [0, 0, 1, 1, 112, 112, 0, 0]);
    }

    #[test]
    fn slopes_above_one_count() {
        let action = Action::Activate(Activation::PRelu(vec![0.5, -3.0]));
        assert_eq!(of(&action, 2.0, 0.0, 2), 6.0);
        assert_eq!(of(&Action::Add(Activation::Relu), 2.0, 5.0, 2), 7.0);
        let affine = Action::Affine { scale: vec![-2.0, 1.0], shift: vec![0.0, 4.0] };
        assert_eq!(of(&affine, 3.0, 0.0, 2), 10.0);
    }
}
