//! What happens to single numbers. Everything here is IEEE arithmetic that any processor and any GPU has, in the
//! order written.

/// The greatest finite number of [`super::Form::F16`].
pub const MOST_F16: f32 = 65504.0;

/// Binary16 of a number: rounded half to even, saturated at [`MOST_F16`]; of no number 0.
pub fn to_f16(v: f32) -> u16 {
    if v.is_nan() {
        return 0;
    }
    let sign = (v.to_bits() >> 16) as u16 & 0x8000;
    let size = v.abs().min(MOST_F16);
    // Below 2^-14 they are whole multiples of 2^-24; the multiplication is exact.
    if size < 1.0 / 16384.0 {
        return sign | (size * 16_777_216.0).round_ties_even() as u16;
    }
    // 13 bits of the fraction fall away; a carry goes on into the exponent, as it should. The exponent counts from 15,
    // not from 127.
    let bits = size.to_bits();
    let rounded = (bits + 0xfff + (bits >> 13 & 1)) >> 13;
    sign | (rounded - (112 << 10)) as u16
}

/// The number that a finite binary16 is.
pub fn from_f16(half: u16) -> f32 {
    let (sign, exponent, fraction) = (half & 0x8000, u32::from(half >> 10 & 0x1f), u32::from(half & 0x3ff));
    let size = match exponent {
        0 => fraction as f32 / 16_777_216.0,
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    if sign == 0 { size } else { -size }
}

/// A code of [`super::Form::U8`]: rounded half to even, saturated; of no number 0.
pub fn to_u8(z: f32) -> u8 {
    z.round_ties_even() as u8
}

/// The same of [`super::Form::S8`].
pub fn to_s8(z: f32) -> i8 {
    z.round_ties_even() as i8
}

/// `v` where it is positive, else `v * slope`.
pub fn leaky(v: f32, slope: f32) -> f32 {
    if v > 0.0 { v } else { v * slope }
}

/// `v` where it is positive, else 0 without a sign.
pub fn relu(v: f32) -> f32 {
    if v > 0.0 { v } else { 0.0 }
}

/// Not below `low`, not above `high`.
pub fn clip(v: f32, low: f32, high: f32) -> f32 {
    let v = if v < low { low } else { v };
    if v > high { high } else { v }
}

/// `1 / (1 + exp(-v))`, of no number none. From -87 on within 2e-7 of its size; below it stays as small as it is there.
pub fn sigmoid(v: f32) -> f32 {
    // exp of -|v| neither overflows nor becomes subnormal.
    let size = v.abs();
    let e = exp(-if size > 87.0 { 87.0 } else { size });
    if v < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

/// `2^n`, for n of -126 to 127; beyond those ends that of the end.
pub fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n.clamp(-126, 127) + 127) as u32) << 23)
}

