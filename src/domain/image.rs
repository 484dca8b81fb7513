//! Pixels and places in them. Nothing here can be printed or stored; all of it is wiped when dropped.

mod raster;
mod scale;

use std::fmt;

use zeroize::Zeroize;

pub use raster::{Region, Similarity};

/// A place in an image: pixels from the top left corner, x to the right, y down.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    pub x: f32,
    pub y: f32,
}

/// Left, top, width, height in pixels; may reach beyond the image.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rect {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

/// Left and right as seen in the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FiveLandmarks {
    pub left_eye: Point,
    pub right_eye: Point,
    pub nose_tip: Point,
    pub left_mouth_corner: Point,
    pub right_mouth_corner: Point,
}

impl FiveLandmarks {
    /// Left eye, right eye, nose tip, left and right mouth corner.
    pub const fn points(&self) -> [Point; 5] {
        [self.left_eye, self.right_eye, self.nose_tip, self.left_mouth_corner, self.right_mouth_corner]
    }

    /// In the order of [`Self::points`].
    pub const fn from_points(points: [Point; 5]) -> Self {
        let [left_eye, right_eye, nose_tip, left_mouth_corner, right_mouth_corner] = points;
        Self { left_eye, right_eye, nose_tip, left_mouth_corner, right_mouth_corner }
    }

    /// The face without its roll, place and size; `None` where the eyes are in one place or a value is not finite.
    pub fn upright(&self) -> Option<UprightFace> {
        let (dx, dy) = (self.right_eye.x - self.left_eye.x, self.right_eye.y - self.left_eye.y);
        let inter_eye = dx.hypot(dy);
        let (cos, sin) = (dx / inter_eye, dy / inter_eye);
        let eyes =
            Point { x: (self.left_eye.x + self.right_eye.x) / 2.0, y: (self.left_eye.y + self.right_eye.y) / 2.0 };
        let turned = |p: Point| {
            let (x, y) = (p.x - eyes.x, p.y - eyes.y);
            Point { x: (x * cos + y * sin) / inter_eye, y: (y * cos - x * sin) / inter_eye }
        };
        let [nose_tip, left_mouth_corner, right_mouth_corner] =
            [self.nose_tip, self.left_mouth_corner, self.right_mouth_corner].map(turned);
        let finite =
            [nose_tip, left_mouth_corner, right_mouth_corner].iter().all(|p| p.x.is_finite() && p.y.is_finite());
        finite.then_some(UprightFace {
            eyes,
            inter_eye,
            roll: sin.atan2(cos),
            nose_tip,
            left_mouth_corner,
            right_mouth_corner,
        })
    }
}

/// Landmarks as a head without roll shows them: the eyes' middle is (0, 0), x goes along the line of the eyes, y down the
/// face, and the eyes are 1 apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UprightFace {
    /// The eyes' middle, pixels of the image.
    pub eyes: Point,
    /// Pixels between the eyes' centres, more than 0.
    pub inter_eye: f32,
    /// Radians; positive: clockwise as seen.
    pub roll: f32,
    pub nose_tip: Point,
    pub left_mouth_corner: Point,
    pub right_mouth_corner: Point,
}

impl UprightFace {
    /// The middle between the mouth's corners.
    pub fn mouth(&self) -> Point {
        let (left, right) = (self.left_mouth_corner, self.right_mouth_corner);
        Point { x: (left.x + right.x) / 2.0, y: (left.y + right.y) / 2.0 }
    }
}

/// The 68 points of the iBUG 300-W annotation, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct Landmarks68(pub [Point; 68]);

impl Landmarks68 {
    /// Eyes' centres are means of six points each, the nose tip is point 30, the mouth's corners are 48 and 54.
    pub fn five(&self) -> FiveLandmarks {
        let mean = |points: &[Point]| {
            let n = points.len() as f32;
            Point { x: points.iter().map(|p| p.x).sum::<f32>() / n, y: points.iter().map(|p| p.y).sum::<f32>() / n }
        };
        FiveLandmarks {
            left_eye: mean(&self.0[36..42]),
            right_eye: mean(&self.0[42..48]),
            nose_tip: self.0[30],
            left_mouth_corner: self.0[48],
            right_mouth_corner: self.0[54],
        }
    }
}

/// Why bytes are not an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PixelsError {
    #[error("width and height must be at least 1")]
    Empty,
    #[error("expected width * height * 3 = {expected} bytes, got {got}")]
    Length { expected: u64, got: u64 },
}

/// An upright RGB image: `height * width * 3` bytes, row by row from the top.
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels {
    width: u32,
    height: u32,
    rgb8: Vec<u8>,
}

impl Pixels {
    pub fn new(width: u32, height: u32, rgb8: Vec<u8>) -> Result<Self, PixelsError> {
        if width == 0 || height == 0 {
            return Err(PixelsError::Empty);
        }
        let expected = u64::from(width) * u64::from(height) * 3;
        if rgb8.len() as u64 != expected {
            return Err(PixelsError::Length { expected, got: rgb8.len() as u64 });
        }
        Ok(Self { width, height, rgb8 })
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    pub fn rgb8(&self) -> &[u8] {
        &self.rgb8
    }
}

impl Drop for Pixels {
    fn drop(&mut self) {
        // What a decoder left behind the pixels, say samples with alpha.
        self.rgb8.spare_capacity_mut().zeroize();
        // In words: the loop over bytes took a fiftieth of a server's time.
        let (before, words, after) = bytemuck::pod_align_to_mut::<u8, u64>(&mut self.rgb8);
        before.zeroize();
        words.zeroize();
        after.zeroize();
    }
}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pixels({}x{})", self.width, self.height)
    }
}

/// An aligned face at the size that the network takes, still 8 bits a channel.
#[derive(Clone, PartialEq, Eq)]
pub struct FaceCrop(pub Pixels);

impl fmt::Debug for FaceCrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaceCrop({}x{})", self.0.width, self.0.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All channels alike.
    pub(super) fn grey(width: u32, height: u32, value: impl Fn(u32, u32) -> u8) -> Pixels {
        let value = &value;
        let rgb8 = (0..height).flat_map(|y| (0..width).flat_map(move |x| [value(x, y); 3])).collect();
        Pixels { width, height, rgb8 }
    }

    /// One channel of each pixel.
    pub(super) fn shown(pixels: &Pixels) -> Vec<u8> {
        pixels.rgb8.chunks(3).map(|p| p[0]).collect()
    }

    #[test]
    fn pixels_hold_what_they_say() {
        assert!(Pixels::new(2, 2, vec![0; 12]).is_ok());
        assert!(Pixels::new(2, 2, vec![0; 11]).is_err());
        assert!(Pixels::new(0, 2, vec![]).is_err());
        assert!(Pixels::new(u32::MAX, u32::MAX, vec![]).is_err());
    }

    #[test]
    fn debug_shows_no_pixels() {
        assert_eq!(format!("{:?}", Pixels::new(1, 1, vec![201, 202, 203]).unwrap()), "Pixels(1x1)");
    }
}
