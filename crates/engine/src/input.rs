//! From 8-bit pixels to what a network takes, as its card says.

use pulp::{Arch, Simd, WithSimd};
use serde::{Deserialize, Serialize};

/// Of an image that a network takes, pixels at most.
pub const MAX_INPUT_SIDE: u32 = 2048;

/// The size that a network takes, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputSize {
    pub width: u32,
    pub height: u32,
}

/// What the network takes: `(value - mean) * scale` of each 8-bit channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    pub width: u32,
    pub height: u32,
    pub colour: Colour,
    /// In the order of `colour`.
    pub mean: [f32; 3],
    pub scale: f32,
}

/// Order of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    Rgb,
    Bgr,
}

impl Input {
    /// What the network takes for a pixel R G B.
    #[inline]
    pub fn normalise(&self, [r, g, b]: [u8; 3]) -> [f32; 3] {
        let ordered = match self.colour {
            Colour::Rgb => [r, g, b],
            Colour::Bgr => [b, g, r],
        };
        std::array::from_fn(|c| (f32::from(ordered[c]) - self.mean[c]) * self.scale)
    }

    /// The same for all pixels of an image, R G B each, into as many values.
    pub fn normalise_all(&self, rgb8: &[u8], x: &mut [f32]) {
        if self.colour == Colour::Rgb {
            return Arch::new().dispatch(Normalisation { input: self, rgb8, x });
        }
        for (to, &rgb) in x.as_chunks_mut::<3>().0.iter_mut().zip(rgb8.as_chunks::<3>().0) {
            *to = self.normalise(rgb);
        }
    }
}

/// Pixels whose channels come in the network's order, with the vectors of the processor.
struct Normalisation<'a> {
    input: &'a Input,
    rgb8: &'a [u8],
    x: &'a mut [f32],
}

impl WithSimd for Normalisation<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        /// Values at a time: whole vectors, and whole pixels.
        const RUN: usize = 48;
        let Self { input: Input { mean, scale, .. }, rgb8, x } = self;
        let mut means = [0.0; RUN];
        means.as_chunks_mut::<3>().0.fill(*mean);
        for (to, from) in x.chunks_mut(RUN).zip(rgb8.chunks(RUN)) {
            for ((to, from), mean) in to.iter_mut().zip(from).zip(&means) {
                *to = (f32::from(*from) - mean) * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_normalised_as_its_pixels_are() {
        for (colour, pixels) in [(Colour::Rgb, 37), (Colour::Rgb, 16), (Colour::Bgr, 37), (Colour::Rgb, 0)] {
            let mean = [91.5, 117.0, 122.7];
            let input = Input { width: 1, height: 1, colour, mean, scale: 1.0 / 255.0 };
            let rgb8: Vec<u8> = (0..pixels * 3).map(|v| (v * 7) as u8).collect();
            let mut x = vec![f32::NAN; rgb8.len()];
            input.normalise_all(&rgb8, &mut x);
            let expected: Vec<f32> = rgb8.as_chunks::<3>().0.iter().flat_map(|rgb| input.normalise(*rgb)).collect();
            assert_eq!(x, expected, "{colour:?}, {pixels}");
        }
    }
}
