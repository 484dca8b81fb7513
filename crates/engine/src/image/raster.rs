//! Pixels into other pixels: cut, turn, move; scaling is `scale`'s. No failure: what lies outside an image is black.

use pulp::{Arch, Simd, WithSimd};

use super::{Pixels, Point, Rect};

/// Where a region of an image lies: whole pixels, may reach beyond the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub x: i32,
    pub y: i32,
    /// At least 1.
    pub width: u32,
    /// At least 1.
    pub height: u32,
}

impl Region {
    /// Of a region that is made from measurements: what such a cut may cost.
    pub const MAX_SIDE: u32 = 8192;

    /// All of an image.
    pub fn of(image: &Pixels) -> Self {
        Self { x: 0, y: 0, width: image.width, height: image.height }
    }
}

impl Rect {
    /// The part that lies inside a `width` x `height` image, in whole pixels, rounded as face-api does (position and size each
    /// towards zero); `None` where less than a pixel is left.
    pub fn clipped(&self, width: u32, height: u32) -> Option<Region> {
        if ![self.x, self.y, self.width, self.height].iter().all(|v| v.is_finite()) {
            return None;
        }
        let (x, y) = (self.x.max(0.0), self.y.max(0.0));
        let right = (self.x + self.width).min(width as f32);
        let bottom = (self.y + self.height).min(height as f32);
        let (inner_width, inner_height) = ((right - x).floor(), (bottom - y).floor());
        (inner_width >= 1.0 && inner_height >= 1.0).then_some(Region {
            x: x as i32,
            y: y as i32,
            width: inner_width as u32,
            height: inner_height as u32,
        })
    }

    /// Whole pixels, position and size each rounded down; may reach beyond any image. `None` for sides of less than a pixel or of more
    /// than [`Region::MAX_SIDE`], and for places too far from any image.
    pub fn region(&self) -> Option<Region> {
        let side = 1.0..(Region::MAX_SIDE as f32 + 1.0);
        let near = |v: f32| v.abs() <= 1e6; // false for NaN
        let fine = near(self.x) && near(self.y) && side.contains(&self.width) && side.contains(&self.height);
        fine.then_some(Region {
            x: self.x.floor() as i32,
            y: self.y.floor() as i32,
            width: self.width as u32,
            height: self.height as u32,
        })
    }

    pub fn centre(&self) -> Point {
        Point { x: self.x + self.width / 2.0, y: self.y + self.height / 2.0 }
    }

    /// Whether the centre of one lies in the other.
    pub fn meets(&self, other: &Self) -> bool {
        let holds = |rect: &Self, Point { x, y }: Point| {
            (rect.x..rect.x + rect.width).contains(&x) && (rect.y..rect.y + rect.height).contains(&y)
        };
        holds(self, other.centre()) || holds(other, self.centre())
    }
}

/// `x' = a x - b y + dx`, `y' = b x + a y + dy`: turn, scale, move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    pub a: f32,
    pub b: f32,
    pub dx: f32,
    pub dy: f32,
}

impl Similarity {
    /// The transform that brings `from` closest to `to` (least squares); `None` where the points of `from` are all one.
    pub fn fit<const N: usize>(from: &[Point; N], to: &[Point; N]) -> Option<Self> {
        let mean = |points: &[Point; N]| {
            let sum = points.iter().fold((0.0, 0.0), |s, p| (s.0 + f64::from(p.x), s.1 + f64::from(p.y)));
            (sum.0 / N as f64, sum.1 / N as f64)
        };
        let ((fx, fy), (tx, ty)) = (mean(from), mean(to));
        let (mut dot, mut cross, mut spread) = (0.0, 0.0, 0.0);
        for (f, t) in from.iter().zip(to) {
            let (px, py) = (f64::from(f.x) - fx, f64::from(f.y) - fy);
            let (qx, qy) = (f64::from(t.x) - tx, f64::from(t.y) - ty);
            dot += px * qx + py * qy;
            cross += px * qy - py * qx;
            spread += px * px + py * py;
        }
        let (a, b) = (dot / spread, cross / spread);
        let (dx, dy) = (tx - a * fx + b * fy, ty - b * fx - a * fy);
        let all = [a, b, dx, dy].map(|v| v as f32);
        let [a, b, dx, dy] = all;
        all.iter().all(|v| v.is_finite()).then_some(Self { a, b, dx, dy })
    }

    #[inline(always)]
    pub fn apply(&self, p: Point) -> Point {
        Point { x: self.a * p.x - self.b * p.y + self.dx, y: self.b * p.x + self.a * p.y + self.dy }
    }

    /// `None` where everything falls on one point.
    pub fn inverse(&self) -> Option<Self> {
        let square = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / square, -self.b / square);
        let inverse = Self { a, b, dx: -(a * self.dx - b * self.dy), dy: -(b * self.dx + a * self.dy) };
        [a, b, inverse.dx, inverse.dy].iter().all(|v| v.is_finite()).then_some(inverse)
    }
}

