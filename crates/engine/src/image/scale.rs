//! A part of an image, scaled, in one pass over its rows: no copy of the part is made.

use pulp::{Arch, Simd, WithSimd};
use zeroize::Zeroize;

use super::{Pixels, Region, raster::rounded};

/// A part of an image. It may reach beyond the image, and is black there.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    image: &'a Pixels,
    /// Pixels, at least 1.
    width: u32,
    height: u32,
    /// The picture's columns and rows: in the image, and from where on in the frame.
    columns: Span,
    rows: Span,
}

/// What a frame shows of an image, in one direction.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// In the image.
    from: usize,
    count: usize,
    /// In the frame.
    to: usize,
}

impl Span {
    /// Of a frame that begins at `start` of an image and is `length` long, in an image that is `whole` long.
    fn new(start: i32, length: u32, whole: u32) -> Self {
        let (start, length, whole) = (i64::from(start), i64::from(length), i64::from(whole));
        let from = start.clamp(0, whole);
        let end = (start + length).clamp(from, whole);
        Self { from: from as usize, count: (end - from) as usize, to: (from - start).max(0) as usize }
    }
}

impl Pixels {
    /// The whole image.
    pub fn whole(&self) -> Frame<'_> {
        self.frame(Region { x: 0, y: 0, width: self.width, height: self.height })
    }

    /// The region; black where it lies outside. Sides of 0 become 1.
    pub fn frame(&self, region: Region) -> Frame<'_> {
        let (width, height) = (region.width.max(1), region.height.max(1));
        let columns = Span::new(region.x, width, self.width);
        let rows = Span::new(region.y, height, self.height);
        Frame { image: self, width, height, columns, rows }
    }

    /// The whole image, scaled as [`Frame::resized`] does.
    pub fn resized(&self, width: u32, height: u32) -> Self {
        self.whole().resized(width, height)
    }
}

impl Frame<'_> {
    /// Padded with black to a square, the frame in its middle (an odd pixel goes below or to the right).
    pub fn squared(self) -> Self {
        let side = self.width.max(self.height);
        let moved = |span: Span, length: u32| Span { to: span.to + ((side - length) / 2) as usize, ..span };
        let (columns, rows) = (moved(self.columns, self.width), moved(self.rows, self.height));
        Self { width: side, height: side, columns, rows, ..self }
    }

    /// Scaled. Down to half and below: the mean of the area that each pixel covers. Otherwise bilinear, sampled at
    /// `x * width / new width` (tfjs's and TensorFlow's `align_corners = half_pixel_centers = false`), so that networks see
    /// what they were trained on.
    pub fn resized(&self, width: u32, height: u32) -> Pixels {
        let mut out = Pixels::flat(width, height, [0; 3]);
        if (out.width, out.height) == (self.width, self.height) {
            self.copy_to(&mut out);
        } else if self.width >= 2 * out.width && self.height >= 2 * out.height {
            self.average_to(&mut out);
        } else {
            Arch::new().dispatch(Interpolation { frame: self, out: &mut out });
        }
        out
    }

    /// The picture's part of a row; empty where the row is black.
    fn row(&self, y: usize) -> &[u8] {
        let Some(y) = y.checked_sub(self.rows.to).filter(|y| *y < self.rows.count) else { return &[] };
        let start = ((self.rows.from + y) * self.image.width as usize + self.columns.from) * 3;
        self.image.rgb8.get(start..start + self.columns.count * 3).unwrap_or_default()
    }

    /// The picture's part of a row of the frame.
    fn picture<'a, T>(&self, line: &'a mut [T]) -> &'a mut [T] {
        let start = self.columns.to * 3;
        line.get_mut(start..start + self.columns.count * 3).unwrap_or_default()
    }

    fn copy_to(&self, out: &mut Pixels) {
        for (y, line) in out.rgb8.chunks_exact_mut(self.width as usize * 3).enumerate() {
            self.picture(line).iter_mut().zip(self.row(y)).for_each(|(to, from)| *to = *from);
        }
    }

    fn average_to(&self, out: &mut Pixels) {
        let span = |i: u32, old: u32, new: u32| {
            let edge = |i: u32| (u64::from(i) * u64::from(old) / u64::from(new)) as usize;
            edge(i)..edge(i + 1)
        };
        let columns: Vec<_> = (0..out.width).map(|x| span(x, self.width, out.width)).collect();
        // Of the rows that a row of the result covers. 2^24 of them would fit.
        let mut sums = vec![0u32; self.width as usize * 3];
        let lines = out.rgb8.chunks_exact_mut(out.width as usize * 3);
        for (line, y) in lines.zip(0..) {
            let rows = span(y, self.height, out.height);
            let height = rows.len();
            sums.fill(0);
            for row in rows {
                self.picture(&mut sums).iter_mut().zip(self.row(row)).for_each(|(sum, v)| *sum += u32::from(*v));
            }
            let (sums, _) = sums.as_chunks::<3>();
            for (pixel, columns) in line.as_chunks_mut::<3>().0.iter_mut().zip(&columns) {
                let mut sum = [0u64; 3];
                for each in sums.get(columns.clone()).unwrap_or_default() {
                    sum.iter_mut().zip(each).for_each(|(sum, v)| *sum += u64::from(*v));
                }
                // Rounded as whole numbers are: a half that the product just misses is far nearer than the next value.
                let each = 1.0 / (height * columns.len()).max(1) as f64;
                *pixel = sum.map(|sum| (sum as f64 * each + (0.5 + 1e-9)) as u8);
            }
        }
        sums.zeroize();
    }
}

