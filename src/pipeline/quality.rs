//! Stage: is this face good enough to compare? Measures after ISO/IEC 29794-5, each 0 to 100, from pixels and five landmarks.
//!
//! | measure | from | value |
//! | --- | --- | --- |
//! | inter-eye distance | pixels between the eyes' centres | 100 at 90 px (ISO/IEC 39794-5's least), in proportion below |
//! | sharpness | variance of the Laplacian over the variance of luminance, at 40 px between the eyes | 100 (1 - e^(-12 r)) |
//! | luminance mean | mean luminance m, 0 to 1 | 100 s(m, 0.2) (1 - s(m, 0.8)), s: logistic, 0.05 wide |
//! | under-exposure prevention | share of luminance up to 25 of 255 | 100 (1 - share) |
//! | over-exposure prevention | share of luminance from 247 of 255 | 100 (1 - share) |
//! | head pose: yaw, pitch, roll | angle a, estimated from the landmarks | 100 cos^2 a, 0 from a right angle on; roll 0 for a face that lies otherwise |
//! | eyes visible | fine detail around the eye that has less, over that of the face (r) | 50 r, at most 100 |
//! | mouth occlusion prevention | fine detail around the mouth, over that of the face (r) | 50 r, at most 100 |
//! | face occlusion prevention | directions of edges, place by place, weighed as learned | 100 times how surely nothing covers the face |
//!
//! Luminance is that of the face's inner part, so that hair, background and clothes have no say. Dividing sharpness by the
//! variance keeps exposure and skin tone out of it. Detail is the mean absolute Laplacian, at 24 pixels between the eyes: what
//! covers a part of a face has less of it than eyes and lips, or moves the landmarks to where there is none.

mod cover_weights;
mod detail;
mod near;
mod occlusion;

use vultus_engine::image::{Pixels, Rect};

use crate::domain::{FiveLandmarks, Measure, MeasureName, QualityThresholds, UprightFace};
use detail::Detail;
use near::Near;
pub use occlusion::edges;

/// Every measure but face presence, in the order of [`MeasureName::ALL`]. Landmarks that are no face give zeros. `turned`: the face lies
/// otherwise than they say.
pub fn assess(pixels: &Pixels, five: &FiveLandmarks, turned: bool, thresholds: &QualityThresholds) -> Vec<Measure> {
    let Some(face) = five.upright() else {
        return MeasureName::ALL
            .into_iter()
            .filter(|name| *name != MeasureName::FacePresence)
            .map(|name| measure(name, 0.0, thresholds, "show one whole face"))
            .collect();
    };
    let (light, near) = (Luminance::of(pixels, &face), Near::of(pixels, &face));
    // A face outside of the image shows nothing.
    let detail = near.as_ref().map_or(Detail { eyes: 0.0, mouth: 0.0 }, |near| Detail::of(near, &face));
    let uncovered = near.as_ref().map_or(0.0, occlusion::uncovered);
    let mean = light.mean();
    let (yaw, pitch) = (yaw(&face), pitch(&face));
    let take = |name, value, advice| measure(name, value, thresholds, advice);
    vec![
        take(MeasureName::InterEyeDistance, face.inter_eye / GOOD_INTER_EYE, "too small: move closer"),
        take(MeasureName::Sharpness, light.sharpness(), "blurred: hold the camera still and let it focus"),
        take(
            MeasureName::LuminanceMean,
            logistic(mean, 0.2) * (1.0 - logistic(mean, 0.8)),
            if mean < 0.5 { "too dark: add light on the face" } else { "too bright: less light on the face" },
        ),
        take(
            MeasureName::UnderExposurePrevention,
            1.0 - light.share(|v| v <= 25.0),
            "parts of the face are black: add light from the front",
        ),
        take(
            MeasureName::OverExposurePrevention,
            1.0 - light.share(|v| v >= 247.0),
            "parts of the face are white: avoid lamps, flash and sun on the face",
        ),
        take(MeasureName::HeadPoseYaw, frontal(yaw), "turn the face to the camera"),
        take(
            MeasureName::HeadPosePitch,
            frontal(pitch),
            if pitch > 0.0 { "raise the chin or lower the camera" } else { "lower the chin or raise the camera" },
        ),
        take(
            MeasureName::HeadPoseRoll,
            if turned { 0.0 } else { frontal(face.roll) },
            "hold the head and the camera upright",
        ),
        take(MeasureName::EyesVisible, detail.eyes / 2.0, "uncover both eyes: no sunglasses, hair or hand before them"),
        take(
            MeasureName::MouthOcclusionPrevention,
            detail.mouth / 2.0,
            "uncover mouth and chin: no mask, scarf or hand",
        ),
        take(
            MeasureName::FaceOcclusionPrevention,
            uncovered,
            "show the face alone: take off or put away what covers a part of it",
        ),
    ]
}

