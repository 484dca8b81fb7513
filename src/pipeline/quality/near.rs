//! The face and what is around it, in one scale: parts of it are turned upright from here.

use vultus_engine::image::{Pixels, Rect, Similarity};

use super::SHARPNESS_INTER_EYE;
use crate::domain::UprightFace;

/// How far the parts of fixed size reach from between the eyes, in inter-eye distances: face occlusion prevention's.
pub(super) const REACH: f32 = 64.5 / 36.0;

/// The square around a face that holds every part which is looked at, however it leans; at most [`SHARPNESS_INTER_EYE`] between the eyes.
/// Scaled as areas are: sampling a large image would take single pixels of it.
pub(super) struct Near<'a> {
    face: &'a UprightFace,
    pixels: Pixels,
    /// Pixels of this for one of the image; both scales are one, up to rounding.
    across: f32,
    /// Between the eyes.
    eyes: (f32, f32),
}

impl<'a> Near<'a> {
    /// `None` where it lies outside of the image.
    pub(super) fn of(pixels: &Pixels, face: &'a UprightFace) -> Option<Self> {
        // Half the square's side is that of the greatest part, times the root of two, and more.
        let reach = face.inter_eye * (face.mouth().y.clamp(0.4, 3.0) + 0.4).max(REACH) * 1.5;
        let rect = Rect { x: face.eyes.x - reach, y: face.eyes.y - reach, width: 2.0 * reach, height: 2.0 * reach };
        let region = rect.clipped(pixels.width(), pixels.height())?;
        let scale = (SHARPNESS_INTER_EYE / face.inter_eye).min(1.0);
        let scaled = |side: u32| ((side as f32 * scale).round() as u32).max(1);
        let near = pixels.frame(region).resized(scaled(region.width), scaled(region.height));
        let (across, down) = (near.width() as f32 / region.width as f32, near.height() as f32 / region.height as f32);
        let eyes = ((face.eyes.x - region.x as f32) * across, (face.eyes.y - region.y as f32) * down);
        Some(Self { face, pixels: near, across, eyes })
    }

    /// A part of the upright face, left, top, right and bottom in inter-eye distances from the eyes' middle, with `inter_eye` pixels for
    /// each.
    pub(super) fn upright(&self, [left, top, right, bottom]: [f32; 4], inter_eye: f32) -> Pixels {
        let step = self.face.inter_eye / inter_eye * self.across;
        let (a, b) = (self.face.roll.cos() * step, self.face.roll.sin() * step);
        let (origin_x, origin_y) = (left * inter_eye, top * inter_eye);
        let (dx, dy) = (self.eyes.0 + a * origin_x - b * origin_y, self.eyes.1 + b * origin_x + a * origin_y);
        let size = |from: f32, to: f32| ((to - from) * inter_eye).round() as u32 + 1;
        self.pixels.warped(size(left, right), size(top, bottom), &Similarity { a, b, dx, dy })
    }
}
