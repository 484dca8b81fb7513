//! Stage: from an image's landmarks to the view of the face that the network takes. Pure geometry.

mod plausible;

use vultus_engine::{
    image::{Point, Rect, Region, Similarity},
    input::InputSize,
    view::{Geometry, View},
};

use crate::domain::{Alignment, FiveLandmarks, Landmarks68};

pub use plausible::{ImplausibleLandmarks, check_agreement, check_landmarks};

/// The landmarks at hand.
#[derive(Debug, Clone, Copy)]
pub enum Landmarks<'a> {
    /// Of the landmark network.
    SixtyEight(&'a Landmarks68),
    /// The caller's.
    Five(&'a FiveLandmarks),
}

impl Landmarks<'_> {
    pub fn five(&self) -> FiveLandmarks {
        match self {
            Self::SixtyEight(all) => all.five(),
            Self::Five(five) => **five,
        }
    }

    fn square(&self) -> Rect {
        match self {
            Self::SixtyEight(all) => face_api_rect(all),
            Self::Five(five) => five_point_rect(five),
        }
    }
}

/// There is no face to cut out: the landmarks lie outside the image or are all in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no part of the face that the landmarks describe lies inside the image")]
pub struct NothingToAlign;

/// The face as the network takes it, of `size`, in an image of `width` x `height`.
///
/// # Errors
/// [`NothingToAlign`]; not with landmarks that passed [`check_landmarks`].
pub fn align(
    (width, height): (u32, u32),
    landmarks: Landmarks<'_>,
    alignment: Alignment,
    size: InputSize,
) -> Result<View, NothingToAlign> {
    match alignment {
        Alignment::DlibSquare => {
            let region = clipped_like_face_api(landmarks.square(), width, height).ok_or(NothingToAlign)?;
            Ok(View::squared(region, size))
        }
        Alignment::DlibSquarePadded => {
            let region = landmarks.square().region().filter(|r| overlaps(r, width, height)).ok_or(NothingToAlign)?;
            Ok(View::filled(region, size))
        }
        Alignment::ArcFace112 => arcface(width, height, &landmarks.five(), size).ok_or(NothingToAlign),
        Alignment::Whole => Ok(View::squared(Region { x: 0, y: 0, width, height }, size)),
    }
}

/// The square that face-api cuts for its descriptor (`alignDlib`), before it is brought into the image.
pub fn face_api_rect(landmarks: &Landmarks68) -> Rect {
    let five = landmarks.five();
    let mouth = &landmarks.0[48..68];
    let n = mouth.len() as f32;
    let mouth = mouth.iter().fold(Point::default(), |sum, p| Point { x: sum.x + p.x / n, y: sum.y + p.y / n });
    eyes_and_mouth_rect(five.left_eye, five.right_eye, mouth)
}

/// The same square from five landmarks. The mean of the mouth's 20 points lies below the middle between its corners, by
/// 0.054 of the way from the eyes to that middle (mean over 22 faces of ordinary photos; standard deviation 0.04).
pub fn five_point_rect(five: &FiveLandmarks) -> Rect {
    const LIPS: f32 = 0.054;
    let eyes = middle(five.left_eye, five.right_eye);
    let corners = middle(five.left_mouth_corner, five.right_mouth_corner);
    let mouth = Point { x: corners.x + LIPS * (corners.x - eyes.x), y: corners.y + LIPS * (corners.y - eyes.y) };
    eyes_and_mouth_rect(five.left_eye, five.right_eye, mouth)
}

fn eyes_and_mouth_rect(left_eye: Point, right_eye: Point, mouth: Point) -> Rect {
    /// Mean distance from eye to mouth, in sides of the square.
    const EYE_TO_MOUTH: f32 = 0.45;
    /// Where the mean of eyes and mouth lies in the square.
    const CENTRE: Point = Point { x: 0.5, y: 0.43 };
    let to_mouth = |eye: Point| (mouth.x - eye.x).hypot(mouth.y - eye.y);
    let side = ((to_mouth(left_eye) + to_mouth(right_eye)) / 2.0 / EYE_TO_MOUTH).floor();
    let centre = Point { x: (left_eye.x + right_eye.x + mouth.x) / 3.0, y: (left_eye.y + right_eye.y + mouth.y) / 3.0 };
    Rect { x: centre.x - CENTRE.x * side, y: centre.y - CENTRE.y * side, width: side, height: side }
}

