//! A line in two registers of AVX2, with FMA and F16C.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::{
    arch::x86_64::{
        __m256, __m256i, _CMP_GT_OQ, _CMP_ORD_Q, _MM_FROUND_TO_NEAREST_INT, _mm_loadl_epi64, _mm_loadu_si128,
        _mm_packs_epi16, _mm_packus_epi16, _mm_set1_epi8, _mm_storeu_si128, _mm_xor_si128, _mm256_add_epi32,
        _mm256_add_ps, _mm256_and_ps, _mm256_blendv_ps, _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cvtepi32_ps,
        _mm256_cvtepu8_epi32, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_cvtps_ph,
        _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_packs_epi32, _mm256_permute4x64_epi64, _mm256_set1_ps,
        _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srai_epi32, _mm256_storeu_ps, _mm256_sub_epi32,
    },
    mem::transmute,
};

use super::{LINE, half::MOST, lanes::Lanes};

/// Nothing outside of this folder can name it, and [`super::lanes`] chooses it for machines that have the instructions:
/// that is what makes the methods safe.
#[derive(Clone, Copy)]
pub struct Pair(__m256, __m256);

#[inline(always)]
fn each(a: Pair, b: Pair, f: impl Fn(__m256, __m256) -> __m256) -> Pair {
    Pair(f(a.0, b.0), f(a.1, b.1))
}

/// 0 where it is no number.
#[inline(always)]
fn number(v: __m256) -> __m256 {
    // SAFETY: as for all methods below.
    unsafe { _mm256_and_ps(v, _mm256_cmp_ps::<_CMP_ORD_Q>(v, v)) }
}

/// Whole numbers of 16 bits, those of the least and the greatest where they are beyond; 0 where they are no number.
#[inline(always)]
fn to_words(Pair(a, b): Pair, least: f32, most: f32) -> __m256i {
    // SAFETY: as for all methods below.
    unsafe {
        let round = |v| {
            _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(number(v), _mm256_set1_ps(least)), _mm256_set1_ps(most)))
        };
        // Packing goes by halves of registers.
        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(round(a), round(b)))
    }
}

// SAFETY, for every method: the machine has the instructions, as said above; what is read and written has 16 elements.
impl Lanes for Pair {
    type Whole = [__m256i; 2];

    #[inline(always)]
    fn whole() -> Self::Whole {
        [unsafe { _mm256_setzero_si256() }; 2]
    }

    #[inline(always)]
    fn multiply_bytes([a, b]: Self::Whole, bytes: &[u8; LINE], weights: &[i32; LINE]) -> Self::Whole {
        unsafe {
            // As pairs of 16 bits, of which the upper is zero or a sign that is multiplied by zero.
            let product = |at: usize| {
                let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.as_ptr().add(at).cast()));
                _mm256_madd_epi16(bytes, _mm256_loadu_si256(weights.as_ptr().add(at).cast()))
            };
            [_mm256_add_epi32(a, product(0)), _mm256_add_epi32(b, product(8))]
        }
    }

    #[inline(always)]
    fn multiply_words([a, b]: Self::Whole, words: &[i16; LINE], weights: &[i32; LINE]) -> Self::Whole {
        unsafe {
            // As above: the upper half of a weight that fits a word is its sign, and meets a zero.
            let product = |at: usize| {
                let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(words.as_ptr().add(at).cast()));
                _mm256_madd_epi16(words, _mm256_loadu_si256(weights.as_ptr().add(at).cast()))
            };
            [_mm256_add_epi32(a, product(0)), _mm256_add_epi32(b, product(8))]
        }
    }

    #[inline(always)]
    fn load_whole(sums: &[i32; LINE]) -> Self::Whole {
        unsafe { [_mm256_loadu_si256(sums.as_ptr().cast()), _mm256_loadu_si256(sums.as_ptr().add(8).cast())] }
    }

    #[inline(always)]
    fn join(high: Self::Whole, low: Self::Whole) -> Self::Whole {
        let join = |high, low| unsafe { _mm256_add_epi32(_mm256_slli_epi32::<7>(high), low) };
        [join(high[0], low[0]), join(high[1], low[1])]
    }

    #[inline(always)]
    fn add_whole(a: Self::Whole, b: Self::Whole) -> Self::Whole {
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }

    #[inline(always)]
    fn subtract_whole(a: Self::Whole, b: Self::Whole) -> Self::Whole {
        unsafe { [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])] }
    }

    #[inline(always)]
    fn quarter(sums: Self::Whole) -> Self::Whole {
        unsafe { [_mm256_srai_epi32::<2>(sums[0]), _mm256_srai_epi32::<2>(sums[1])] }
    }

    #[inline(always)]
    fn of_whole(sums: Self::Whole, more: &[i32; LINE]) -> Self {
        let more = Self::load_whole(more);
        let float = |sums, more| unsafe { _mm256_cvtepi32_ps(_mm256_add_epi32(sums, more)) };
        Self(float(sums[0], more[0]), float(sums[1], more[1]))
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        let value = unsafe { _mm256_set1_ps(value) };
        Self(value, value)
    }

    #[inline(always)]
    fn load(values: &[f32; LINE]) -> Self {
        unsafe { Self(_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LINE]) {
        unsafe {
            _mm256_storeu_ps(values.as_mut_ptr(), self.0);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), self.1);
        }
    }

    #[inline(always)]
    fn values(self) -> [f32; LINE] {
        let mut values = [0.0; LINE];
        self.store(&mut values);
        values
    }

    #[inline(always)]
    fn load_half(halves: &[u16; LINE]) -> Self {
        let load = |at: usize| unsafe { _mm256_cvtph_ps(_mm_loadu_si128(halves.as_ptr().add(at).cast())) };
        Self(load(0), load(8))
    }

    #[inline(always)]
    fn store_half(self, halves: &mut [u16; LINE]) {
        unsafe {
            let half = |v| {
                let v = _mm256_max_ps(_mm256_min_ps(number(v), _mm256_set1_ps(MOST)), _mm256_set1_ps(-MOST));
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)
            };
            _mm_storeu_si128(halves.as_mut_ptr().cast(), half(self.0));
            _mm_storeu_si128(halves.as_mut_ptr().add(8).cast(), half(self.1));
        }
    }

    #[inline(always)]
    fn to_bytes(self) -> [u8; LINE] {
        let words = to_words(self, 0.0, 255.0);
        unsafe { transmute(_mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))) }
    }

    #[inline(always)]
    fn to_offset_bytes(self) -> [u8; LINE] {
        let words = to_words(self, -128.0, 127.0);
        unsafe {
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            transmute(_mm_xor_si128(bytes, _mm_set1_epi8(i8::MIN)))
        }
    }

    #[inline(always)]
    fn to_words(self, least: i16, most: i16) -> [i16; LINE] {
        unsafe { transmute(to_words(self, least.into(), most.into())) }
    }

    #[inline(always)]
    fn fma(self, factor: Self, other: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, other.0), _mm256_fmadd_ps(self.1, factor.1, other.1)) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each(self, other, |a, b| unsafe { _mm256_add_ps(a, b) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each(self, other, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        each(self, other, |a, b| unsafe { _mm256_max_ps(a, b) })
    }

    #[inline(always)]
    fn activate(self, slope: Self) -> Self {
        each(self, slope, |v, slope| unsafe {
            let positive = _mm256_cmp_ps::<_CMP_GT_OQ>(v, _mm256_set1_ps(0.0));
            _mm256_blendv_ps(_mm256_mul_ps(v, slope), v, positive)
        })
    }
}
