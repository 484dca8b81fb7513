//! Places in a face.

use vultus_engine::image::Point;

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