/// face-api first moves the square to begin inside the image, then cuts off what is beyond its other end.
fn clipped_like_face_api(square: Rect, width: u32, height: u32) -> Option<Region> {
    let moved = Rect { x: square.x.max(0.0).floor(), y: square.y.max(0.0).floor(), ..square };
    moved.clipped(width, height)
}

/// At least an eighth of the side in both directions: less is no face.
fn overlaps(region: &Region, width: u32, height: u32) -> bool {
    let shared = |start: i32, length: u32, whole: u32| {
        (i64::from(start) + i64::from(length)).min(i64::from(whole)) - i64::from(start).max(0)
            >= i64::from(length / 8).max(1)
    };
    shared(region.x, region.width, width) && shared(region.y, region.height, height)
}

/// Where ArcFace networks expect the landmarks, in pixels of 112x112 (InsightFace's `arcface_dst`).
const ARCFACE_TEMPLATE: [Point; 5] = [
    Point { x: 38.2946, y: 51.6963 },
    Point { x: 73.5318, y: 51.5014 },
    Point { x: 56.0252, y: 71.7366 },
    Point { x: 41.5493, y: 92.3655 },
    Point { x: 70.7299, y: 92.2041 },
];
const ARCFACE_SIDE: f32 = 112.0;

fn arcface(width: u32, height: u32, five: &FiveLandmarks, size: InputSize) -> Option<View> {
    // Scaled down to half or below, sampling single pixels would alias: shrink by a whole factor first.
    let inter_eye = (five.right_eye.x - five.left_eye.x).hypot(five.right_eye.y - five.left_eye.y);
    let wanted = (ARCFACE_TEMPLATE[1].x - ARCFACE_TEMPLATE[0].x) * size.width as f32 / ARCFACE_SIDE;
    let most = width.min(height) / 2;
    let shrink = ((inter_eye / wanted) as u32).clamp(1, most.max(1));
    let (sx, sy) = ((width / shrink) as f32 / width as f32, (height / shrink) as f32 / height as f32);
    let from = five.points().map(|p| Point { x: p.x * sx, y: p.y * sy });
    let (tx, ty) = (size.width as f32 / ARCFACE_SIDE, size.height as f32 / ARCFACE_SIDE);
    let to = ARCFACE_TEMPLATE.map(|p| Point { x: p.x * tx, y: p.y * ty });
    let place = Similarity::fit(&from, &to)?.inverse()?;
    Some(View { size, geometry: Geometry::Warped { shrink, place }, lit: false, quarter_turns: 0 })
}

