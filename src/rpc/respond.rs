//! From the domain to messages.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use vultus_engine::image::Point;

use super::pb;
use crate::{
    domain::{
        Candidate, CaseSummary, Decision, ExtractionVersion, FiveLandmarks, Judgement, Measure, MeasureName, Purpose,
        Reason, Verdict,
    },
    pipeline::Timings,
};

pub fn decision(decision: Decision) -> pb::Decision {
    match decision {
        Decision::Match => pb::Decision::Match,
        Decision::NonMatch => pb::Decision::NonMatch,
        Decision::Undetermined => pb::Decision::Undetermined,
    }
}

pub fn reason(reason: Reason) -> pb::DecisionReason {
    match reason {
        Reason::ScoreReachesThreshold => pb::DecisionReason::ScoreReachesThreshold,
        Reason::ScoreBelowThreshold => pb::DecisionReason::ScoreBelowThreshold,
        Reason::ProbeWithoutFace => pb::DecisionReason::ProbeWithoutFace,
        Reason::ProbeQuality => pb::DecisionReason::ProbeQuality,
        Reason::ReferenceWithoutFace => pb::DecisionReason::ReferenceWithoutFace,
        Reason::ReferenceQuality => pb::DecisionReason::ReferenceQuality,
    }
}

/// The front end's word on a chip's signature, for the log.
pub fn told(chip: &pb::ChipAuthenticity) -> &'static str {
    match chip.told_by_caller() {
        pb::PassiveAuthentication::Unspecified => "unspecified",
        pb::PassiveAuthentication::NotChecked => "not_checked",
        pb::PassiveAuthentication::Passed => "passed",
        pb::PassiveAuthentication::Failed => "failed",
    }
}

pub fn purpose(purpose: Purpose) -> pb::Purpose {
    match purpose {
        Purpose::SimActivation => pb::Purpose::SimActivation,
        Purpose::SimReplacement => pb::Purpose::SimReplacement,
        Purpose::NumberPorting => pb::Purpose::NumberPorting,
        Purpose::CaseReview => pb::Purpose::CaseReview,
        Purpose::DataSubjectRequest => pb::Purpose::DataSubjectRequest,
        Purpose::Operations => pb::Purpose::Operations,
    }
}

pub fn measure(measure: &Measure) -> pb::QualityMeasure {
    use pb::QualityMeasureName as Name;
    let name = match measure.name {
        MeasureName::FacePresence => Name::FacePresence,
        MeasureName::InterEyeDistance => Name::InterEyeDistance,
        MeasureName::Sharpness => Name::Sharpness,
        MeasureName::LuminanceMean => Name::LuminanceMean,
        MeasureName::UnderExposurePrevention => Name::UnderExposurePrevention,
        MeasureName::OverExposurePrevention => Name::OverExposurePrevention,
        MeasureName::HeadPoseYaw => Name::HeadPoseYaw,
        MeasureName::HeadPosePitch => Name::HeadPosePitch,
        MeasureName::HeadPoseRoll => Name::HeadPoseRoll,
        MeasureName::EyesVisible => Name::EyesVisible,
        MeasureName::MouthOcclusionPrevention => Name::MouthOcclusionPrevention,
        MeasureName::FaceOcclusionPrevention => Name::FaceOcclusionPrevention,
    };
    pb::QualityMeasure {
        name: name.into(),
        value: measure.value.into(),
        least: measure.least.into(),
        accepted: measure.accepted(),
        advice: if measure.accepted() { String::new() } else { measure.advice.into() },
    }
}

pub fn extraction((version, references): (ExtractionVersion, usize)) -> pb::ExtractionCount {
    pb::ExtractionCount { version: version.to_string(), references: references as u64 }
}

pub fn landmarks(five: &FiveLandmarks) -> pb::FiveLandmarks {
    let point = |p: Point| Some(pb::Point { x: p.x, y: p.y });
    pb::FiveLandmarks {
        left_eye: point(five.left_eye),
        right_eye: point(five.right_eye),
        nose_tip: point(five.nose_tip),
        left_mouth_corner: point(five.left_mouth_corner),
        right_mouth_corner: point(five.right_mouth_corner),
    }
}

pub fn candidate(candidate: &Candidate, shows_scores: bool) -> pb::Candidate {
    pb::Candidate {
        rank: candidate.rank,
        subject_id: candidate.subject.to_string(),
        reference_id: candidate.reference.to_string(),
        score: shows_scores.then(|| candidate.score.value()),
    }
}

pub fn summary(case: CaseSummary) -> pb::CaseSummary {
    pb::CaseSummary {
        case_id: case.id.to_string(),
        opened_at: Some(timestamp(case.opened_at)),
        opened_by_transaction_id: case.opened_by.to_string(),
        opened_for: purpose(case.opened_for).into(),
        candidates: u32::try_from(case.candidates).unwrap_or(u32::MAX),
    }
}

pub fn judgement(judged: &Judgement) -> pb::Judgement {
    pb::Judgement {
        verdict: verdict(judged.verdict).into(),
        client: judged.client.to_string(),
        reviewer: judged.reviewer.to_string(),
        judged_at: Some(timestamp(judged.at)),
    }
}

pub fn verdict(verdict: Verdict) -> pb::Verdict {
    match verdict {
        Verdict::SamePerson => pb::Verdict::SamePerson,
        Verdict::OtherPerson => pb::Verdict::OtherPerson,
        Verdict::Unclear => pb::Verdict::Unclear,
    }
}

pub fn timings(timings: Timings, total: Duration) -> pb::StageTimings {
    let us = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    pb::StageTimings {
        decode_us: us(timings.decode),
        align_us: us(timings.align),
        queue_us: us(timings.queue),
        extract_us: us(timings.extract),
        compare_us: us(timings.compare),
        total_us: us(total),
    }
}

pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}
