//! A line in one register of AVX-512.

#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use std::{
    arch::x86_64::{
        __m512, __m512i, _CMP_GT_OQ, _CMP_ORD_Q, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_set1_epi8,
        _mm_xor_si128, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_cmp_ps_mask,
        _mm512_cvtepi32_epi8, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32,
        _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_cvtps_ph, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_madd_epi16, _mm512_mask_mul_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps,
        _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srai_epi32,
        _mm512_storeu_ps, _mm512_sub_epi32,
    },
    mem::transmute,
};

use super::{LINE, half::MOST, lanes::Lanes};

/// Nothing outside of this folder can name it, and [`super::lanes`] chooses it for machines that have the instructions:
/// that is what makes the methods safe.
#[derive(Clone, Copy)]
pub struct Wide(__m512);

/// 0 where it is no number.
#[inline(always)]
fn number(v: __m512) -> __m512 {
    // SAFETY: as for all methods below.
    unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_ORD_Q>(v, v), v) }
}

/// Whole numbers, the least and the greatest where they are beyond; 0 where they are no number.
#[inline(always)]
fn to_whole(v: __m512, least: f32, most: f32) -> __m512i {
    // SAFETY: as for all methods below.
    unsafe { _mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(number(v), _mm512_set1_ps(least)), _mm512_set1_ps(most))) }
}

// SAFETY, for every method: the machine has the instructions, as said above; what is read and written has 16 elements.
impl Lanes for Wide {
    type Whole = __m512i;

    #[inline(always)]
    fn whole() -> Self::Whole {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn multiply_bytes(sums: Self::Whole, bytes: &[u8; LINE], weights: &[i32; LINE]) -> Self::Whole {
        unsafe {
            // As pairs of 16 bits, of which the upper is zero or a sign that is multiplied by zero.
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.as_ptr().cast()));
            _mm512_add_epi32(sums, _mm512_madd_epi16(bytes, _mm512_loadu_si512(weights.as_ptr().cast())))
        }
    }

    #[inline(always)]
    fn multiply_words(sums: Self::Whole, words: &[i16; LINE], weights: &[i32; LINE]) -> Self::Whole {
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(words.as_ptr().cast()));
            _mm512_add_epi32(sums, _mm512_madd_epi16(words, _mm512_loadu_si512(weights.as_ptr().cast())))
        }
    }

    #[inline(always)]
    fn load_whole(sums: &[i32; LINE]) -> Self::Whole {
        unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }
    }

    #[inline(always)]
    fn join(high: Self::Whole, low: Self::Whole) -> Self::Whole {
        unsafe { _mm512_add_epi32(_mm512_slli_epi32::<7>(high), low) }
    }

    #[inline(always)]
    fn add_whole(a: Self::Whole, b: Self::Whole) -> Self::Whole {
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn subtract_whole(a: Self::Whole, b: Self::Whole) -> Self::Whole {
        unsafe { _mm512_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn quarter(sums: Self::Whole) -> Self::Whole {
        unsafe { _mm512_srai_epi32::<2>(sums) }
    }

    #[inline(always)]
    fn of_whole(sums: Self::Whole, more: &[i32; LINE]) -> Self {
        Self(unsafe { _mm512_cvtepi32_ps(_mm512_add_epi32(sums, _mm512_loadu_si512(more.as_ptr().cast()))) })
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(values: &[f32; LINE]) -> Self {
        Self(unsafe { _mm512_loadu_ps(values.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, values: &mut [f32; LINE]) {
        unsafe { _mm512_storeu_ps(values.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn values(self) -> [f32; LINE] {
        let mut values = [0.0; LINE];
        self.store(&mut values);
        values
    }

    #[inline(always)]
    fn load_half(halves: &[u16; LINE]) -> Self {
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(halves.as_ptr().cast())) })
    }

    #[inline(always)]
    fn store_half(self, halves: &mut [u16; LINE]) {
        unsafe {
            let v = _mm512_max_ps(_mm512_min_ps(number(self.0), _mm512_set1_ps(MOST)), _mm512_set1_ps(-MOST));
            _mm256_storeu_si256(halves.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v));
        }
    }

    #[inline(always)]
    fn to_bytes(self) -> [u8; LINE] {
        unsafe { transmute(_mm512_cvtepi32_epi8(to_whole(self.0, 0.0, 255.0))) }
    }

    #[inline(always)]
    fn to_offset_bytes(self) -> [u8; LINE] {
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(to_whole(self.0, -128.0, 127.0));
            transmute(_mm_xor_si128(bytes, _mm_set1_epi8(i8::MIN)))
        }
    }

    #[inline(always)]
    fn to_words(self, least: i16, most: i16) -> [i16; LINE] {
        unsafe { transmute(_mm512_cvtepi32_epi16(to_whole(self.0, least.into(), most.into()))) }
    }

    #[inline(always)]
    fn fma(self, factor: Self, other: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, other.0) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn activate(self, slope: Self) -> Self {
        Self(unsafe {
            let positive = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, _mm512_setzero_ps());
            _mm512_mask_mul_ps(self.0, !positive, self.0, slope.0)
        })
    }
}
