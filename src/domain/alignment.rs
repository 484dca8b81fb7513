//! How a face is brought to the size that a network takes.

use serde::{Deserialize, Serialize};

/// Part of what makes templates comparable: it stands in every face bundle's contract, and in its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Alignment {
    /// face-api's `useDlibAlignment`: an upright square; side: mean distance from the eyes' centres to the mouth's, divided
    /// by 0.45 and rounded down; the mean of the three centres lies at (0.5, 0.43) of it; clipped to the image, padded
    /// with black to a square (the content centred), scaled bilinearly.
    DlibSquare,
    /// The same square, neither moved nor clipped: black outside the image, as dlib's own chips. A face that fills the frame
    /// keeps its scale and place.
    DlibSquarePadded,
    /// InsightFace's `norm_crop`: turned, scaled and moved so that the five landmarks come closest to ArcFace's places in 112x112
    /// pixels (scaled with the input's size); bilinear, black outside the image.
    #[serde(rename = "arcface_112")]
    ArcFace112,
    /// The whole image is the face: padded with black to a square, scaled bilinearly. For crops made elsewhere.
    Whole,
}

impl Alignment {
    pub const ALL: [Self; 4] = [Self::DlibSquare, Self::DlibSquarePadded, Self::ArcFace112, Self::Whole];

    /// The word for it in model cards.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DlibSquare => "dlib_square",
            Self::DlibSquarePadded => "dlib_square_padded",
            Self::ArcFace112 => "arcface_112",
            Self::Whole => "whole",
        }
    }
}
