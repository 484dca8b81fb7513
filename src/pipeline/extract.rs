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
    domain::{Assessment, FaceCrop, FiveLandmarks, Landmarks68, Pixels, QualityThresholds, Rect, Template},
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
    pub(super) fn source(&self) -> decode::Source<'_> {
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

impl Looked {
    fn without_face(pixels: Arc<Pixels>, thresholds: &QualityThresholds, timings: Timings) -> Self {
        let assessment = Assessment { measures: vec![locate::presence(None, thresholds)], face: None };
        Self { pixels, assessment, landmarks: None, timings }
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
            .on_a_core(lane, deadline, move || {
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
        let limits = self.decode;
        let started = Instant::now();
        let pixels = self
            .on_a_core(lane, deadline, move || -> Result<_, ExtractError> {
                let pixels = decode::decode(image.source(), &limits)?;
                if let Some(five) = &landmarks {
                    align::check_landmarks(five, pixels.width(), pixels.height())?;
                }
                Ok(Arc::new(pixels))
            })
            .await??;
        let mut timings = Timings { decode: started.elapsed(), ..Timings::default() };
        Metrics::get().stage("decode", timings.decode);

        let started = Instant::now();
        let mut located = None;
        for framing in Framing::ALL {
            let Some(face) = self.find_face(&pixels, framing, lane, deadline).await? else { continue };
            let Some(seen) = self.place_landmarks(&pixels, face.rect, lane, deadline).await? else { continue };
            let placed = match landmarks {
                Some(five) => {
                    align::check_agreement(&five, &seen.landmarks().five())?;
                    Placed::Caller(five)
                }
                None => seen,
            };
            located = Some((face, placed));
            break;
        }
        let thresholds = self.card.quality;
        let Some((face, placed)) = located else {
            timings.align = started.elapsed();
            return Ok(Looked::without_face(pixels, &thresholds, timings));
        };
        let five = placed.landmarks().five();
        let judged = Arc::clone(&pixels);
        let measures = self.on_a_core(lane, deadline, move || quality::assess(&judged, &five, &thresholds)).await?;
        let measures = std::iter::once(locate::presence(Some(&face), &thresholds)).chain(measures).collect();
        timings.align = started.elapsed();
        Metrics::get().stage("align", timings.align);
        let assessment = Assessment { measures, face: Some((face.rect, five)) };
        Ok(Looked { pixels, assessment, landmarks: Some(placed), timings })
    }

    async fn find_face(
        &self,
        pixels: &Arc<Pixels>,
        framing: Framing,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Option<Chosen>, ExtractError> {
        let faces = self.find_faces(pixels, framing, lane, deadline).await?;
        Ok(locate::choose(&faces, pixels.width(), pixels.height()))
    }

    /// All faces that the detector sees in this framing.
    pub(super) async fn find_faces(
        &self,
        pixels: &Arc<Pixels>,
        framing: Framing,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Vec<locate::Face>, ExtractError> {
        let (image, side) = (Arc::clone(pixels), self.device.input_size(Role::Detect).width);
        let View { pixels: seen, map } =
            self.on_a_core(lane, deadline, move || View::new(&image, framing, side)).await?;
        let output = self.device.run(Role::Detect, seen, lane, deadline).await?;
        let found = detector::detections(&output.values, framing.least_score());
        Ok(map.faces(found.into_iter().map(|d| (d.rect, d.score))))
    }

    /// `None` where the network's landmarks are no face.
    async fn place_landmarks(
        &self,
        pixels: &Arc<Pixels>,
        face: Rect,
        lane: Lane,
        deadline: Instant,
    ) -> Result<Option<Placed>, ExtractError> {
        let (width, height) = (pixels.width(), pixels.height());
        let Some(region) = locate::landmark_region(&face, width, height) else { return Ok(None) };
        let (image, side) = (Arc::clone(pixels), self.device.input_size(Role::Landmark).width);
        let input = self.on_a_core(lane, deadline, move || locate::landmark_view(&image, region, side)).await?;
        let output = self.device.run(Role::Landmark, input, lane, deadline).await?;
        let relative = landmarks::landmarks(&output.values, region.width as f32, region.height as f32);
        let placed = relative.map(|all| locate::place_landmarks(&all, region));
        let plausible = placed.filter(|all| align::check_landmarks(&all.five(), width, height).is_ok());
        Ok(plausible.map(|all| Placed::Network(Box::new(all))))
    }

    /// Runs work on pixels on a thread of its own, at most one per core and lane: enrolments that wait keep no verification waiting.
    /// The rest wait their turn, and leave when nobody waits for them or their deadline passes.
    pub(super) async fn on_a_core<T: Send + 'static>(
        &self,
        lane: Lane,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ExtractError> {
        let cores = match lane {
            Lane::Verification => &self.cores,
            Lane::Enrolment => &self.enrolment_cores,
        };
        let permit = tokio::time::timeout_at(deadline.into(), Arc::clone(cores).acquire_owned());
        let permit = permit.await.map_err(|_| ExtractError::Late)?;
        let permit = permit.map_err(|_| ExtractError::Internal("the cores' permits are never closed"))?;
        let worked = tokio::task::spawn_blocking(move || {
            let _permit = permit; // held until the work is done, also when nobody waits any more
            work()
        });
        worked.await.map_err(|_| ExtractError::Internal("work on an image panicked"))
    }
}
