//! The comparison decision and its typed reason.

/// ISO/IEC 2382-37 comparison decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    Match,
    NonMatch,
    /// No comparison was made.
    Undetermined,
}

/// Why. Each reason belongs to exactly one decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    ScoreReachesThreshold,
    /// Also when the claimed subject has no reference: the caller cannot tell the two apart.
    ScoreBelowThreshold,
    ProbeWithoutFace,
    ProbeQuality,
    ReferenceWithoutFace,
    ReferenceQuality,
}

impl Reason {
    pub const fn decision(self) -> Decision {
        match self {
            Self::ScoreReachesThreshold => Decision::Match,
            Self::ScoreBelowThreshold => Decision::NonMatch,
            Self::ProbeWithoutFace | Self::ProbeQuality | Self::ReferenceWithoutFace | Self::ReferenceQuality => {
                Decision::Undetermined
            }
        }
    }

    /// The word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ScoreReachesThreshold => "score_reaches_threshold",
            Self::ScoreBelowThreshold => "score_below_threshold",
            Self::ProbeWithoutFace => "probe_without_face",
            Self::ProbeQuality => "probe_quality",
            Self::ReferenceWithoutFace => "reference_without_face",
            Self::ReferenceQuality => "reference_quality",
        }
    }
}

impl Decision {
    /// The word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::NonMatch => "non_match",
            Self::Undetermined => "undetermined",
        }
    }
}