/// [`Pixels::warped`] with the instructions of the processor.
struct Warp<'a> {
    from: &'a Pixels,
    place: &'a Similarity,
    out: &'a mut Pixels,
}

impl WithSimd for Warp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { from, place, out } = self;
        let across = out.width as usize * 3;
        for (y, row) in out.rgb8.chunks_exact_mut(across).enumerate() {
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let p = place.apply(Point { x: x as f32, y: y as f32 });
                let (left, top) = (p.x.floor(), p.y.floor());
                let (fx, fy) = (p.x - left, p.y - top);
                let [nw, ne, sw, se] = from.square(left as i64, top as i64); // saturates
                for (c, value) in pixel.iter_mut().enumerate() {
                    *value = blend([nw[c], ne[c], sw[c], se[c]], fx, fy);
                }
            }
        }
    }
}

impl Pixels {
    /// An image of one colour; sides of 0 become 1.
    pub fn flat(width: u32, height: u32, rgb: [u8; 3]) -> Self {
        let (width, height) = (width.max(1), height.max(1));
        let count = width as usize * height as usize;
        let rgb8 = if rgb == [0; 3] { vec![0; 3 * count] } else { rgb.repeat(count) };
        Self { width, height, rgb8 }
    }

    /// The region; black where it lies outside.
    pub fn cut(&self, region: Region) -> Self {
        let mut out = Self::flat(region.width, region.height, [0; 3]);
        out.paste(self, -i64::from(region.x), -i64::from(region.y));
        out
    }

    /// With another value for each value of a channel.
    pub fn mapped(mut self, value: impl Fn(u8) -> u8) -> Self {
        self.rgb8.iter_mut().for_each(|v| *v = value(*v));
        self
    }

    /// Turned clockwise by 90 degrees.
    pub fn turned_by_a_quarter(&self) -> Self {
        let (width, height) = (self.width as usize, self.height as usize);
        let mut rgb8 = Vec::with_capacity(self.rgb8.len());
        for x in 0..width {
            for y in (0..height).rev() {
                let start = (y * width + x) * 3;
                rgb8.extend_from_slice(self.rgb8.get(start..start + 3).unwrap_or(&[0; 3]));
            }
        }
        Self { width: self.height, height: self.width, rgb8 }
    }

    /// Sampled at `place` of each pixel of a `width` x `height` image; bilinear, black outside.
    pub fn warped(&self, width: u32, height: u32, place: &Similarity) -> Self {
        let mut out = Self::flat(width, height, [0; 3]);
        Arch::new().dispatch(Warp { from: self, place, out: &mut out });
        out
    }

    /// The pixels at (x, y), right of it, below it, and both.
    #[inline(always)]
    fn square(&self, x: i64, y: i64) -> [[f32; 3]; 4] {
        let within = |at: i64, side: u32| (0..i64::from(side) - 1).contains(&at);
        let inside = within(x, self.width) && within(y, self.height);
        if !inside {
            return [(0, 0), (1, 0), (0, 1), (1, 1)]
                .map(|(dx, dy)| self.at(x.saturating_add(dx), y.saturating_add(dy)));
        }
        let across = self.width as usize * 3;
        let start = y as usize * across + x as usize * 3;
        let below = start + across;
        // Most lie inside: two looks instead of four.
        match (self.rgb8.get(start..start + 6), self.rgb8.get(below..below + 6)) {
            (Some(&[a, b, c, d, e, f]), Some(&[g, h, i, j, k, l])) => {
                [[a, b, c], [d, e, f], [g, h, i], [j, k, l]].map(|pixel| pixel.map(f32::from))
            }
            _ => [[0.0; 3]; 4], // not inside, after all
        }
    }

    /// Black outside.
    fn at(&self, x: i64, y: i64) -> [f32; 3] {
        let inside = (0..i64::from(self.width)).contains(&x) && (0..i64::from(self.height)).contains(&y);
        let start = (y * i64::from(self.width) + x) as usize * 3;
        let pixel = if inside { self.rgb8.get(start..start + 3) } else { None };
        pixel.map_or([0.0; 3], |p| [p[0], p[1], p[2]].map(f32::from))
    }

    /// Copies `other` so that its top left corner comes to (x, y); what falls outside is left out.
    fn paste(&mut self, other: &Self, x: i64, y: i64) {
        let overlap = |at: i64, theirs: u32, ours: u32| {
            let start = at.clamp(0, i64::from(ours));
            let end = (at + i64::from(theirs)).clamp(start, i64::from(ours));
            (start as usize, (start - at) as usize, (end - start) as usize)
        };
        let (to_x, from_x, columns) = overlap(x, other.width, self.width);
        let (to_y, from_y, rows) = overlap(y, other.height, self.height);
        if columns == 0 || rows == 0 {
            return;
        }
        let theirs = other.rgb8.chunks_exact(other.width as usize * 3).skip(from_y);
        let ours = self.rgb8.chunks_exact_mut(self.width as usize * 3).skip(to_y);
        for (to, from) in ours.zip(theirs).take(rows) {
            let (to, from) = (to.get_mut(to_x * 3..(to_x + columns) * 3), from.get(from_x * 3..(from_x + columns) * 3));
            if let (Some(to), Some(from)) = (to, from) {
                to.copy_from_slice(from);
            }
        }
    }
}

