//! Whole images: every face of an ordinary photo, and crops that are nothing but face.

use std::{sync::Arc, time::Instant};

use sha2::{Digest, Sha256};
use vultus_engine::{
    executor::Sight,
    image::{Pixels, Rect, Region},
    view::{Image, View},
};

use super::{
    ExtractError, FaceInput, ImageInput, Pipeline,
    batch::DeviceError,
    decode,
    locate::{self, Framing},
};
use crate::{
    domain::{Lane, ModelDigest, QualityThresholds, Template, Turn},
    model::Role,
};

/// A face of a photo, cut out.
#[derive(Debug)]
pub struct PhotoFace {
    /// A square of 1.4 times the longer side of `rect` around its centre, less what lies outside the photo.
    pub crop: Pixels,
    /// Where the face is, pixels of the photo.
    pub rect: Rect,
    /// The detector's, 0 to 1.
    pub score: f32,
}

/// Side of a crop, in longer sides of the face's box: forehead, chin and ears are in it.
const CROP_ROOM: f32 = 1.4;

impl Pipeline {
    /// All faces that the detector sees in a photo, largest first. Faces that fill the frame are not its trade: for those the image
    /// is a crop already.
    ///
    /// # Errors
    /// [`ExtractError::Device`] and [`ExtractError::Late`].
    pub async fn faces_in_photo(&self, photo: &Arc<Image>, deadline: Instant) -> Result<Vec<PhotoFace>, ExtractError> {
        let turn = Turn::own(Lane::Enrolment, deadline);
        let side = self.device.input_size(Framing::PHOTO.role).width;
        let (view, map) = locate::view((photo.pixels().width(), photo.pixels().height()), Framing::PHOTO, side);
        let seen = self.see(photo, view, &turn).await?;
        let mut faces = self.faces_in(seen, map, Framing::PHOTO, &turn).await?;
        let area = |rect: &Rect| rect.width * rect.height;
        faces.sort_by(|a, b| area(&b.rect).total_cmp(&area(&a.rect)));
        let photo = Arc::clone(photo);
        let cut = move || {
            let crop = |rect: Rect| {
                let (side, centre) = (CROP_ROOM * rect.width.max(rect.height), rect.centre());
                let square = Rect { x: centre.x - side / 2.0, y: centre.y - side / 2.0, width: side, height: side };
                let photo = photo.pixels();
                Some(photo.cut(square.clipped(photo.width(), photo.height())?))
            };
            let cut = |face: super::locate::Face| {
                Some(PhotoFace { crop: crop(face.rect)?, rect: face.rect, score: face.score })
            };
            faces.into_iter().filter_map(cut).collect()
        };
        self.on_a_core(&turn, cut).await
    }

    /// All faces of a photo as the face network takes them, aligned, whatever their quality. An image in which the detector sees
    /// none at a photo's scale is taken as one face. Faces without landmarks, and too small ones, are left out.
    ///
    /// # Errors
    /// As [`Self::extract`].
    pub async fn aligned_faces(&self, photo: &Arc<Image>, deadline: Instant) -> Result<Vec<Pixels>, ExtractError> {
        let turn = Turn::own(Lane::Enrolment, deadline);
        let seen = self.faces_in_photo(photo, deadline).await?;
        let mut crops: Vec<&Pixels> = seen.iter().map(|face| &face.crop).collect();
        if crops.is_empty() {
            crops.push(photo.pixels());
        }
        let mut aligned = Vec::new();
        for crop in crops {
            let rgb8 = crop.rgb8().to_vec().into();
            let image = ImageInput::Rgb8 { rgb8, width: crop.width(), height: crop.height() };
            match self.aligned(FaceInput { image, landmarks: None }, &turn).await {
                Ok(face) => aligned.extend(face),
                Err(ExtractError::Decode(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(aligned)
    }

    /// The template of an image that is taken as the face, whole: nothing is located, judged or aligned. For evaluations; its model
    /// digest is one of its own, so that it compares with no other template.
    ///
    /// # Errors
    /// As [`Self::extract`].
    pub async fn extract_whole(&self, image: ImageInput, deadline: Instant) -> Result<Template, ExtractError> {
        let (limits, size) = (self.decode, self.device.input_size(Role::Embed));
        let turn = Turn::own(Lane::Enrolment, deadline);
        let decoded = self.on_a_core(&turn, move || {
            decode::decode(image.source(), &limits)
                .map(|pixels| Sight::Made(View::squared(Region::of(&pixels), size).of(&pixels)))
        });
        let output = self.device.run(Role::Embed, decoded.await??, &turn).await?;
        let digest = Sha256::new_with_prefix(b"vultus whole image v1").chain_update(self.model.as_bytes()).finalize();
        Template::new(ModelDigest::new(digest.into()), self.card.metric.features(output.values))
            .map_err(|_| DeviceError::Failed("the network's output is no template".into()).into())
    }

    /// Accepts every face that is found, whatever its quality. For evaluations: what a service refuses, an evaluation counts.
    pub fn ignoring_quality(mut self) -> Self {
        self.card.quality = QualityThresholds::default();
        self
    }
}
