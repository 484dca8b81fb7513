//! IEEE binary16 without an instruction for it.

/// The greatest number.
pub const MOST: f32 = 65504.0;

/// Rounded half to even; what is greater than all numbers becomes the greatest, and no number 0.
pub fn to_half(v: f32) -> u16 {
    let v = if v.is_nan() { 0.0 } else { v }.clamp(-MOST, MOST);
    let sign = (v.to_bits() >> 16) as u16 & 0x8000;
    let v = v.abs();
    // Subnormal numbers are multiples of 2^-24; a float whose last digit is worth that much rounds to them by itself.
    if v < 1.0 / 16384.0 {
        return sign | ((v + 0.5).to_bits() - 0.5f32.to_bits()) as u16;
    }
    let bits = v.to_bits() - (112 << 23);
    sign | ((bits + 0xfff + (bits >> 13 & 1)) >> 13) as u16
}

/// Exact. `half` is finite.
pub fn from_half(half: u16) -> f32 {
    let (sign, rest) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff));
    // As if it had the exponent of a float, which is 112 more; subnormal numbers come out right as well.
    let v = f32::from_bits(rest << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(v.to_bits() | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_half_comes_back() {
        for half in (0..0x7c00).chain(0x8000..0xfc00) {
            assert_eq!(to_half(from_half(half)), half);
        }
    }

    #[test]
    fn ties_go_to_even_and_what_is_too_great_to_the_greatest() {
        for half in 0..0x7bffu16 {
            let (low, high) = (from_half(half), from_half(half + 1));
            let middle = (low + high) / 2.0;
            assert_eq!(to_half(middle), half + half % 2, "{middle}");
            assert_eq!(to_half(-middle), 0x8000 | (half + half % 2), "{middle}");
            assert_eq!(to_half(middle.next_up()), half + 1, "{middle}");
            assert_eq!(to_half(middle.next_down()), half, "{middle}");
        }
        let [most, least] = [f32::INFINITY, f32::NEG_INFINITY].map(to_half);
        assert_eq!((most, least, to_half(65520.0), to_half(-1e9)), (0x7bff, 0xfbff, 0x7bff, 0xfbff));
        assert_eq!((to_half(-0.0), to_half(1e-30), to_half(-1e-30)), (0x8000, 0, 0x8000));
    }
}
