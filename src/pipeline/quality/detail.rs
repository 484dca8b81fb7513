//! Fine detail around eyes and mouth: what covers them has less of it.

use vultus_engine::image::{Pixels, Rect, Similarity};

use super::{SHARPNESS_INTER_EYE, luminance};
use crate::domain::UprightFace;

/// How much finer the picture is around eyes and mouth than in the rest of the face: 1 is as fine.
pub(super) struct Detail {
    /// Of the eye that has less.
    pub(super) eyes: f32,
    pub(super) mouth: f32,
}

/// Pixels between the eyes at which detail is measured.
const DETAIL_INTER_EYE: f32 = 24.0;
/// Mean absolute Laplacian of noise, grey levels.
const NOISE_DETAIL: f32 = 0.5;

impl Detail {
    pub(super) fn of(pixels: &Pixels, face: &UprightFace) -> Self {
        // The face turned upright, from above the brows to below the mouth; its own axes have their origin between the eyes.
        let mouth = face.mouth().y.clamp(0.4, 3.0);
        let (left, top, right, bottom) = (-0.9, -0.4, 0.9, mouth + 0.4);
        let Some(part) = upright_part(pixels, face, [left, top, right, bottom], DETAIL_INTER_EYE) else {
            return Self { eyes: 0.0, mouth: 0.0 };
        };
        let width = part.width() as usize;
        let luminance: Vec<f32> = part.rgb8().chunks_exact(3).map(luminance).collect();
        let rows: Vec<&[f32]> = luminance.chunks_exact(width).collect();
        // Mean over a box of the face's own axes.
        let mean = |from: (f32, f32), to: (f32, f32)| {
            let at = |v: f32, origin: f32, most: usize| {
                (((v - origin) * DETAIL_INTER_EYE).round().max(1.0) as usize).min(most.saturating_sub(1))
            };
            let (x0, x1) = (at(from.0, left, width), at(to.0, left, width));
            let (y0, y1) = (at(from.1, top, rows.len()), at(to.1, top, rows.len()));
            let (mut sum, mut count) = (0.0, 0);
            for three in rows.get(y0 - 1..y1 + 1).unwrap_or_default().windows(3) {
                for x in x0..x1 {
                    if let (Some(at), Some(up), Some(down)) =
                        (three[1].get(x - 1..x + 2), three[0].get(x), three[2].get(x))
                    {
                        sum += (up + down + at[0] + at[2] - 4.0 * at[1]).abs();
                        count += 1;
                    }
                }
            }
            sum / count.max(1) as f32
        };
        let whole = mean((left, top), (right, bottom)) + NOISE_DETAIL;
        let eye = |x: f32| mean((x - 0.25, -0.2), (x + 0.25, 0.2));
        Self { eyes: eye(-0.5).min(eye(0.5)) / whole, mouth: mean((-0.4, mouth - 0.25), (0.4, mouth + 0.25)) / whole }
    }
}

/// A part of the face, left, top, right and bottom in inter-eye distances from the eyes' middle, with `inter_eye` pixels for each.
/// `None` where it lies outside of the image.
pub(super) fn upright_part(
    pixels: &Pixels,
    face: &UprightFace,
    [left, top, right, bottom]: [f32; 4],
    inter_eye: f32,
) -> Option<Pixels> {
    // First the square around it, scaled as areas are: sampling a large image would take single pixels of it.
    let reach = face.inter_eye * left.abs().max(bottom).max(right) * 1.5;
    let rect = Rect { x: face.eyes.x - reach, y: face.eyes.y - reach, width: 2.0 * reach, height: 2.0 * reach };
    let region = rect.clipped(pixels.width(), pixels.height())?;
    let scale = (SHARPNESS_INTER_EYE / face.inter_eye).min(1.0);
    let scaled = |side: u32| ((side as f32 * scale).round() as u32).max(1);
    let near = pixels.frame(region).resized(scaled(region.width), scaled(region.height));
    let (across, down) = (near.width() as f32 / region.width as f32, near.height() as f32 / region.height as f32);
    let step = face.inter_eye / inter_eye;
    let (sin, cos) = (face.roll.sin() * step, face.roll.cos() * step);
    let (x, y) = ((face.eyes.x - region.x as f32) * across, (face.eyes.y - region.y as f32) * down);
    // Both scales are one, up to rounding.
    let (a, b) = (cos * across, sin * across);
    let (origin_x, origin_y) = (left * inter_eye, top * inter_eye);
    let place = Similarity { a, b, dx: x + a * origin_x - b * origin_y, dy: y + b * origin_x + a * origin_y };
    let size = |from: f32, to: f32| ((to - from) * inter_eye).round() as u32 + 1;
    Some(near.warped(size(left, right), size(top, bottom), &place))
}
