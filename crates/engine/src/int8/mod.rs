//! The integer network: one program whose results have the same bits on every machine, instruction set and number of
//! threads, in every batch and at every place of it. This is its specification; [`Program::run_oracle`] does what it
//! says and nothing else.
//!
//! # Numbers
//!
//! An operation gives a real number of f32, v, for each element; what is *stored* of it is said by [`How`]. All
//! arithmetic is IEEE 754, rounded half to even, with subnormal numbers; nothing is flushed to zero, contracted or
//! reassociated. `fma(a, b, c)` is rounded once. "f32 of" an integer is rounded half to even. Everything is in f32,
//! but for what says f64. Where the sign of a zero or what is no number could make a difference, this text says
//! which: results differ nowhere, not only where it matters.
//!
//! | form | what | stored of v |
//! | --- | --- | --- |
//! | [`Form::U8`] | codes 0 to 255 | `saturate(round(fma(v, scale, shift)))`, half to even; of no number 0 |
//! | [`Form::S8`] | codes -128 to 127 | the same |
//! | [`Form::F16`] | binary16, in units of 2^exponent | `v * 2^-exponent`, half to even, saturated; of no number +0 |
//! | [`Form::F32`] | | v |
//!
//! Scale and shift are the channel's. Binary16 has subnormals; beyond 65504 it saturates, infinities too. All
//! representations of a value are made of its v, never of another representation. So a batch norm before a
//! convolution is part of the scale and the shift of that convolution's codes, and code 0 of its padding is the 0
//! that the network pads with after the batch norm. A code c of an input with the step s stands for `c * s`; the zero
//! point is 0.
//!
//! Which representations there are: codes for each convolution that reads a value, in its own range; F16 for
//! residuals and for every other operation; F32 in place of F16 where an operation without weights reads a vector,
//! for lengths and their squares and inverses need the range; F32 for the output. Equal ones are shared. Operands of
//! F16 are widened and multiplied by `2^exponent`, exactly.
//!
//! # Operations
//!
//! Sums over integers are exact, in any order: [`Program::new`] proves that the magnitudes of no sum's terms add up
//! to 2^31 or more.
//!
//! - **Stem**: `sum` over the window and the three colours of `weight * (pixel - 128)`, where places outside of the
//!   image count 0; `v = fma(f32(sum), scale, bias)`, with the bias of the pixel's class; then the activation. The
//!   weights are of 15 bits.
//! - **Convolution**: `sum` of `weight * code`, outside of the image code 0; `v = fma(f32(sum), scale, bias)`; then
//!   `v = v + residual` where there is one; then the activation. It is proved that v is finite.
//! - **Normalise**: `(f32(pixel) - mean) * scale` (two roundings), channel by channel in the network's order of
//!   colours.
//! - **Affine**: `fma(x, scale, shift)`.
//! - **Activations**: Relu `v > 0 ? v : +0`; Leaky and PRelu `v > 0 ? v : v * slope`.
//! - **Clip**: `v = x < low ? low : x`, then `v > high ? high : v`.
//! - **Add** `a + b`, then the activation; **Multiply** `a * b`; **Divide** `a / b`; **Reciprocal** `1 / x`;
//!   **Sqrt**: IEEE, each rounded once.
//! - **Sigmoid**: `t = |x| > 87 ? 87 : |x|`; `e = exp(-t)` as below; `x < 0 ? e / (1 + e) : 1 / (1 + e)`. Within 2e-7
//!   of its size for x from -87 on.
//! - **exp** of y, -87 to 0: `n = round(y * 1.44269504)`, half to even; `r = fma(-n, 355/512, y)`, then `r =
//!   fma(-n, -2.1219444e-4, r)`; `p = 1.9875691e-4`, then `p = fma(p, r, k)` for each k of 1.3981999e-3,
//!   8.333452e-3, 4.1665796e-2, 0.16666665, 0.5 in turn; `q = fma(r * r, p, r) + 1`; the result is `q *
//!   2^n`, which is exact. Each constant is the f32 nearest to it.
//! - **SumChannels**: in f64, `s = 0`, then `s = s + x` for each channel in order; rounded to f32. **L2Norm**: the
//!   same of `x * x`, which is exact; of the sum the root in f64, rounded to f32.
//! - **MaxPool**: `m = -infinity`, then `m = x > m ? x : m` for each place of the window inside of the image, row by
//!   row.
//! - **AveragePool**: `s = +0`, then `s = s + x` for each place of the window, row by row; `s * (1 / f32(places))`
//!   (two roundings). A mean over the whole image is one of a window as large.
//! - **Pad**: x, and +0 around it and in added channels. **RepeatChannel**, **Flatten**: x; flattened in the order
//!   channel, row, column.
//!
//! An executor may do otherwise wherever the bits are the same: pool codes in place of values, say, as a maximum
//! commutes with what is monotonic.
//!
//! # Scales
//!
//! [`Program::new`] computes them in f64, by additions, multiplications, divisions, comparisons and roundings in one
//! order, without a function of a mathematical library, and rounds each once to f32. The plan before it folds in f32
//! by the same means. So one card gives one program everywhere.
//!
//! - A range without negative values gives U8 and the step `high / 255`; another S8 and `max(-low, high) / 127`. What
//!   lies outside of the range saturates. A range of zeros counts as one to 1e-30.
//! - Codes: `scale = 1 / step`, `shift = 0`; with a batch norm first, `scale / step` and `shift / step` of it.
//! - The exponent of an F16 is the least from 0 to 112 for which 65504 units are no less than the value's bound; of
//!   what has no bound it is 0. Bounds hold whatever the image: of a convolution the largest of a channel's
//!   `sum of |weight|` times the greatest code times the scale, plus `|bias|`, plus the bound of the residual, all
//!   times the greater of 1 and `|slope|`; and so on for the others; a quotient has none. So shortcuts' sums do not
//!   saturate however many blocks they have. Bounds are far above what images give, but binary16 has 29 binary places.
//! - A filter (the weights of one channel out) has the step `max |w| / 127` and codes rounded half to even; then
//!   those that are nearest to a half go the other way until the filter's sum is right. `Convolution::scale` is the
//!   product of both steps.
//! - A stem's filter is multiplied by the scales of normalisation and batch norm first; its step is `max |w| /
//!   16383`. What is not multiplied by a pixel is in the bias, for each class of pixels by how much of the window
//!   lies inside: the shift of each colour, rounded to f32, times the sum of its weights, and all of that added in
//!   f64.

pub mod program;
pub mod number;
mod quantise;
mod bounds;
mod lower;
mod memory;
mod oracle;
#[cfg(test)]
pub(crate) mod drawn_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use lower::LowerError;
pub use memory::Arena;
pub use program::{Convolution, Emit, Form, How, Op, Program, Stem, Step, Tensor, TensorId};

/// Names this specification. A program of another version may give other bits, and templates of two are not compared.
pub const VERSION: &str = "1";