/// exp of -87 to 0: `2^n * exp(r)` with r no further from 0 than half of log 2.
fn exp(x: f32) -> f32 {
    // Log 2 in two parts: the first times a whole number of 7 bits is exact.
    const LOG2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    // Of (exp(r) - 1 - r) / r^2, by Moshier (Cephes, expf).
    const FIRST: f32 = 1.987_569_1e-4;
    const REST: [f32; 5] = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = (-n).mul_add(LOG2[1], (-n).mul_add(LOG2[0], x));
    let p = REST.iter().fold(FIRST, |p, &next| p.mul_add(r, next));
    let exp_r = (r * r).mul_add(p, r) + 1.0;
    // n is -126 to 0.
    exp_r * power_of_two(n as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back_and_what_lies_between_goes_to_the_nearer() {
        let all = (0..=u16::MAX).filter(|half| half & 0x7c00 != 0x7c00);
        for half in all {
            let v = from_f16(half);
            assert_eq!(to_f16(v), half, "{v}");
            // By its definition: (-1)^s * 2^(e - 15) * 1.f, with 0.f of 2^-14 below.
            let (e, f) = (i32::from(half >> 10 & 31), f64::from(half & 1023) / 1024.0);
            let size = if e == 0 { f * 2f64.powi(-14) } else { (1.0 + f) * 2f64.powi(e - 15) };
            assert_eq!(f64::from(v.abs()), size);
            assert_eq!(v.is_sign_negative(), half >> 15 == 1);
            let next = half + 1;
            if next & 0x7c00 == 0x7c00 {
                continue;
            }
            // The middle is a number of f32; its neighbours too.
            let middle = ((f64::from(v) + f64::from(from_f16(next))) / 2.0) as f32;
            let even = if half & 1 == 0 { half } else { next };
            assert_eq!(to_f16(middle), even, "{middle}");
            let towards = |at: f32, by: i32| f32::from_bits(at.to_bits().wrapping_add_signed(by));
            assert_eq!((to_f16(towards(middle, -1)), to_f16(towards(middle, 1))), (half, next), "{middle}");
        }
    }

    #[test]
    fn halves_saturate() {
        for v in [65504.0, 65519.9, 65520.0, 1e9, f32::MAX, f32::INFINITY] {
            assert_eq!((to_f16(v), to_f16(-v)), (0x7bff, 0xfbff), "{v}");
        }
        assert_eq!((to_f16(f32::NAN), to_f16(-f32::NAN), to_f16(-0.0)), (0, 0, 0x8000));
        assert_eq!((to_f16(1e-10), to_f16(f32::from_bits(1)), to_f16(-1e-10)), (0, 0, 0x8000));
    }

    #[test]
    fn codes_are_rounded_half_to_even_and_saturate() {
        let u8s = [-1.0, -0.5, 0.5, 1.5, 2.5, 254.5, 255.4, 255.5, 1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        assert_eq!(u8s.map(to_u8), [0, 0, 0, 2, 2, 254, 255, 255, 255, 255, 0, 0]);
        let s8s = [-1e30, -128.6, -128.5, -127.5, -0.5, 0.5, 1.5, 126.5, 127.5, f32::INFINITY, f32::NAN];
        assert_eq!(s8s.map(to_s8), [-128, -128, -128, -128, 0, 0, 2, 126, 127, 127, 0]);
    }

    #[test]
    fn activations_say_which_zero() {
        assert_eq!([relu(-0.0), relu(-3.0), relu(0.0), relu(2.0)].map(f32::to_bits), [0, 0, 0, 2f32.to_bits()]);
        assert_eq!(leaky(-0.0, 0.5).to_bits(), (-0.0f32).to_bits());
        assert_eq!([leaky(3.0, 0.5), leaky(-3.0, 0.5), leaky(-3.0, -2.0)], [3.0, -1.5, 6.0]);
        assert_eq!([clip(-2.0, -1.0, 1.0), clip(2.0, -1.0, 1.0), clip(0.5, -1.0, 1.0)], [-1.0, 1.0, 0.5]);
    }

    /// Every 61st f32 of -87 to 30.
    #[test]
    fn sigmoid_is_near_the_true_one() {
        let mut worst = (0.0, 0.0);
        for bits in (0..30f32.to_bits()).step_by(61).chain((0..87f32.to_bits()).step_by(61).map(|bits| bits | 1 << 31))
        {
            let v = f32::from_bits(bits);
            let exact = 1.0 / (1.0 + (-f64::from(v)).exp());
            let apart = (f64::from(sigmoid(v)) - exact).abs() / exact;
            worst = if apart > worst.0 { (apart, v) } else { worst };
        }
        println!("greatest relative error {:e} at {}", worst.0, worst.1);
        assert!(worst.0 <= 2e-7, "{worst:?}");
        assert_eq!((sigmoid(0.0), sigmoid(-0.0), sigmoid(f32::INFINITY)), (0.5, 0.5, 1.0));
        assert_eq!(sigmoid(f32::NEG_INFINITY), sigmoid(-87.0));
        assert!(sigmoid(f32::NAN).is_nan() && sigmoid(-1e9).is_normal());
    }
}