/// Pixels between the eyes that ISO/IEC 39794-5 asks of an ID photo.
const GOOD_INTER_EYE: f32 = 90.0;
/// The scale at which sharpness is measured: about that of the networks' inputs. What is finer they cannot see.
const SHARPNESS_INTER_EYE: f32 = 40.0;
/// How far the nose tip stands out from the plane of eyes and mouth, in inter-eye distances.
const NOSE_DEPTH: f32 = 0.6;
/// From the eyes to the mouth, in inter-eye distances, and the share of it at which a frontal face has its nose tip.
const EYES_TO_MOUTH: f32 = 1.05;
const NOSE_SHARE: f32 = 0.62;

/// `value` is a share of 1.
fn measure(name: MeasureName, value: f32, thresholds: &QualityThresholds, advice: &'static str) -> Measure {
    let (value, least) = ((value * 100.0).round().clamp(0.0, 100.0) as u8, thresholds.least(name));
    Measure { name, value, least, advice: if value >= least { "" } else { advice } }
}

fn logistic(value: f32, middle: f32) -> f32 {
    1.0 / (1.0 + (-(value - middle) / 0.05).exp())
}

/// 1 for a right view, 0 for a right angle and beyond.
fn frontal(angle: f32) -> f32 {
    angle.cos().max(0.0).powi(2)
}

/// Radians; positive: turned to the right as seen. The nose tip leaves the line from the eyes' to the mouth's middle.
fn yaw(face: &UprightFace) -> f32 {
    let mouth = face.mouth();
    let on_line = mouth.x * share_of_the_way(face);
    ((face.nose_tip.x - on_line) / NOSE_DEPTH).atan()
}

/// Radians; positive: chin down. The nose tip comes nearer to the mouth than on a frontal face.
fn pitch(face: &UprightFace) -> f32 {
    ((share_of_the_way(face) - NOSE_SHARE) * EYES_TO_MOUTH / NOSE_DEPTH).atan()
}

/// How far down from the eyes to the mouth the nose tip is.
fn share_of_the_way(face: &UprightFace) -> f32 {
    let down = face.mouth().y;
    if down.abs() < 0.1 { 0.0 } else { (face.nose_tip.y / down).clamp(-2.0, 3.0) }
}

/// Luminance (BT.601, 0 to 255) of the face's inner part, row by row.
struct Luminance {
    width: usize,
    values: Vec<f32>,
}

impl Luminance {
    /// The square that eyes, nose and mouth fill, at most [`SHARPNESS_INTER_EYE`] between the eyes.
    fn of(pixels: &Pixels, face: &UprightFace) -> Self {
        let (sin, cos) = face.roll.sin_cos();
        let middle = face.mouth().y.clamp(0.4, 3.0) / 2.0 * face.inter_eye;
        let side = 2.0 * face.inter_eye;
        let (x, y) = (face.eyes.x - sin * middle, face.eyes.y + cos * middle);
        let rect = Rect { x: x - side / 2.0, y: y - side / 2.0, width: side, height: side };
        let Some(region) = rect.clipped(pixels.width(), pixels.height()) else {
            return Self { width: 1, values: vec![] };
        };
        let scale = (SHARPNESS_INTER_EYE / face.inter_eye).min(1.0);
        let scaled = |side: u32| ((side as f32 * scale).round() as u32).max(1);
        let part = pixels.frame(region).resized(scaled(region.width), scaled(region.height));
        Self { width: part.width() as usize, values: part.rgb8().chunks_exact(3).map(luminance).collect() }
    }

    /// 0 to 1.
    fn mean(&self) -> f32 {
        self.values.iter().sum::<f32>() / (self.values.len().max(1) as f32 * 255.0)
    }

    fn share(&self, of: impl Fn(f32) -> bool) -> f32 {
        self.values.iter().filter(|v| of(**v)).count() as f32 / self.values.len().max(1) as f32
    }

    /// 0 to 1.
    fn sharpness(&self) -> f32 {
        let rows: Vec<&[f32]> = self.values.chunks_exact(self.width).collect();
        let mut laplacian = Vec::with_capacity(self.values.len());
        for three in rows.windows(3) {
            let columns = three[0].windows(3).zip(three[1].windows(3)).zip(three[2].windows(3));
            laplacian.extend(columns.map(|((up, at), down)| up[1] + down[1] + at[0] + at[2] - 4.0 * at[1]));
        }
        // Noise of the sensor or of compression, 1 grey level, in a flat image is no detail.
        let ratio = variance(&laplacian) / (variance(&self.values) + NOISE_VARIANCE);
        1.0 - (-SHARPNESS_GAIN * ratio).exp()
    }
}

/// BT.601, 0 to 255.
fn luminance(p: &[u8]) -> f32 {
    0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2])
}