/// A frame to be scaled bilinearly, with the vectors of the processor: what it does per row is a loop over values without branches.
struct Interpolation<'a> {
    frame: &'a Frame<'a>,
    out: &'a mut Pixels,
}

impl WithSimd for Interpolation<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { frame, out } = self;
        let columns = samples(frame.width, out.width);
        let black = vec![0; frame.columns.count * 3];
        let row = |y: usize| Some(frame.row(y)).filter(|row| !row.is_empty()).unwrap_or(&black);
        // Between two rows of the frame, and one value more, so that four can be taken at every pixel; outside the picture it stays black.
        let mut between = vec![0.0f32; frame.width as usize * 3 + 1];
        // Of the result, with a fourth value that is of no use.
        let mut values = vec![[0.0f32; 4]; columns.len()];
        let mut bytes = vec![[0u8; 4]; columns.len()];
        let lines = out.rgb8.chunks_exact_mut(out.width as usize * 3);
        for (line, (top, bottom, fy)) in lines.zip(samples(frame.height, out.height)) {
            for ((value, top), bottom) in frame.picture(&mut between).iter_mut().zip(row(top)).zip(row(bottom)) {
                let (top, bottom) = (f32::from(*top), f32::from(*bottom));
                *value = top + (bottom - top) * fy;
            }
            let four = |column: usize| between.get(column * 3..)?.first_chunk::<4>();
            for (value, (left, right, fx)) in values.iter_mut().zip(&columns) {
                if let (Some(left), Some(right)) = (four(*left), four(*right)) {
                    for ((value, left), right) in value.iter_mut().zip(left).zip(right) {
                        *value = left + (right - left) * fx;
                    }
                }
            }
            for (byte, value) in bytes.as_flattened_mut().iter_mut().zip(values.as_flattened()) {
                *byte = rounded(*value);
            }
            for (pixel, [r, g, b, _]) in line.as_chunks_mut::<3>().0.iter_mut().zip(&bytes) {
                *pixel = [*r, *g, *b];
            }
        }
        between.zeroize();
        values.as_flattened_mut().zeroize();
        bytes.as_flattened_mut().zeroize();
    }
}

