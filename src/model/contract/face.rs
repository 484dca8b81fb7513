//! What a card says of a face network: who finds faces for it, how they lie, how templates are compared and judged.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use vultus_engine::{input::Input, precision::Precision};

use super::{ContractError, is_name};
use crate::domain::{
    Alignment, Calibration, CalibrationPoint, Fmr, MeasureName, QualityThresholds, Score, Template, Threshold,
};

/// How templates are compared. Score is `1 - d²/2` of the Euclidean distance d, in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// As they are.
    Euclidean,
    /// Scaled to length 1 first: the score is then the cosine.
    Cosine,
}

impl Metric {
    /// The network's outputs as features to compare. All zeros stay: they have no direction.
    pub fn features(self, mut outputs: Vec<f32>) -> Vec<f32> {
        if self == Self::Cosine {
            let length = outputs.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            if length > 0.0 {
                outputs.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
            }
        }
        outputs
    }
}

/// What belongs to a face network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaceContract {
    /// The bundles that find and align faces for this one.
    pub detector: String,
    pub landmarks: String,
    pub alignment: Alignment,
    pub metric: Metric,
    /// The threshold that is customary for the network, as a distance and as a score.
    pub customary_distance: f32,
    pub customary_score: f32,
    /// One for each precision that was measured. In a precision without one no rate has a threshold: nothing serves and nobody is
    /// verified, but one can be measured.
    #[serde(default, deserialize_with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<CalibrationTable>,
    /// The least accepted value of each measure, 0 to 100; those not named accept all.
    pub quality: BTreeMap<String, u8>,
}

/// Thresholds by error rate, and where they come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CalibrationTable {
    /// The digest of the bundle that it was measured for: the thresholds of others say nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// The precision that it was measured in: another rounds scores, and so rates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// What was measured, and how little it proves.
    pub source: String,
    /// How rates below the measured ones were extrapolated.
    pub tail: String,
    pub mated_trials: u64,
    pub non_mated_trials: u64,
    pub non_mated_mean: f32,
    pub non_mated_standard_deviation: f32,
    /// Figures of others.
    #[serde(default)]
    pub published: Vec<Published>,
    /// By falling FMR.
    pub points: Vec<TablePoint>,
}

impl CalibrationTable {
    fn calibration(&self) -> Result<Calibration, ContractError> {
        let rate = ContractError::Value("calibration: a rate is above 0 and at most 1, thresholds are finite");
        let points: Option<Vec<_>> = (self.points.iter())
            .map(|p| {
                let threshold = Threshold::new(Score::new(p.threshold)?);
                Some(CalibrationPoint { fmr: Fmr::new(p.fmr).ok()?, threshold, trials: p.trials, fnmr: p.fnmr })
            })
            .collect();
        let spread = (self.non_mated_mean, self.non_mated_standard_deviation);
        if !(spread.0.is_finite() && spread.1.is_finite() && spread.1 > 0.0) {
            return Err(ContractError::Value("calibration: expected a mean and a positive standard deviation"));
        }
        Ok(Calibration::new(points.ok_or(rate)?)?)
    }
}

/// A table, or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CalibrationTable>, D::Error> {
    struct Tables;

    impl<'de> Visitor<'de> for Tables {
        type Value = Vec<CalibrationTable>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a calibration table for each precision, as [[face.calibration]]")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Ok(vec![CalibrationTable::deserialize(MapAccessDeserializer::new(map))?])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(seq))
        }
    }

    deserializer.deserialize_any(Tables)
}

/// A figure that was published, not measured here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    pub figure: String,
    pub source: String,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablePoint {
    pub fmr: f64,
    pub threshold: f32,
    /// Non-mated comparisons behind it; 0: extrapolated.
    pub trials: u64,
    /// Share of mated comparisons below the threshold, where measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fnmr: Option<f64>,
}

impl FaceContract {
    pub(super) fn check(&self, dimension: usize, input: &Input) -> Result<(), ContractError> {
        let mapped = 1.0 - self.customary_distance * self.customary_distance / 2.0;
        let rules = [
            (dimension <= Template::MAX_DIMENSION, "output.dimension: a template has at most 4096 values"),
            (is_name(&self.detector) && is_name(&self.landmarks), "face: detector and landmarks are names of bundles"),
            ((mapped - self.customary_score).abs() < 1e-6, "face: customary_score must be 1 - customary_distance² / 2"),
        ];
        if let Some((_, fault)) = rules.into_iter().find(|(good, _)| !good) {
            return Err(ContractError::Value(fault));
        }
        if self.alignment == Alignment::ArcFace112 && input.width != input.height {
            return Err(ContractError::NotSquare { width: input.width, height: input.height });
        }
        for table in &self.calibration {
            table.calibration()?;
            if self.calibration.iter().filter(|other| other.precision == table.precision).count() > 1 {
                return Err(ContractError::Value("face.calibration: expected one table for each precision"));
            }
        }
        self.quality_thresholds().map(|_| ())
    }

    /// Thresholds in this precision; none where nobody has measured them in it.
    pub fn calibration(&self, precision: Precision) -> Result<Calibration, ContractError> {
        let table = self.calibration.iter().find(|table| table.precision == Some(precision));
        table.map_or_else(|| Ok(Calibration::unmeasured()), CalibrationTable::calibration)
    }

    /// Every table must be that of the bundle of this `digest` (hexadecimal), and name its precision.
    ///
    /// # Errors
    /// [`ContractError::CalibrationOf`], [`ContractError::CalibrationOfUnknown`].
    pub fn calibrated_for(&self, digest: &str) -> Result<(), ContractError> {
        for table in &self.calibration {
            match (table.of.as_deref(), table.precision) {
                (Some(of), _) if of != digest => {
                    return Err(ContractError::CalibrationOf {
                        of: of.chars().take(64).collect(),
                        digest: digest.into(),
                    });
                }
                (Some(_), Some(_)) => {}
                _ => return Err(ContractError::CalibrationOfUnknown { digest: digest.into() }),
            }
        }
        Ok(())
    }

    pub fn quality_thresholds(&self) -> Result<QualityThresholds, ContractError> {
        let mut thresholds = QualityThresholds::default();
        for (word, &least) in &self.quality {
            let name = MeasureName::ALL.into_iter().find(|name| name.as_str() == word);
            let name = name.ok_or_else(|| ContractError::Measure(word.chars().take(64).collect()))?;
            if least > 100 {
                return Err(ContractError::Value("quality: thresholds are 0 to 100"));
            }
            thresholds = thresholds.with(name, least);
        }
        Ok(thresholds)
    }
}