const NOISE_VARIANCE: f32 = 4.0;
const SHARPNESS_GAIN: f32 = 12.0;

fn variance(values: &[f32]) -> f32 {
    let n = values.len().max(1) as f32;
    let mean = values.iter().sum::<f32>() / n;
    values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use vultus_engine::image::{Point, Similarity};

    const SIDE: u32 = 150;

    fn five() -> FiveLandmarks {
        FiveLandmarks::from_points([(45.0, 45.0), (101.0, 45.0), (73.0, 81.0), (50.0, 104.0), (96.0, 104.0)].map(at))
    }

    fn at((x, y): (f32, f32)) -> Point {
        Point { x, y }
    }

    /// Skin with the contrasts of a face: fine lines over slow shading.
    fn face(light: impl Fn(f32) -> f32) -> Pixels {
        let pixel = |i: u32| {
            let (x, y) = ((i % SIDE) as f32, (i / SIDE) as f32);
            let shading = 120.0 + 40.0 * (x / 40.0).sin() + 20.0 * (y / 30.0).cos();
            let lines = 15.0 * (x * 1.9).sin() * (y * 1.3).sin();
            [light(shading + lines).clamp(0.0, 255.0) as u8; 3]
        };
        Pixels::new(SIDE, SIDE, (0..SIDE * SIDE).flat_map(pixel).collect()).unwrap()
    }

    /// Box blur, three times: close to a Gaussian.
    fn blurred(image: &Pixels, radius: i32) -> Pixels {
        let mut rgb8 = image.rgb8().to_vec();
        let side = SIDE as i32;
        for step in [3, SIDE as i32 * 3].repeat(3) {
            let before = rgb8.clone();
            for (i, value) in rgb8.iter_mut().enumerate() {
                let along = if step == 3 { i as i32 / 3 % side } else { i as i32 / 3 / side };
                let reach = (-radius).max(-along)..=radius.min(side - 1 - along);
                let n = reach.clone().count() as u32;
                *value = (reach.map(|d| u32::from(before[(i as i32 + d * step) as usize])).sum::<u32>() / n) as u8;
            }
        }
        Pixels::new(SIDE, SIDE, rgb8).unwrap()
    }

    fn thresholds() -> QualityThresholds {
        use MeasureName::*;
        let least = [
            (InterEyeDistance, 20),
            (Sharpness, 18),
            (LuminanceMean, 15),
            (UnderExposurePrevention, 40),
            (OverExposurePrevention, 75),
            (HeadPoseYaw, 40),
            (HeadPosePitch, 40),
            (HeadPoseRoll, 50),
        ];
        least.into_iter().fold(QualityThresholds::default(), |all, (name, value)| all.with(name, value))
    }

    fn refused(image: &Pixels, five: &FiveLandmarks) -> Vec<MeasureName> {
        let measures = assess(image, five, false, &thresholds());
        assert_eq!(measures.len(), MeasureName::ALL.len() - 1);
        assert!(measures.iter().all(|m| m.value <= 100 && m.accepted() == m.advice.is_empty()));
        measures.iter().filter(|m| !m.accepted()).map(|m| m.name).collect()
    }

    #[test]
    fn each_fault_is_called_by_its_name() {
        use MeasureName::*;
        let good = face(|v| v);
        assert_eq!(refused(&good, &five()), []);
        assert_eq!(refused(&face(|v| v * 0.15), &five()), [LuminanceMean, UnderExposurePrevention]);
        assert_eq!(refused(&face(|v| v + 125.0), &five()), [LuminanceMean, OverExposurePrevention]);
        assert_eq!(refused(&blurred(&good, 4), &five()), [Sharpness]);
        let small = FiveLandmarks::from_points(five().points().map(|p| at((p.x * 0.16, p.y * 0.16))));
        assert!(refused(&good.resized(24, 24), &small).contains(&InterEyeDistance));
        // Half the face in hard shadow.
        let shadow = {
            let mut rgb8 = good.rgb8().to_vec();
            rgb8.chunks_exact_mut(3).enumerate().filter(|(i, _)| i % 150 < 90).for_each(|(_, p)| p.fill(8));
            Pixels::new(SIDE, SIDE, rgb8).unwrap()
        };
        assert!(refused(&shadow, &five()).contains(&UnderExposurePrevention));
    }

    #[test]
    fn each_turn_of_the_head_is_called_by_its_name() {
        use MeasureName::*;
        let good = face(|v| v);
        let mut aside = five();
        aside.nose_tip.x = 118.0;
        assert_eq!(refused(&good, &aside), [HeadPoseYaw]);
        let mut down = five();
        down.nose_tip.y = 104.0;
        assert_eq!(refused(&good, &down).len(), 0, "half way down is still a face");
        down.nose_tip.y = 125.0;
        assert_eq!(refused(&good, &down), [HeadPosePitch]);
        let (sin, cos) = 50f32.to_radians().sin_cos();
        let rolled = five().points().map(|p| {
            let (x, y) = (p.x - 75.0, p.y - 75.0);
            at((75.0 + cos * x - sin * y, 75.0 + sin * x + cos * y))
        });
        assert_eq!(refused(&good, &FiveLandmarks::from_points(rolled)), [HeadPoseRoll]);
    }

    #[test]
    fn what_is_covered_is_called_by_its_name() {
        use MeasureName::*;
        let thresholds = thresholds().with(EyesVisible, 40).with(MouthOcclusionPrevention, 40);
        let refused = |image: &Pixels, five: &FiveLandmarks| -> Vec<MeasureName> {
            let measures = assess(image, five, false, &thresholds);
            measures.iter().filter(|m| !m.accepted()).map(|m| m.name).collect()
        };
        // Eyes and a mouth have more detail than skin.
        let good = {
            let mut rgb8 = face(|v| v).rgb8().to_vec();
            for (x, y) in [(45, 45), (101, 45), (73, 104)] {
                let near = |i: usize| {
                    let (px, py) = (i as i32 % SIDE as i32, i as i32 / SIDE as i32);
                    ((px - x).abs() < 14 && (py - y).abs() < 9).then_some((px / 4 + py / 4) % 2 == 0)
                };
                for (i, pixel) in rgb8.chunks_exact_mut(3).enumerate() {
                    near(i).into_iter().for_each(|light| pixel.fill(if light { 170 } else { 60 }));
                }
            }
            Pixels::new(SIDE, SIDE, rgb8).unwrap()
        };
        assert_eq!(refused(&good, &five()), []);
        let covered = |from: (u32, u32), to: (u32, u32)| {
            let inside = |i: usize| {
                let (x, y) = (i as u32 % SIDE, i as u32 / SIDE);
                (from.0..to.0).contains(&x) && (from.1..to.1).contains(&y)
            };
            let mut rgb8 = good.rgb8().to_vec();
            rgb8.chunks_exact_mut(3).enumerate().filter(|(i, _)| inside(*i)).for_each(|(_, p)| p.fill(130));
            Pixels::new(SIDE, SIDE, rgb8).unwrap()
        };
        for eye in [(20, 70), (80, 130)] {
            assert_eq!(refused(&covered((eye.0, 25), (eye.1, 65)), &five()), [EyesVisible]);
        }
        assert_eq!(refused(&covered((30, 80), (120, 130)), &five()), [MouthOcclusionPrevention]);
        // Turned with its image, it is the same face.
        let (sin, cos) = 15f32.to_radians().sin_cos();
        let middle = SIDE as f32 / 2.0;
        let back = |(x, y): (f32, f32)| (cos * x - sin * y, sin * x + cos * y);
        let (dx, dy) = back((middle, middle));
        let place = Similarity { a: cos, b: sin, dx: middle - dx, dy: middle - dy };
        let rolled = place.inverse().unwrap();
        let landmarks = FiveLandmarks::from_points(five().points().map(|p| rolled.apply(p)));
        for (image, expected) in [(covered((20, 25), (70, 65)), vec![EyesVisible]), (good.clone(), vec![])] {
            assert_eq!(refused(&image.warped(SIDE, SIDE, &place), &landmarks), expected);
        }
    }

    #[test]
    fn a_face_that_lies_otherwise_is_not_upright() {
        let measures = assess(&face(|v| v), &five(), true, &thresholds());
        let refused: Vec<_> = measures.iter().filter(|m| !m.accepted()).map(|m| (m.name, m.value)).collect();
        assert_eq!(refused, [(MeasureName::HeadPoseRoll, 0)]);
    }

    #[test]
    fn exposure_and_skin_tone_do_not_change_sharpness() {
        let of = |image: &Pixels| assess(image, &five(), false, &thresholds())[1].value;
        let (full, dark) = (of(&face(|v| v)), of(&face(|v| v * 0.4)));
        assert!(full.abs_diff(dark) <= 5, "{full} {dark}");
    }

    #[test]
    fn landmarks_that_are_no_face_are_all_refused() {
        let nowhere = FiveLandmarks::from_points([at((f32::NAN, 0.0)); 5]);
        assert_eq!(refused(&face(|v| v), &nowhere).len(), 8);
        let one = FiveLandmarks::from_points([at((9.0, 9.0)); 5]);
        assert_eq!(refused(&face(|v| v), &one).len(), 8);
        // Far outside the image there is no light.
        let away = FiveLandmarks::from_points(five().points().map(|p| at((p.x + 1e9, p.y))));
        assert!(!refused(&face(|v| v), &away).is_empty());
    }
}
