//! Quality measures after ISO/IEC 29794-5: each 0 (worst) to 100 (best).

use vultus_engine::image::{Point, Rect};

use super::FiveLandmarks;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MeasureName {
    FacePresence,
    InterEyeDistance,
    Sharpness,
    LuminanceMean,
    UnderExposurePrevention,
    OverExposurePrevention,
    HeadPoseYaw,
    HeadPosePitch,
    HeadPoseRoll,
    EyesVisible,
    MouthOcclusionPrevention,
    FaceOcclusionPrevention,
}

impl MeasureName {
    pub const ALL: [Self; 12] = [
        Self::FacePresence,
        Self::InterEyeDistance,
        Self::Sharpness,
        Self::LuminanceMean,
        Self::UnderExposurePrevention,
        Self::OverExposurePrevention,
        Self::HeadPoseYaw,
        Self::HeadPosePitch,
        Self::HeadPoseRoll,
        Self::EyesVisible,
        Self::MouthOcclusionPrevention,
        Self::FaceOcclusionPrevention,
    ];

    /// The word for it in model cards, logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FacePresence => "face_presence",
            Self::InterEyeDistance => "inter_eye_distance",
            Self::Sharpness => "sharpness",
            Self::LuminanceMean => "luminance_mean",
            Self::UnderExposurePrevention => "under_exposure_prevention",
            Self::OverExposurePrevention => "over_exposure_prevention",
            Self::HeadPoseYaw => "head_pose_yaw",
            Self::HeadPosePitch => "head_pose_pitch",
            Self::HeadPoseRoll => "head_pose_roll",
            Self::EyesVisible => "eyes_visible",
            Self::MouthOcclusionPrevention => "mouth_occlusion_prevention",
            Self::FaceOcclusionPrevention => "face_occlusion_prevention",
        }
    }
}

/// The least accepted value of every measure, 0 to 100; 0 accepts all. Belongs to a model bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QualityThresholds([u8; MeasureName::ALL.len()]);

impl QualityThresholds {
    /// The same with another value for one measure.
    pub fn with(mut self, name: MeasureName, least: u8) -> Self {
        self.0[name as usize] = least;
        self
    }

    pub fn least(&self, name: MeasureName) -> u8 {
        self.0[name as usize]
    }
}

/// One measure of one face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measure {
    pub name: MeasureName,
    /// 0 to 100.
    pub value: u8,
    /// The least accepted value, 0 to 100.
    pub least: u8,
    /// What to do at the counter; empty where accepted.
    pub advice: &'static str,
}

impl Measure {
    pub fn accepted(&self) -> bool {
        self.value >= self.least
    }
}

/// All that was measured of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    pub measures: Vec<Measure>,
    /// Where the face is; `None` when none was found.
    pub face: Option<(Rect, FiveLandmarks)>,
}

impl Assessment {
    pub fn face_found(&self) -> bool {
        self.face.is_some()
    }

    pub fn acceptable(&self) -> bool {
        self.face_found() && self.measures.iter().all(Measure::accepted)
    }

    pub fn refused(&self) -> impl Iterator<Item = &Measure> {
        self.measures.iter().filter(|m| !m.accepted())
    }

    /// Pixels between the eyes' centres.
    pub fn inter_eye_distance(five: &FiveLandmarks) -> f32 {
        let Point { x: dx, y: dy } =
            Point { x: five.right_eye.x - five.left_eye.x, y: five.right_eye.y - five.left_eye.y };
        dx.hypot(dy)
    }
}
