//! Arithmetic on the 16 values of a line, for passes that are written once for every instruction set. All of it has the
//! same bits everywhere.

use super::{
    LINE,
    half::{from_half, to_half},
};

/// 16 values. Only `Level::run_lanes` chooses a type, one that the machine has the instructions for.
pub trait Lanes: Copy {
    /// 16 whole numbers of 32 bits.
    type Whole: Copy;

    /// Zeros.
    fn whole() -> Self::Whole;
    /// `sums + bytes * weights`; a weight is one of a byte.
    fn multiply_bytes(sums: Self::Whole, bytes: &[u8; LINE], weights: &[i32; LINE]) -> Self::Whole;
    /// `sums + words * weights`; a weight is one of a word.
    fn multiply_words(sums: Self::Whole, words: &[i16; LINE], weights: &[i32; LINE]) -> Self::Whole;
    fn load_whole(sums: &[i32; LINE]) -> Self::Whole;
    /// `high * 128 + low`.
    fn join(high: Self::Whole, low: Self::Whole) -> Self::Whole;
    fn add_whole(a: Self::Whole, b: Self::Whole) -> Self::Whole;
    fn subtract_whole(a: Self::Whole, b: Self::Whole) -> Self::Whole;
    /// `sums / 4`, of multiples of 4.
    fn quarter(sums: Self::Whole) -> Self::Whole;
    /// Rounded, after `more` was added.
    fn of_whole(sums: Self::Whole, more: &[i32; LINE]) -> Self;

    fn splat(value: f32) -> Self;
    fn load(values: &[f32; LINE]) -> Self;
    fn store(self, values: &mut [f32; LINE]);
    fn values(self) -> [f32; LINE];
    fn load_half(halves: &[u16; LINE]) -> Self;
    /// Rounded half to even, saturated.
    fn store_half(self, halves: &mut [u16; LINE]);
    /// Rounded half to even, saturated at 0 and 255.
    fn to_bytes(self) -> [u8; LINE];
    /// Rounded half to even, saturated at -128 and 127, plus 128.
    fn to_offset_bytes(self) -> [u8; LINE];
    /// Rounded half to even, saturated.
    fn to_words(self, least: i16, most: i16) -> [i16; LINE];
    /// `self * factor + other`, rounded once.
    fn fma(self, factor: Self, other: Self) -> Self;
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self` where it is greater, `other` elsewhere.
    fn max(self, other: Self) -> Self;
    /// Where it is not greater than 0, times the slope.
    fn activate(self, slope: Self) -> Self;
}

/// A pass over lines; `Level::run_lanes` compiles it for each instruction set. `run` and all it calls must be
/// inlined.
pub trait Pass {
    fn run<L: Lanes>(self);
}

impl Lanes for [f32; LINE] {
    type Whole = [i32; LINE];

    #[inline(always)]
    fn whole() -> Self::Whole {
        [0; LINE]
    }

    #[inline(always)]
    fn multiply_bytes(sums: Self::Whole, bytes: &[u8; LINE], weights: &[i32; LINE]) -> Self::Whole {
        std::array::from_fn(|i| sums[i] + i32::from(bytes[i]) * weights[i])
    }

    #[inline(always)]
    fn multiply_words(sums: Self::Whole, words: &[i16; LINE], weights: &[i32; LINE]) -> Self::Whole {
        std::array::from_fn(|i| sums[i] + i32::from(words[i]) * weights[i])
    }

    #[inline(always)]
    fn load_whole(sums: &[i32; LINE]) -> Self::Whole {
        *sums
    }

    #[inline(always)]
    fn join(high: Self::Whole, low: Self::Whole) -> Self::Whole {
        std::array::from_fn(|i| (high[i] << 7).wrapping_add(low[i]))
    }

    #[inline(always)]
    fn add_whole(a: Self::Whole, b: Self::Whole) -> Self::Whole {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn subtract_whole(a: Self::Whole, b: Self::Whole) -> Self::Whole {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn quarter(sums: Self::Whole) -> Self::Whole {
        sums.map(|sum| sum >> 2)
    }

    #[inline(always)]
    fn of_whole(sums: Self::Whole, more: &[i32; LINE]) -> Self {
        std::array::from_fn(|i| sums[i].wrapping_add(more[i]) as f32)
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LINE]
    }

    #[inline(always)]
    fn load(values: &[f32; LINE]) -> Self {
        *values
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LINE]) {
        *values = self;
    }

    #[inline(always)]
    fn values(self) -> [f32; LINE] {
        self
    }

    #[inline(always)]
    fn load_half(halves: &[u16; LINE]) -> Self {
        halves.map(from_half)
    }

    #[inline(always)]
    fn store_half(self, halves: &mut [u16; LINE]) {
        *halves = self.map(to_half);
    }

    #[inline(always)]
    fn to_bytes(self) -> [u8; LINE] {
        self.map(|v| v.round_ties_even() as u8)
    }

    #[inline(always)]
    fn to_offset_bytes(self) -> [u8; LINE] {
        self.map(|v| (v.round_ties_even() as i8).cast_unsigned() ^ 0x80)
    }

    #[inline(always)]
    fn to_words(self, least: i16, most: i16) -> [i16; LINE] {
        self.map(|v| (v.round_ties_even() as i16).clamp(least, most))
    }

    #[inline(always)]
    fn fma(self, factor: Self, other: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(factor[i], other[i]))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if self[i] > other[i] { self[i] } else { other[i] })
    }

    #[inline(always)]
    fn activate(self, slope: Self) -> Self {
        std::array::from_fn(|i| if self[i] > 0.0 { self[i] } else { self[i] * slope[i] })
    }
}
