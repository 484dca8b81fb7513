//! Enrolment: a reference of a subject, from a face.

use std::time::Instant;

use super::{ExtractError, FaceInput, Pipeline, Timings};
use crate::{
    domain::{Assessment, ReferenceId, SubjectId, Template, Turn},
    gallery::{EnrolError, Enrolled, Gallery, NewReference},
    telemetry::Metrics,
};

/// Why there is no template to enrol.
#[derive(Debug, thiserror::Error)]
pub enum ExtractReferenceError {
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// The face is missing, or its quality does not suffice for a reference.
    #[error("the image was refused")]
    Refused(Assessment),
}

impl Pipeline {
    /// The template of an image that is to be a reference.
    pub async fn extract_reference(
        &self,
        image: FaceInput,
        turn: &Turn,
    ) -> Result<(Template, Timings), ExtractReferenceError> {
        let extraction = self.extract(image, turn).await?;
        extraction.outcome.map(|template| (template, extraction.timings)).map_err(ExtractReferenceError::Refused)
    }

    /// Stores a template; returns when it is durable and searchable.
    pub async fn enrol(
        &self,
        gallery: &Gallery,
        subject: SubjectId,
        id: Option<ReferenceId>,
        template: Template,
    ) -> Result<Enrolled, EnrolError> {
        let started = Instant::now();
        let enrolled = gallery.enrol(NewReference { id, subject, template, extraction: self.extraction }).await?;
        Metrics::get().stage("commit", started.elapsed());
        if !enrolled.repeated {
            Metrics::get().enrolments_total.inc();
        }
        Ok(enrolled)
    }
}