fn middle(a: Point, b: Point) -> Point {
    Point { x: (a.x + b.x) / 2.0, y: (a.y + b.y) / 2.0 }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use vultus_engine::image::Pixels;

    use super::*;

    const SIZE: InputSize = InputSize { width: 112, height: 112 };

    pub(super) fn frontal() -> FiveLandmarks {
        let point = |x, y| Point { x, y };
        FiveLandmarks {
            left_eye: point(70.0, 80.0),
            right_eye: point(130.0, 80.0),
            nose_tip: point(100.0, 115.0),
            left_mouth_corner: point(75.0, 145.0),
            right_mouth_corner: point(125.0, 145.0),
        }
    }

    fn reference() -> Option<serde_json::Value> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/faces/reference.json");
        let read = fs::read(path).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap());
        println!("{} face-api's rectangles", if read.is_some() { "compared with" } else { "skipped, not here:" });
        read
    }

    #[test]
    fn the_square_is_face_apis() {
        let Some(reference) = reference() else { return };
        let mut faces = 0;
        for face in reference["photos"].as_object().unwrap().values().flat_map(|p| p["faces"].as_array().unwrap()) {
            let number = |v: &serde_json::Value| v.as_f64().unwrap() as f32;
            let mut points = [Point::default(); 68];
            for (point, pair) in points.iter_mut().zip(face["landmarks"].as_array().unwrap()) {
                *point = Point { x: number(&pair[0]), y: number(&pair[1]) };
            }
            let rect = &face["aligned_rect"];
            let expected =
                Rect { x: number(&rect[0]), y: number(&rect[1]), width: number(&rect[2]), height: number(&rect[3]) };
            let landmarks = Landmarks68(points);
            let square = face_api_rect(&landmarks);
            let whole = Rect { x: square.x.floor(), y: square.y.floor(), ..square };
            assert_eq!(whole, expected);
            // Five landmarks say nearly the same.
            let five = five_point_rect(&landmarks.five());
            let (a, b) = (five.centre(), expected.centre());
            let away = (a.x - b.x).hypot(a.y - b.y) / expected.width;
            let scale = five.width / expected.width;
            assert!(away < 0.06 && (scale - 1.0).abs() < 0.09, "{away} {scale}");
            faces += 1;
        }
        assert_eq!(faces, 22);
    }

    #[test]
    fn the_square_has_dlibs_proportions() {
        let rect = five_point_rect(&frontal());
        // Mouth centre (100, 148.51); eyes to it 74.8; side 74.8 / 0.45.
        assert_eq!((rect.width, rect.height), (166.0, 166.0));
        assert_eq!((rect.x.floor(), rect.y.floor()), (17.0, 31.0));
    }

    #[test]
    fn arcface_brings_landmarks_to_the_template() {
        // A mark at each landmark of a larger, turned face comes to its place.
        for scale in [1.0, 3.0, 7.0] {
            let turn = Similarity { a: 0.8 * scale, b: 0.6 * scale, dx: 90.0 * scale, dy: 10.0 * scale };
            let places = ARCFACE_TEMPLATE.map(|p| turn.apply(p));
            let side = (220.0 * scale) as u32;
            let mut rgb8 = vec![0; (side * side * 3) as usize];
            for (i, pixel) in rgb8.chunks_exact_mut(3).enumerate() {
                let (x, y) = ((i as u32 % side) as f32, (i as u32 / side) as f32);
                if places.iter().any(|p| (p.x - x).hypot(p.y - y) < 3.0 * scale) {
                    pixel.fill(255);
                }
            }
            let image = Pixels::new(side, side, rgb8).unwrap();
            let five = FiveLandmarks::from_points(places);
            let crop = align((side, side), Landmarks::Five(&five), Alignment::ArcFace112, SIZE).unwrap().of(&image);
            for p in ARCFACE_TEMPLATE {
                let at = (p.y as usize * 112 + p.x as usize) * 3;
                assert!(crop.rgb8()[at] > 200, "scale {scale}, {p:?}");
            }
            let lit = crop.rgb8().iter().filter(|v| **v > 127).count() / 3;
            assert!((100..200).contains(&lit), "scale {scale}: {lit} pixels");
        }
    }

    #[test]
    fn a_whole_crop_of_the_right_size_stays_as_it_is() {
        let image = Pixels::new(30, 30, (0..2700).map(|v| v as u8).collect()).unwrap();
        let size = InputSize { width: 30, height: 30 };
        let view = align((30, 30), Landmarks::Five(&frontal()), Alignment::Whole, size).unwrap();
        assert!(view.of(&image) == image);
    }

    #[test]
    fn landmarks_elsewhere_align_nothing() {
        let away = FiveLandmarks::from_points([Point { x: 500.0, y: 500.0 }; 5]);
        let nowhere = FiveLandmarks::from_points([Point { x: f32::NAN, y: f32::INFINITY }; 5]);
        for five in [away, nowhere] {
            for alignment in [Alignment::DlibSquare, Alignment::DlibSquarePadded, Alignment::ArcFace112] {
                assert!(align((30, 30), Landmarks::Five(&five), alignment, SIZE).is_err(), "{alignment:?}");
            }
        }
    }
}
