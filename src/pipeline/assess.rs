//! Quality only, and the test that the networks run.

use std::time::{Duration, Instant};

use super::{ExtractError, FaceInput, Lane, Pipeline, Timings};
use crate::{
    domain::{Assessment, Pixels},
    model::Role,
};

impl Pipeline {
    /// All measures of an image, without a template.
    ///
    /// # Errors
    /// [`ExtractError`] when the image could not be judged.
    pub async fn assess(&self, image: FaceInput, deadline: Instant) -> Result<(Assessment, Timings), ExtractError> {
        let looked = self.look(image, Lane::Verification, deadline).await?;
        Ok((looked.assessment, looked.timings))
    }

    /// Runs every network once, on grey.
    ///
    /// # Errors
    /// [`ExtractError`] when one of them does not.
    pub async fn self_test(&self) -> Result<(), ExtractError> {
        for role in Role::ALL {
            let size = self.device.input_size(role);
            let grey = Pixels::flat(size.width, size.height, [128; 3]);
            self.device.run(role, grey, Lane::Verification, Instant::now() + SELF_TEST_DEADLINE).await?;
        }
        Ok(())
    }
}

/// A device that takes longer for one image is not fit to serve.
const SELF_TEST_DEADLINE: Duration = Duration::from_secs(30);
