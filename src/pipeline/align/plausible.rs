//! Are a caller's landmarks a face in this image?

use vultus_engine::image::Point;

use crate::domain::{Assessment, FiveLandmarks};

/// What five points of a face are not. The message says what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImplausibleLandmarks {
    #[error("landmarks must be finite numbers")]
    NotFinite,
    #[error("landmarks must lie in the upright image, in pixels of it")]
    Outside,
    #[error("the eyes must be at least {} pixels apart", least_inter_eye())]
    Eyes,
    #[error("left and right are as seen in the image: the left eye and mouth corner have the smaller x")]
    Swapped,
    #[error("the face must be upright within {} degrees", MAX_ROLL_DEGREES)]
    Roll,
    #[error("the mouth must be below the eyes, at about their distance")]
    Mouth,
    #[error("the nose tip must be between eyes and mouth")]
    Nose,
    #[error("landmarks must be those of the face in the image, within {} % of the distance between its eyes", (MAX_APART * 100.0) as u32)]
    Elsewhere,
}

/// Pixels between the eyes' centres.
const MIN_INTER_EYE: f32 = 4.0;
const MAX_ROLL_DEGREES: u32 = 60;
/// How far beyond the image's border a landmark may lie, in shares of the longer side: faces are cut off at crops' edges.
const BEYOND: f32 = 0.1;

/// How far apart two opinions on a landmark may be, in inter-eye distances. Detectors in use differ by less than half of it.
const MAX_APART: f32 = 0.3;

/// Checks that a caller's landmarks are those that the network `seen` in the image: a template must be of the face that was judged,
/// not of whatever the caller points at.
///
/// # Errors
/// [`ImplausibleLandmarks::Elsewhere`].
pub fn check_agreement(caller: &FiveLandmarks, seen: &FiveLandmarks) -> Result<(), ImplausibleLandmarks> {
    let least = MAX_APART * Assessment::inter_eye_distance(seen);
    let apart = |(a, b): (Point, Point)| (a.x - b.x).hypot(a.y - b.y);
    let near = caller.points().into_iter().zip(seen.points()).map(apart).all(|distance| distance <= least);
    if near { Ok(()) } else { Err(ImplausibleLandmarks::Elsewhere) }
}

fn least_inter_eye() -> u32 {
    MIN_INTER_EYE as u32
}

/// Checks five landmarks of a `width` x `height` image.
///
/// The face is turned upright by the line through its eyes and measured in inter-eye distances from the eyes' middle. The
/// bounds admit every pose that a template could be made of, up to half profile, and no swap of any two points.
///
/// # Errors
/// [`ImplausibleLandmarks`] names the first expectation that is not met.
pub fn check_landmarks(five: &FiveLandmarks, width: u32, height: u32) -> Result<(), ImplausibleLandmarks> {
    let points = five.points();
    if points.iter().any(|p| !(p.x.is_finite() && p.y.is_finite())) {
        return Err(ImplausibleLandmarks::NotFinite);
    }
    let margin = BEYOND * width.max(height) as f32;
    let inside = |p: &Point| {
        (-margin..=width as f32 + margin).contains(&p.x) && (-margin..=height as f32 + margin).contains(&p.y)
    };
    if !points.iter().all(inside) {
        return Err(ImplausibleLandmarks::Outside);
    }
    let face = five.upright().filter(|f| f.inter_eye >= MIN_INTER_EYE).ok_or(ImplausibleLandmarks::Eyes)?;
    let (left, right, mouth, nose) = (face.left_mouth_corner, face.right_mouth_corner, face.mouth(), face.nose_tip);
    if five.right_eye.x <= five.left_eye.x || right.x <= left.x {
        return Err(ImplausibleLandmarks::Swapped);
    }
    if face.roll.abs() > (MAX_ROLL_DEGREES as f32).to_radians() {
        return Err(ImplausibleLandmarks::Roll);
    }
    let near = left.y > 0.2 && right.y > 0.2 && (0.4..=3.0).contains(&mouth.y) && mouth.x.abs() <= 1.5;
    if !near || !(0.2..=2.5).contains(&(right.x - left.x)) {
        return Err(ImplausibleLandmarks::Mouth);
    }
    // At half profile the nose tip passes beyond the farther eye; pitch moves it up or down.
    if nose.y < -0.1 || nose.y > mouth.y || nose.x.abs() > 1.5 {
        return Err(ImplausibleLandmarks::Nose);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::tests::frontal, *};

    fn check(five: &FiveLandmarks) -> Result<(), ImplausibleLandmarks> {
        check_landmarks(five, 200, 200)
    }

    #[test]
    fn ordinary_faces_pass() {
        assert_eq!(check(&frontal()), Ok(()));
        let mut turned_aside = frontal();
        turned_aside.nose_tip.x = 135.0;
        assert_eq!(check(&turned_aside), Ok(()));
        for degrees in [-55, -30, 10, 45, 58] {
            assert_eq!(check(&rolled(degrees)), Ok(()), "{degrees} degrees");
        }
    }

    fn rolled(degrees: i32) -> FiveLandmarks {
        let (sin, cos) = (degrees as f32).to_radians().sin_cos();
        let turn = |p: Point| {
            let (x, y) = (p.x - 100.0, p.y - 100.0);
            Point { x: 100.0 + cos * x - sin * y, y: 100.0 + sin * x + cos * y }
        };
        FiveLandmarks::from_points(frontal().points().map(turn))
    }

    #[test]
    fn every_swap_of_two_landmarks_is_refused() {
        for a in 0..5 {
            for b in 0..a {
                let mut points = frontal().points();
                points.swap(a, b);
                assert!(check(&FiveLandmarks::from_points(points)).is_err(), "{a} and {b}");
            }
        }
    }

    #[test]
    fn what_is_no_face_is_refused_with_its_reason() {
        use ImplausibleLandmarks::*;
        let all = |x, y| FiveLandmarks::from_points([Point { x, y }; 5]);
        assert_eq!(check(&all(100.0, 100.0)), Err(Eyes));
        assert_eq!(check(&all(f32::NAN, 100.0)), Err(NotFinite));
        assert_eq!(check(&all(100.0, f32::NEG_INFINITY)), Err(NotFinite));
        assert_eq!(check(&all(0.0, 0.0)), Err(Eyes));
        assert_eq!(check(&rolled(75)), Err(Roll));
        assert_eq!(check(&rolled(180)), Err(Swapped));
        let moved = |dx: f32| FiveLandmarks::from_points(frontal().points().map(|p| Point { x: p.x + dx, ..p }));
        assert_eq!(check(&moved(80.0)), Ok(()), "cut off at the edge");
        assert_eq!(check(&moved(100.0)), Err(Outside));
        // Shares of the image instead of pixels: a common mistake.
        let shares = FiveLandmarks::from_points(frontal().points().map(|p| Point { x: p.x / 200.0, y: p.y / 200.0 }));
        assert_eq!(check(&shares), Err(Eyes));
        let mut mirrored = frontal();
        (mirrored.left_eye, mirrored.right_eye) = (mirrored.right_eye, mirrored.left_eye);
        assert_eq!(check(&mirrored), Err(Swapped));
        let mut far = frontal();
        (far.left_mouth_corner.y, far.right_mouth_corner.y) = (85.0, 85.0);
        assert_eq!(check(&far), Err(Mouth));
        let mut high = frontal();
        high.nose_tip.y = 60.0;
        assert_eq!(check(&high), Err(Nose));
    }
}
