//! From an image to a template: decode, locate, judge, align, embed.

use std::{
    ops::Add,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Pipeline, Shared,
    align::{self, ImplausibleLandmarks},
    batch::DeviceError,
    decode::{self, DecodeError},
    locate::{self, Chosen, Framing, View},
    quality,
    shares::{Late, Share},
};
use crate::{
    domain::{Assessment, FaceCrop, FiveLandmarks, Landmarks68, Lane, Pixels, QualityThresholds, Rect, Template, Turn},
    model::{Role, detector, landmarks},
    telemetry::Metrics,
};
use prost::bytes::Bytes;

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
    pub assessment: Assessment,
    pub timings: Timings,
    /// The image, and what aligns its face; `None` where no face was found.
    face: Option<(Arc<Pixels>, Placed)>,
    /// The room that the pixels take.
    _held: Share,
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
    fn without_face(held: Share, thresholds: &QualityThresholds, timings: Timings) -> Self {
        let assessment = Assessment { measures: vec![locate::presence(None, thresholds)], face: None };
        Self { assessment, timings, face: None, _held: held }
    }
}

impl Pipeline {
    /// From an image to a template; or to the measures that refuse it.
    ///
    /// # Errors
    /// [`ExtractError`] when the image could not be judged.
    pub async fn extract(&self, face: FaceInput, turn: &Turn) -> Result<Extraction, ExtractError> {
        let looked = self.look(face, turn).await?;
        let mut timings = looked.timings;
        if !looked.assessment.acceptable() {
            for measure in looked.assessment.refused() {
                Metrics::get().refused_measures_total.with_label_values(&[measure.name.as_str()]).inc();
            }
            return Ok(Extraction { outcome: Err(looked.assessment), timings });
        }
        let Some((pixels, placed)) = looked.face else {
            return Err(ExtractError::Internal("an accepted face has landmarks"));
        };
        let started = Instant::now();
        let crop = self.cut_out(pixels, placed, turn).await?;
        timings.align += started.elapsed();
        let output = self.device.run(Role::Embed, crop, turn).await?;
        timings.queue += output.queued;
        timings.extract += output.ran;
        let template = Template::new(self.model, self.card.metric.features(output.values))
            .map_err(|_| DeviceError::Failed("the network's output is no template".into()))?;
        Ok(Extraction { outcome: Ok(template), timings })
    }

    /// The face as the network takes it, whatever its quality; `None` where none was found.
    pub(super) async fn aligned(&self, face: FaceInput, turn: &Turn) -> Result<Option<Pixels>, ExtractError> {
        let looked = self.look(face, turn).await?;
        match looked.face {
            Some((pixels, placed)) => Ok(Some(self.cut_out(pixels, placed, turn).await?)),
            None => Ok(None),
        }
    }

    async fn cut_out(&self, pixels: Arc<Pixels>, placed: Placed, turn: &Turn) -> Result<Pixels, ExtractError> {
        let (size, alignment) = (self.device.input_size(Role::Embed), self.card.alignment);
        let cut = move || align::align(&pixels, placed.landmarks(), alignment, (size.width, size.height));
        match self.on_a_core(turn, cut).await? {
            Ok(FaceCrop(crop)) => Ok(crop),
            Err(_) => Err(ExtractError::Internal("plausible landmarks align")),
        }
    }

