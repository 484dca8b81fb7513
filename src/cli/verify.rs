//! `vultus verify`: are these two photos of one person? In this process, without a server or a gallery.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::bytes::Bytes;
use serde_json::json;
use vultus_engine::{image::Pixels, view::Image};

use super::{Failure, Outcome, Shared, input, licence::Research, report::refusals};
use crate::{
    domain::{Decision, Fmr, Lane, Reason},
    pipeline::{
        Claim, FaceInput, ImageInput, Pipeline, Verified,
        decode::{Source, decode},
    },
    seal::RootKey,
};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The probe: a photo with one face, or a face crop; JPEG, PNG, WebP or JPEG 2000.
    probe: PathBuf,
    /// The reference, likewise.
    reference: PathBuf,
    /// The false match rate that the threshold keeps, as far as the model's calibration was counted.
    #[arg(long, default_value_t = 0.01)]
    max_fmr: f64,
    #[command(flatten)]
    research: Research,
}

/// A face that is longer than this, of the image's shorter side, fills the frame: the image is a crop already.
const FILLS_THE_FRAME: f32 = 0.5;

pub fn run(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    let max_fmr = Fmr::new(options.max_fmr).map_err(|e| format!("--max-fmr {}: {e}", options.max_fmr))?;
    let mut config = input::config(input::ONE_FILE)?;
    config.rates.max_fmr = max_fmr; // there is no other policy than what the caller asks for
    // Nothing is sealed that outlives this process.
    let pipeline = shared.started(&shared.licensed_model_set(options.research)?, &RootKey::random()?, &config)?;
    let verified = super::runtime()?.block_on(async {
        let probe = face(&pipeline, &options.probe).await?;
        let reference = face(&pipeline, &options.reference).await?;
        Ok::<_, Failure>(
            pipeline.verify(probe, Claim::Inline(reference), Some(max_fmr), &input::turn(Lane::Verification)).await?,
        )
    })?;
    report(&verified, options, &pipeline, shared.json);
    Ok(match verified.reason.decision() {
        Decision::Match => Outcome::Good,
        Decision::NonMatch => Outcome::Negative,
        Decision::Undetermined => Outcome::Undetermined,
    })
}

/// The one face of a photo; or the whole image, when it is a crop, or when no face stands out and the pipeline has to say why.
async fn face(pipeline: &Pipeline, path: &Path) -> Result<FaceInput, Failure> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let file = input::read(path, input::ONE_FILE.max_bytes).map_err(|e| named(&e))?;
    let photo = decode(Source::Encoded(&file), &input::ONE_FILE).map_err(|e| named(&e))?;
    let photo = Arc::new(Image::new(photo, ()));
    let faces = pipeline.faces_in_photo(&photo, input::deadline()).await.map_err(|e| named(&e))?;
    let (pixels, shorter) = (photo.pixels(), photo.pixels().width().min(photo.pixels().height()));
    match faces.as_slice() {
        [one] if one.rect.width.max(one.rect.height) <= FILLS_THE_FRAME * shorter as f32 => Ok(of_pixels(&one.crop)),
        [] | [_] => Ok(of_pixels(pixels)),
        several => {
            let found = several.len();
            Err(named(&format!("{found} faces were found, expected one: crop the photo to the face that is meant"))
                .into())
        }
    }
}

/// As the pipeline takes it.
pub(super) fn of_pixels(pixels: &Pixels) -> FaceInput {
    let rgb8 = Bytes::copy_from_slice(pixels.rgb8());
    FaceInput { image: ImageInput::Rgb8 { rgb8, width: pixels.width(), height: pixels.height() }, landmarks: None }
}

fn report(verified: &Verified, options: &Options, pipeline: &Pipeline, as_json: bool) {
    let (reason, decision) = (verified.reason, verified.reason.decision());
    let score = verified.score.map(|score| score.value());
    let distance = verified.score.map(|score| score.distance());
    let threshold = verified.threshold.value();
    if as_json {
        let object = json!({
            "decision": decision.as_str(),
            "reason": reason.as_str(),
            "score": score,
            "distance": distance,
            "threshold": threshold,
            "max_fmr": options.max_fmr,
            "model": pipeline.model().to_string(),
            "refused": verified.refused.as_ref().map(refusals).unwrap_or_default(),
        });
        return println!("{object}");
    }
    println!("{}  ({})", decision.as_str().to_uppercase().replace('_', "-"), reason.as_str());
    if let (Some(score), Some(distance)) = (score, distance) {
        println!("score      {score:.4}  (distance {distance:.4})");
        println!("threshold  {threshold:.4}  (false match rate of at most {})", options.max_fmr);
    }
    if let Some(assessment) = &verified.refused {
        let of_probe = matches!(reason, Reason::ProbeQuality | Reason::ProbeWithoutFace);
        println!("{}:", if of_probe { &options.probe } else { &options.reference }.display());
        for measure in assessment.refused() {
            let name = measure.name.as_str();
            println!("  {name} is {} of 100, expected {}: {}", measure.value, measure.least, measure.advice);
        }
    }
}