/// Values at the corners (north-west, north-east, south-west, south-east) of a unit square, read at (fx, fy).
#[inline(always)]
fn blend([nw, ne, sw, se]: [f32; 4], fx: f32, fy: f32) -> u8 {
    let (top, bottom) = (nw + (ne - nw) * fx, sw + (se - sw) * fx);
    rounded(top + (bottom - top) * fy)
}

/// The nearest whole number, halves up, and at least 0, at most 255: as `(value + 0.5) as u8`, which no compiler makes vectors of.
#[inline(always)]
pub(super) fn rounded(value: f32) -> u8 {
    /// Above it a float is a whole number: adding it rounds, and leaves that number in the lowest bits.
    const WHOLE: f32 = 8_388_608.0;
    let value = value.clamp(0.0, 255.0) + 0.5;
    let near = (value + WHOLE) - WHOLE;
    let below = if near > value { near - 1.0 } else { near };
    (below + WHOLE).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::tests::{grey, shown};

    #[test]
    fn values_are_rounded_as_their_definition_says() {
        let steps = (0..=255 * 512).map(|i| i as f32 / 512.0);
        for value in steps.flat_map(|v: f32| [v, v.next_up(), v.next_down(), -v, 2.0 * v]) {
            assert_eq!(rounded(value), (value + 0.5) as u8, "{value}");
        }
    }

    #[test]
    fn a_cut_is_black_outside() {
        let image = grey(3, 2, |x, y| (10 * y + x + 1) as u8);
        let cut = |x, y, width, height| shown(&image.cut(Region { x, y, width, height }));
        assert_eq!(cut(1, 0, 2, 2), [2, 3, 12, 13]);
        assert_eq!(cut(-1, -1, 3, 2), [0, 0, 0, 0, 1, 2]);
        assert_eq!(cut(2, 1, 2, 2), [13, 0, 0, 0]);
        assert_eq!(cut(100, i32::MIN, 2, 1), [0, 0]);
    }

    #[test]
    fn a_rect_is_clipped_to_whole_pixels() {
        let rect = |x, y, width, height| Rect { x, y, width, height }.clipped(100, 50);
        assert_eq!(rect(-10.0, 4.6, 30.0, 20.0), Some(Region { x: 0, y: 4, width: 20, height: 20 }));
        assert_eq!(rect(90.0, 40.0, 30.0, 20.0), Some(Region { x: 90, y: 40, width: 10, height: 10 }));
        for nothing in [rect(100.0, 0.0, 9.0, 9.0), rect(0.0, 0.0, 0.5, 9.0), rect(f32::NAN, 0.0, 9.0, 9.0)] {
            assert_eq!(nothing, None);
        }
    }

    proptest! {
        #[test]
        fn a_fit_recovers_the_transform(a in -3f32..3.0, b in -3f32..3.0, dx in -99f32..99.0, dy in -99f32..99.0) {
            prop_assume!(a.hypot(b) > 0.05);
            let truth = Similarity { a, b, dx, dy };
            let from = [(3.0, 4.0), (60.0, 7.0), (30.0, 50.0)].map(|(x, y)| Point { x, y });
            let found = Similarity::fit(&from, &from.map(|p| truth.apply(p))).unwrap();
            let back = found.inverse().unwrap();
            for p in from {
                let q = back.apply(truth.apply(p));
                prop_assert!((q.x - p.x).hypot(q.y - p.y) < 0.05, "{p:?} {q:?}");
            }
        }
    }

    #[test]
    fn points_that_are_all_one_fit_nothing() {
        let one = [Point { x: 5.0, y: 5.0 }; 3];
        assert_eq!(Similarity::fit(&one, &one), None);
        assert_eq!(Similarity { a: 0.0, b: 0.0, dx: 1.0, dy: 1.0 }.inverse(), None);
    }

    #[test]
    fn a_warp_moves_and_fades_to_black() {
        let image = grey(3, 3, |x, y| if (x, y) == (1, 1) { 200 } else { 0 });
        let moved = image.warped(3, 3, &Similarity { a: 1.0, b: 0.0, dx: 0.5, dy: 1.0 });
        assert_eq!(shown(&moved), [100, 100, 0, 0, 0, 0, 0, 0, 0]);
        let far = image.warped(2, 2, &Similarity { a: 1e30, b: 0.0, dx: f32::MAX, dy: -f32::MAX });
        assert_eq!(shown(&far), [0; 4]);
    }
}