    /// Decodes, finds the face, places its landmarks and measures its quality.
    pub(super) async fn look(&self, face: FaceInput, turn: &Turn) -> Result<Looked, ExtractError> {
        let FaceInput { image, landmarks } = face;
        let limits = self.decode;
        let started = Instant::now();
        let held = self.room_for_pixels(decode::most_pixel_bytes(image.source(), &limits), turn).await?;
        let pixels = self
            .on_a_core(turn, move || -> Result<_, ExtractError> {
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
            let Some(face) = self.find_face(&pixels, framing, turn).await? else { continue };
            let Some(seen) = self.place_landmarks(&pixels, face.rect, turn).await? else { continue };
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
            return Ok(Looked::without_face(held, &thresholds, timings));
        };
        let five = placed.landmarks().five();
        let judged = Arc::clone(&pixels);
        let measures = self.on_a_core(turn, move || quality::assess(&judged, &five, &thresholds)).await?;
        let measures = std::iter::once(locate::presence(Some(&face), &thresholds)).chain(measures).collect();
        timings.align = started.elapsed();
        Metrics::get().stage("align", timings.align);
        let assessment = Assessment { measures, face: Some((face.rect, five)) };
        Ok(Looked { face: Some((pixels, placed)), assessment, timings, _held: held })
    }

    async fn find_face(
        &self,
        pixels: &Arc<Pixels>,
        framing: Framing,
        turn: &Turn,
    ) -> Result<Option<Chosen>, ExtractError> {
        let faces = self.find_faces(pixels, framing, turn).await?;
        Ok(locate::choose(&faces, pixels.width(), pixels.height()))
    }

    /// All faces that the detector sees in this framing.
    pub(super) async fn find_faces(
        &self,
        pixels: &Arc<Pixels>,
        framing: Framing,
        turn: &Turn,
    ) -> Result<Vec<locate::Face>, ExtractError> {
        let (image, side) = (Arc::clone(pixels), self.device.input_size(Role::Detect).width);
        let View { pixels: seen, map } = self.on_a_core(turn, move || View::new(&image, framing, side)).await?;
        let output = self.device.run(Role::Detect, seen, turn).await?;
        let found = detector::detections(&output.values, framing.least_score());
        Ok(map.faces(found.into_iter().map(|d| (d.rect, d.score))))
    }

    /// `None` where the network's landmarks are no face.
    async fn place_landmarks(
        &self,
        pixels: &Arc<Pixels>,
        face: Rect,
        turn: &Turn,
    ) -> Result<Option<Placed>, ExtractError> {
        let (width, height) = (pixels.width(), pixels.height());
        let Some(region) = locate::landmark_region(&face, width, height) else { return Ok(None) };
        let (image, side) = (Arc::clone(pixels), self.device.input_size(Role::Landmark).width);
        let input = self.on_a_core(turn, move || locate::landmark_view(&image, region, side)).await?;
        let output = self.device.run(Role::Landmark, input, turn).await?;
        let relative = landmarks::landmarks(&output.values, region.width as f32, region.height as f32);
        let placed = relative.map(|all| locate::place_landmarks(&all, region));
        let plausible = placed.filter(|all| align::check_landmarks(&all.five(), width, height).is_ok());
        Ok(plausible.map(|all| Placed::Network(Box::new(all))))
    }

    /// Waits for room for an image's pixels: those of all requests together are bounded.
    async fn room_for_pixels(&self, bytes: u64, turn: &Turn) -> Result<Share, ExtractError> {
        self.shares(turn).pixels.acquire(kib(bytes), turn).await.map_err(|Late| ExtractError::Late)
    }

    /// Runs work on pixels on a thread of its own, at most one per core and lane: enrolments that wait keep no verification waiting.
    /// The rest wait, clients in turn, and leave when nobody waits for them or their deadline passes.
    pub(super) async fn on_a_core<T: Send + 'static>(
        &self,
        turn: &Turn,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ExtractError> {
        let core = self.shares(turn).cores.acquire(1, turn).await.map_err(|Late| ExtractError::Late)?;
        let worked = tokio::task::spawn_blocking(move || {
            let _core = core; // held until the work is done, also when nobody waits any more
            work()
        });
        worked.await.map_err(|_| ExtractError::Internal("work on an image panicked"))
    }
}

impl Pipeline {
    /// Enrolments have their own, so that they keep no verification waiting, however many and large they are.
    fn shares(&self, turn: &Turn) -> &Shared {
        match turn.lane {
            Lane::Verification | Lane::Identification => &self.shared,
            Lane::Enrolment => &self.shared_by_enrolments,
        }
    }
}

/// The room that so many bytes take, in its unit.
const fn kib(bytes: u64) -> usize {
    bytes.div_ceil(1 << 10) as usize
}
