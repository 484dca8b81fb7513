//! From an image to a template: decode, locate, judge, align, embed.

use std::{
    ops::Add,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::bytes::Bytes;

use super::{
    Lane, Pipeline,
    align::{self, ImplausibleLandmarks},
    batch::DeviceError,
    decode::{self, DecodeError},
    locate::{self, Chosen, Framing, View},
    quality,
};
use crate::{
    domain::{
        Assessment, FaceCrop, FiveLandmarks, Landmarks68, Measure, MeasureName, Pixels, QualityThresholds, Rect,
        Template,
    },
    model::{Role, detector, landmarks},
    telemetry::Metrics,
};

/// One face, as it came.
#[derive(Debug)]
pub struct FaceInput {
    pub image: ImageInput,
    /// Where the caller says the face is, pixels of the upright image.
    pub landmarks: Option<FiveLandmarks>,
}

/// An image, as it came. `Debug` shows lengths alone.
pub enum ImageInput {
    /// A JPEG, PNG or WebP file.
    Encoded(Bytes),
    /// Rows of R G B from the top.
    Rgb8 { rgb8: Bytes, width: u32, height: u32 },
}

impl ImageInput {
    fn source(&self) -> decode::Source<'_> {
        match self {
            Self::Encoded(file) => decode::Source::Encoded(file),
            Self::Rgb8 { rgb8, width, height } => decode::Source::Rgb8 { rgb8, width: *width, height: *height },
        }
    }
}

impl std::fmt::Debug for ImageInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.source().fmt(f)
    }
}

/// How long the stages took, wall time. A stage that did not run is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    pub decode: Duration,
    /// Locating, quality and alignment, the networks' part included.
    pub align: Duration,
    /// Waiting for the device to embed.
    pub queue: Duration,
    pub extract: Duration,
    /// Comparison, search or commit.
    pub compare: Duration,
}

impl Add for Timings {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            decode: self.decode + other.decode,
            align: self.align + other.align,
            queue: self.queue + other.queue,
            extract: self.extract + other.extract,
            compare: self.compare + other.compare,
        }
    }
}

/// What became of an image.
#[derive(Debug)]
pub struct Extraction {
    /// The template; or why there is none, in terms of quality.
    pub outcome: Result<Template, Assessment>,
    pub timings: Timings,
}

/// Why an image could not be judged at all.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Landmarks(#[from] ImplausibleLandmarks),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the deadline passed before the image was decoded")]
    Late,
    #[error("{0}")]
    Internal(&'static str),
}

/// An image in which a face was looked for.
pub(super) struct Looked {
    pub pixels: Arc<Pixels>,
    pub assessment: Assessment,
    landmarks: Option<Placed>,
    pub timings: Timings,
}

/// The landmarks that align the face.
enum Placed {
    /// By the landmark network.
    Network(Box<Landmarks68>),
    Caller(FiveLandmarks),
}

impl Placed {
    fn landmarks(&self) -> align::Landmarks<'_> {
        match self {
            Self::Network(all) => align::Landmarks::SixtyEight(all),
            Self::Caller(five) => align::Landmarks::Five(five),
        }
    }
}

impl Pipeline {
    /// From an image to a template; or to the measures that refuse it.
    ///
    /// # Errors
    /// [`ExtractError`] when the image could not be judged.
    pub async fn extract(&self, face: FaceInput, lane: Lane, deadline: Instant) -> Result<Extraction, ExtractError> {
        let looked = self.look(face, lane, deadline).await?;
        let mut timings = looked.timings;
        if !looked.assessment.acceptable() {
            for measure in looked.assessment.refused() {
                Metrics::get().refused_measures_total.with_label_values(&[measure.name.as_str()]).inc();
            }
            return Ok(Extraction { outcome: Err(looked.assessment), timings });
        }
        let Some(placed) = looked.landmarks else {
            return Err(ExtractError::Internal("an accepted face has landmarks"));
        };
        let started = Instant::now();
        let (size, alignment, pixels) = (self.device.input_size(Role::Embed), self.card.alignment, looked.pixels);
        let crop = self
            .on_a_core(deadline, move || {
                align::align(&pixels, placed.landmarks(), alignment, (size.width, size.height))
            })
            .await?;
        timings.align += started.elapsed();
        let Ok(FaceCrop(crop)) = crop else {
            return Err(ExtractError::Internal("plausible landmarks align"));
        };
        let output = self.device.run(Role::Embed, crop, lane, deadline).await?;
        timings.queue += output.queued;
        timings.extract += output.ran;
        let template = Template::new(self.model, output.values)
            .map_err(|_| DeviceError::Failed("the network's output is no template".into()))?;
        Ok(Extraction { outcome: Ok(template), timings })
    }

