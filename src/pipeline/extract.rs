//! From an image to a template: decode, locate, judge, align, embed.

use std::{
    borrow::Cow,
    fmt,
    ops::Add,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use vultus_engine::{
    executor::Sight,
    image::{Pixels, Rect},
    view::{Image, View},
};

use super::{
    Pipeline, Shared,
    align::{self, ImplausibleLandmarks},
    batch::DeviceError,
    decode::{self, DecodeError},
    locate::{self, Framing},
    quality,
    shares::{Late, Share},
};
use crate::{
    domain::{Assessment, FiveLandmarks, Landmarks68, Lane, QualityThresholds, Template, Turn},
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
    /// A JPEG, PNG, WebP or JPEG 2000 file.
    Encoded(Bytes),
    /// The content of an ID chip's DG2.
    Chip(Bytes),
    /// Rows of R G B from the top.
    Rgb8 { rgb8: Bytes, width: u32, height: u32 },
}

impl ImageInput {
    pub(super) fn source(&self) -> decode::Source<'_> {
        match self {
            Self::Encoded(file) => decode::Source::Encoded(file),
            Self::Chip(dg2) => decode::Source::Chip(dg2),
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

impl Timings {
    pub fn sum(&self) -> Duration {
        self.decode + self.align + self.queue + self.extract + self.compare
    }
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

/// The answer to come of [`Extract::extract`].
pub type Extracting<'a> = Pin<Box<dyn Future<Output = Result<Extraction, ExtractError>> + Send + 'a>>;

/// Makes templates of images: the seam behind which a pipeline's own stages stand.
pub trait Extract: fmt::Debug + Send + Sync {
    /// As [`Pipeline::extract`].
    fn extract<'a>(&'a self, face: FaceInput, turn: &'a Turn) -> Extracting<'a>;
}

/// An image in which a face was looked for.
pub(super) struct Looked {
    pub assessment: Assessment,
    pub timings: Timings,
    /// The face, aligned; `None` where none was found.
    face: Option<Sight>,
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
    fn without_face(thresholds: &QualityThresholds, timings: Timings) -> Self {
        let assessment = Assessment { measures: vec![locate::presence(None, thresholds)], face: None };
        Self { assessment, timings, face: None }
    }
}

impl Pipeline {
    /// From an image to a template; or to the measures that refuse it.
    ///
    /// # Errors
    /// [`ExtractError`] when the image could not be judged.
    pub async fn extract(&self, face: FaceInput, turn: &Turn) -> Result<Extraction, ExtractError> {
        if let Some(extractor) = &self.extractor {
            return extractor.extract(face, turn).await;
        }
        let looked = self.look(face, turn).await?;
        let mut timings = looked.timings;
        if !looked.assessment.acceptable() {
            for measure in looked.assessment.refused() {
                Metrics::get().refused_measures_total.with_label_values(&[measure.name.as_str()]).inc();
            }
            return Ok(Extraction { outcome: Err(looked.assessment), timings });
        }
        let Some(face) = looked.face else {
            return Err(ExtractError::Internal("an accepted face is one that was found"));
        };
        let output = self.device.run(Role::Embed, face, turn).await?;
        timings.queue += output.queued;
        timings.extract += output.ran;
        let template = Template::new(self.model, self.card.metric.features(output.values))
            .map_err(|_| DeviceError::Failed("the network's output is no template".into()))?;
        Ok(Extraction { outcome: Ok(template), timings })
    }

    /// The face as the network takes it, whatever its quality; `None` where none was found.
    pub(super) async fn aligned(&self, face: FaceInput, turn: &Turn) -> Result<Option<Pixels>, ExtractError> {
        let Some(face) = self.look(face, turn).await?.face else { return Ok(None) };
        let pixels = move |size| face.pixels(0, size).map(Cow::into_owned);
        let size = self.device.input_size(Role::Embed);
        let aligned = self.on_a_core(turn, move || pixels(size)).await?;
        aligned.map(Some).map_err(|_| ExtractError::Internal("a face is aligned at the network's size"))
    }

    /// Decodes, finds the face, places its landmarks, measures its quality and aligns it. Work on pixels that needs no network between
    /// is done in one go: each time a core is asked for costs as much as a small resize.
    pub(super) async fn look(&self, face: FaceInput, turn: &Turn) -> Result<Looked, ExtractError> {
        let FaceInput { image, landmarks } = face;
        let limits = self.decode;
        let started = Instant::now();
        let room = self.room_for_pixels(decode::most_pixel_bytes(image.source(), &limits), turn).await?;
        let device = Arc::clone(&self.device);
        let (image, seen) = self
            .on_a_core(turn, move || -> Result<_, ExtractError> {
                let pixels = decode::decode(image.source(), &limits)?;
                if let Some(five) = &landmarks {
                    align::check_landmarks(five, pixels.width(), pixels.height())?;
                }
                let size = (pixels.width(), pixels.height());
                let first = Framing::of_size(size)[0];
                let (view, map) = locate::view(size, first, device.input_size(first.role).width);
                let image = Arc::new(Image::new(pixels, room));
                let sight = device.see(&image, view);
                Ok((image, (sight, map)))
            })
            .await??;
        let mut timings = Timings { decode: started.elapsed(), ..Timings::default() };
        Metrics::get().stage("decode", timings.decode);

        let started = Instant::now();
        let (width, height) = (image.pixels().width(), image.pixels().height());
        let (mut located, mut seen) = (None, Some(seen));
        for framing in Framing::of_size((width, height)).iter().copied() {
            let (sight, map) = match seen.take() {
                Some(seen) => seen,
                None => {
                    let (view, map) =
                        locate::view((width, height), framing, self.device.input_size(framing.role).width);
                    (self.see(&image, view, turn).await?, map)
                }
            };
            let found = self.found_in(sight, framing, turn).await?;
            if found.len() > 1 && framing.company.is_some() {
                continue;
            }
            let faces = map.faces(found);
            let Some(face) = locate::choose(&faces, width, height) else { continue };
            let Some(seen) = self.place_landmarks(&image, face.rect, turn).await? else { continue };
            let placed = match landmarks {
                Some(five) => {
                    align::check_agreement(&five, &seen.landmarks().five())?;
                    Placed::Caller(five)
                }
                None => seen,
            };
            located = Some((face, placed, framing));
            break;
        }
        let thresholds = self.card.quality;
        let Some((face, placed, framing)) = located else {
            timings.align = started.elapsed();
            return Ok(Looked::without_face(&thresholds, timings));
        };
        let turned = self.is_turned(&image, &face, framing, turn).await?;
        let five = placed.landmarks().five();
        let (size, alignment) = (self.device.input_size(Role::Embed), self.card.alignment);
        let device = Arc::clone(&self.device);
        let judge = move || {
            let presence = locate::presence(Some(&face), &thresholds);
            let judged = quality::assess(image.pixels(), &five, turned, &thresholds);
            let measures = std::iter::once(presence).chain(judged).collect();
            let assessment = Assessment { measures, face: Some((face.rect, five)) };
            let view = align::align((width, height), placed.landmarks(), alignment, size);
            (view.map(|view| device.see(&image, view)), assessment)
        };
        let (face, assessment) = self.on_a_core(turn, judge).await?;
        let face = Some(face.map_err(|_| ExtractError::Internal("plausible landmarks align"))?);
        timings.align = started.elapsed();
        Metrics::get().stage("align", timings.align);
        Ok(Looked { face, assessment, timings })
    }

    /// Whether the face lies otherwise than its landmarks say. The landmark network gives upright faces, whatever it is shown; the detector
    /// sees a face best when it is upright. So where it is not sure, it is shown the image turned by quarters.
    async fn is_turned(
        &self,
        image: &Arc<Image>,
        face: &locate::Chosen,
        framing: Framing,
        turn: &Turn,
    ) -> Result<bool, ExtractError> {
        if face.score >= locate::SURELY_UPRIGHT {
            return Ok(false);
        }
        let side = self.device.input_size(framing.role).width;
        let (view, map) = locate::view((image.pixels().width(), image.pixels().height()), framing, side);
        let (mut seen, mut place) = (Arc::new(self.see(image, view, turn).await?), map.seen(face.rect));
        for _ in 0..3 {
            let before = Arc::clone(&seen);
            seen = Arc::new(self.on_a_core(turn, move || before.turned_by_a_quarter()).await?);
            place = locate::turned_by_a_quarter(place);
            let output = self.device.run(framing.role, Arc::clone(&seen), turn).await?;
            let found = detector::detections(&output.values, locate::LEAST_SCORE);
            // Another person who lies beside it says nothing of this face.
            let surer = |d: &detector::Detection| d.score > face.score + locate::TURNED_BY && place.meets(&d.rect);
            if found.iter().any(surer) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All faces that the detector sees in a view in this framing.
    pub(super) async fn faces_in(
        &self,
        seen: Sight,
        map: locate::Map,
        framing: Framing,
        turn: &Turn,
    ) -> Result<Vec<locate::Face>, ExtractError> {
        Ok(map.faces(self.found_in(seen, framing, turn).await?))
    }

    /// All that it takes for faces, as (place in the view, score).
    async fn found_in(&self, seen: Sight, framing: Framing, turn: &Turn) -> Result<Vec<(Rect, f32)>, ExtractError> {
        let output = self.device.run(framing.role, seen, turn).await?;
        let found = detector::detections(&output.values, framing.sees_from());
        Ok(found.into_iter().map(|d| (d.rect, d.score)).collect())
    }

    /// `None` where the network's landmarks are no face.
    async fn place_landmarks(
        &self,
        image: &Arc<Image>,
        face: Rect,
        turn: &Turn,
    ) -> Result<Option<Placed>, ExtractError> {
        let (width, height) = (image.pixels().width(), image.pixels().height());
        let Some(region) = locate::landmark_region(&face, width, height) else { return Ok(None) };
        let view = locate::landmark_view(region, self.device.input_size(Role::Landmark).width);
        let output = self.device.run(Role::Landmark, self.see(image, view, turn).await?, turn).await?;
        let relative = landmarks::landmarks(&output.values, region.width as f32, region.height as f32);
        let placed = relative.map(|all| locate::place_landmarks(&all, region));
        let plausible = placed.filter(|all| align::check_landmarks(&all.five(), width, height).is_ok());
        Ok(plausible.map(|all| Placed::Network(Box::new(all))))
    }

    /// What is to be seen of an image; made on a core, where the device does not make it.
    pub(super) async fn see(&self, image: &Arc<Image>, view: View, turn: &Turn) -> Result<Sight, ExtractError> {
        let (device, image) = (Arc::clone(&self.device), Arc::clone(image));
        self.on_a_core(turn, move || device.see(&image, view)).await
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