/// Per new position: the two old ones that it lies between, and how far it is from the first.
fn samples(old: u32, new: u32) -> Vec<(usize, usize, f32)> {
    let ratio = old as f32 / new as f32;
    let last = old as usize - 1;
    let sample = |i: u32| {
        let at = i as f32 * ratio;
        ((at as usize).min(last), (at.ceil() as usize).min(last), at.fract())
    };
    (0..new).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::tests::{grey, shown};

    #[test]
    fn a_square_keeps_the_picture_in_its_middle() {
        let squared = |image: Pixels, side: u32| shown(&image.whole().squared().resized(side, side));
        assert_eq!(squared(grey(3, 1, |_, _| 9), 3), [0, 0, 0, 9, 9, 9, 0, 0, 0]);
        // The odd pixel comes last, as in tfjs's padToSquare of face-api.
        assert_eq!(squared(grey(1, 2, |_, _| 9), 2), [9, 0, 9, 0]);
    }

    /// Worked out by hand from tfjs's definition: position 0, 0.5, 1, 1.5 (clamped).
    #[test]
    fn enlarging_samples_as_tensorflow_did() {
        let image = grey(2, 1, |x, _| [0, 100][x as usize]);
        assert_eq!(shown(&image.resized(4, 1)), [0, 50, 100, 100]);
        assert_eq!(shown(&grey(3, 1, |x, _| 30 * x as u8).resized(2, 1)), [0, 45]);
    }

    #[test]
    fn halving_takes_means() {
        let image = grey(4, 2, |x, y| [[0, 10, 100, 100], [20, 30, 100, 104]][y as usize][x as usize]);
        assert_eq!(shown(&image.resized(2, 1)), [15, 101]);
    }

    proptest! {
        #[test]
        fn a_channel_is_scaled_as_if_it_were_alone(
            (width, height, seed) in (1u32..24, 1u32..24, any::<u32>()),
            (x, y, across, down) in (-30i32..30, -30i32..30, 0u32..40, 0u32..40),
            (to_width, to_height) in (0u32..30, 0u32..30),
        ) {
            let value = |i: u32| (i.wrapping_mul(0x9e37_79b1) ^ seed).wrapping_mul(0x85eb_ca6b).to_be_bytes()[0];
            let region = Region { x, y, width: across, height: down };
            let scaled = |image: Pixels| image.frame(region).resized(to_width, to_height);
            let all = scaled(Pixels::new(width, height, (0..width * height * 3).map(value).collect()).unwrap());
            for channel in 0..3 {
                let alone = scaled(grey(width, height, |x, y| value((y * width + x) * 3 + channel)));
                let of_all: Vec<u8> = all.rgb8().chunks(3).map(|p| p[channel as usize]).collect();
                prop_assert_eq!(of_all, shown(&alone));
            }
        }

        /// A frame is scaled as a copy of it would be, wherever it lies, and each pixel as its definition says.
        #[test]
        fn a_frame_is_scaled_as_its_copy(
            (width, height, seed) in (1u32..24, 1u32..24, any::<u32>()),
            (x, y, across, down) in (-30i32..30, -30i32..30, 1u32..40, 1u32..40),
            (to_width, to_height) in (1u32..30, 1u32..30),
            squared: bool,
        ) {
            let value = |x: u32, y: u32| (x.wrapping_mul(31).wrapping_add(y.wrapping_mul(17)) ^ seed).wrapping_mul(0x9e37_79b1) as u8;
            let image = grey(width, height, value);
            let region = Region { x, y, width: across, height: down };
            let (frame, copy) = (image.frame(region), image.cut(region));
            let (frame, copy) = if squared {
                let side = across.max(down);
                let start = |length: u32| -(((side - length) / 2) as i32);
                let around = Region { x: start(across), y: start(down), width: side, height: side };
                (frame.squared(), copy.cut(around))
            } else {
                (frame, copy)
            };
            let got = frame.resized(to_width, to_height);
            let (cw, ch) = (copy.width(), copy.height());
            for (i, got) in shown(&got).into_iter().enumerate() {
                let (x, y) = (i as u32 % to_width, i as u32 / to_width);
                let at = |x: u32, y: u32| f64::from(shown(&copy)[(y.min(ch - 1) * cw + x.min(cw - 1)) as usize]);
                let expected = if cw >= 2 * to_width && ch >= 2 * to_height {
                    let (columns, rows) = (x * cw / to_width..(x + 1) * cw / to_width, y * ch / to_height..(y + 1) * ch / to_height);
                    let count = f64::from((columns.len() * rows.len()) as u32);
                    rows.flat_map(|y| columns.clone().map(move |x| (x, y))).map(|(x, y)| at(x, y)).sum::<f64>() / count
                } else {
                    let (sx, sy) = (f64::from(x) * f64::from(cw) / f64::from(to_width), f64::from(y) * f64::from(ch) / f64::from(to_height));
                    let (left, top, fx, fy) = (sx.floor(), sy.floor(), sx.fract(), sy.fract());
                    let blend = |y: f64| (1.0 - fx) * at(left as u32, y as u32) + fx * at(left as u32 + 1, y as u32);
                    (1.0 - fy) * blend(top) + fy * blend(top + 1.0)
                };
                prop_assert!((f64::from(got) - expected).abs() <= 0.51, "{} {} at {} {}", got, expected, x, y);
            }
        }
    }
}