    /// Decodes, finds the face, places its landmarks and measures its quality.
    pub(super) async fn look(&self, face: FaceInput, lane: Lane, deadline: Instant) -> Result<Looked, ExtractError> {
        let FaceInput { image, landmarks } = face;
        let (limits, side) = (self.decode, self.device.input_size(Role::Detect).width);
        let started = Instant::now();
        let decoded = self.on_a_core(deadline, move || -> Result<_, ExtractError> {
            let pixels = decode::decode(image.source(), &limits)?;
            if let Some(five) = &landmarks {
                align::check_landmarks(five, pixels.width(), pixels.height())?;
            }
            let view = View::new(&pixels, Framing::Crop, side);
            Ok((Arc::new(pixels), view))
        });
        let (pixels, view) = decoded.await??;
        let mut timings = Timings { decode: started.elapsed(), ..Timings::default() };
        Metrics::get().stage("decode", timings.decode);

        let started = Instant::now();
        let located = match self.locate(&pixels, view, lane, deadline).await? {
            None => None,
            Some(chosen) => {
                let placed = match landmarks {
                    Some(five) => Some(Placed::Caller(five)),
                    None => self.place_landmarks(&pixels, chosen.rect, lane, deadline).await?,
                };
                placed.map(|placed| (chosen, placed))
            }
        };
        let thresholds = self.card.quality;
        let (assessment, landmarks) = match located {
            None => (Assessment { measures: vec![presence(0, &thresholds)], face: None }, None),
            Some((chosen, placed)) => {
                let (judged, five) = (Arc::clone(&pixels), placed.landmarks().five());
                let measures = self.on_a_core(deadline, move || quality::assess(&judged, &five, &thresholds)).await?;
                let measures = std::iter::once(presence(chosen.presence, &thresholds)).chain(measures).collect();
                (Assessment { measures, face: Some((chosen.rect, five)) }, Some(placed))
            }
        };
        timings.align = started.elapsed();
        Metrics::get().stage("align", timings.align);
        Ok(Looked { pixels, assessment, landmarks, timings })
    }

    /// The face that the image is about. A crop's framing first; the others only as long as no face was found.
    async fn locate(
        &self,
        pixels: &Arc<Pixels>,
        first: View,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Option<Chosen>, ExtractError> {
        let side = self.device.input_size(Role::Detect).width;
        let mut next = Some(first);
        for framing in Framing::ALL {
            let view = match next.take() {
                Some(view) => view,
                None => {
                    let pixels = Arc::clone(pixels);
                    self.on_a_core(deadline, move || View::new(&pixels, framing, side)).await?
                }
            };
            let output = self.device.run(Role::Detect, view.pixels.clone(), lane, deadline).await?;
            let found = detector::detections(&output.values, locate::LEAST_SCORE);
            let faces = view.faces(found.into_iter().map(|detection| (detection.rect, detection.score)));
            if let Some(chosen) = locate::choose(&faces, pixels.width(), pixels.height()) {
                return Ok(Some(chosen));
            }
        }
        Ok(None)
    }

    /// `None` when what the network places cannot be a face: then there is none.
    async fn place_landmarks(
        &self,
        pixels: &Arc<Pixels>,
        face: Rect,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Option<Placed>, ExtractError> {
        let (width, height) = (pixels.width(), pixels.height());
        let Some(region) = locate::landmark_region(&face, width, height) else { return Ok(None) };
        let (pixels, side) = (Arc::clone(pixels), self.device.input_size(Role::Landmark).width);
        let input = self.on_a_core(deadline, move || locate::landmark_view(&pixels, region, side)).await?;
        let output = self.device.run(Role::Landmark, input, lane, deadline).await?;
        let relative = landmarks::landmarks(&output.values, region.width as f32, region.height as f32);
        let placed = relative.map(|relative| locate::place_landmarks(&relative, region));
        Ok(placed
            .filter(|all| align::check_landmarks(&all.five(), width, height).is_ok())
            .map(|all| Placed::Network(Box::new(all))))
    }

    /// Runs work on pixels on a thread of its own, at most one per core; the rest wait their turn, and leave when nobody waits for them or
    /// their deadline passes.
    async fn on_a_core<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ExtractError> {
        let permit = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.cores).acquire_owned());
        let permit = permit.await.map_err(|_| ExtractError::Late)?;
        let permit = permit.map_err(|_| ExtractError::Internal("the cores' permits are never closed"))?;
        let worked = tokio::task::spawn_blocking(move || {
            let _permit = permit; // held until the work is done, also when nobody waits any more
            work()
        });
        worked.await.map_err(|_| ExtractError::Internal("work on an image panicked"))
    }
}

/// How surely one face is there, and alone.
fn presence(value: u8, thresholds: &QualityThresholds) -> Measure {
    let least = thresholds.least(MeasureName::FacePresence);
    Measure { name: MeasureName::FacePresence, value, least, advice: locate::PRESENCE_ADVICE }
}
