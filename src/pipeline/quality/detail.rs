//! Fine detail around eyes and mouth: what covers them has less of it.

use super::{luminance, near::Near};
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
    pub(super) fn of(near: &Near, face: &UprightFace) -> Self {
        // The face turned upright, from above the brows to below the mouth; its own axes have their origin between the eyes.
        let mouth = face.mouth().y.clamp(0.4, 3.0);
        let (left, top, right, bottom) = (-0.9, -0.4, 0.9, mouth + 0.4);
        let part = near.upright([left, top, right, bottom], DETAIL_INTER_EYE);
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
