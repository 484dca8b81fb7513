//! Quality only.

use super::{ExtractError, FaceInput, Pipeline, Timings};
use crate::domain::{Assessment, Turn};

impl Pipeline {
    /// All measures of an image, without a template.
    ///
    /// # Errors
    /// [`ExtractError`] when the image could not be judged.
    pub async fn assess(&self, image: FaceInput, turn: &Turn) -> Result<(Assessment, Timings), ExtractError> {
        let looked = self.look(image, turn).await?;
        Ok((looked.assessment, looked.timings))
    }
}
