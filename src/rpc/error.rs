//! One table from cause to status. Two messages per error: the caller's says what was expected, the log's says what happened.

mod no_room;

use std::{collections::HashMap, time::Duration};

use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, StatusExt};

pub use no_room::NoRoom;

use crate::{
    access::Denied,
    audit::NotRecorded,
    domain::{Assessment, CalibrationError, Measure},
    gallery::{CaseError, CreateError, EnrolError, EraseError, SearchError, StoreError},
    pipeline::{
        DecodeError, DeviceError, ExtractError, ExtractReferenceError, IdentifyError, ReceiptError, ThresholdError,
        VerifyError,
    },
};

/// The domain of `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "vultus";

/// Everything that a call can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{field}: expected {expected}")]
    Field { field: &'static str, expected: &'static str },
    /// Nothing says who calls. What was expected is the words of whoever looked for it.
    #[error("expected {expected}")]
    Unauthenticated { expected: &'static str },
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error(transparent)]
    Extract(#[from] ExtractError),
    #[error("the image was refused")]
    Refused(Assessment),
    #[error("the chip's signature does not hold: its portrait is compared with nobody")]
    ChipNotAuthentic,
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error(transparent)]
    Case(#[from] CaseError),
    #[error(transparent)]
    NotRecorded(#[from] NotRecorded),
    #[error("the metadata has more than {most} bytes, names, values and 32 for each counted")]
    Headers { most: u32 },
    #[error("the message has more than {most} bytes, counted as it is without compression")]
    MessageTooLarge { most: usize },
    #[error("these bytes are no message of this call")]
    NoMessage,
    #[error("{0}")]
    Unknown(&'static str),
    #[error("the server is going down: send what was not answered again, shortly")]
    Stopping,
    #[error("the stream was silent for the greatest deadline")]
    Silence,
    #[error("the client read no answers of its stream for the greatest deadline")]
    Unread,
    #[error("the message did not arrive in time")]
    SlowMessage,
    #[error("the deadline passed before the answer was there")]
    TimeUp,
    #[error("{0}")]
    Internal(&'static str),
}

impl Error {
    pub const fn field(field: &'static str, expected: &'static str) -> Self {
        Self::Field { field, expected }
    }

    /// What the transport means with a status of its own: a message is too large in other words when it was compressed. `None` where
    /// nothing is known.
    pub fn of_transport(code: Code, most: usize) -> Option<Self> {
        match code {
            Code::OutOfRange | Code::ResourceExhausted => Some(Self::MessageTooLarge { most }),
            Code::Internal => Some(Self::NoMessage),
            _ => None,
        }
    }
}

impl From<VerifyError> for Error {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Extract(error) => Self::Extract(error),
            VerifyError::Threshold(error) => Self::Threshold(error),
            VerifyError::Mismatch(error) => Self::Search(error.into()),
            VerifyError::Store(error) => Self::Store(error),
            VerifyError::Seal(_) => Self::Internal("the system's random source failed"),
        }
    }
}

impl From<IdentifyError> for Error {
    fn from(error: IdentifyError) -> Self {
        match error {
            IdentifyError::Receipt(error) => Self::Receipt(error),
            IdentifyError::Threshold(error) => Self::Threshold(error),
            IdentifyError::Store(error) => Self::Store(error),
            IdentifyError::Search(error) => Self::Search(error),
            IdentifyError::Case(error) => Self::Case(error),
            IdentifyError::Seal(_) => Self::Internal("the system's random source failed"),
        }
    }
}

impl From<ExtractReferenceError> for Error {
    fn from(error: ExtractReferenceError) -> Self {
        match error {
            ExtractReferenceError::Extract(error) => Self::Extract(error),
            ExtractReferenceError::Refused(assessment) => Self::Refused(assessment),
        }
    }
}

impl From<EraseError> for Error {
    fn from(error: EraseError) -> Self {
        match error {
            EraseError::Store(error) => Self::Store(error),
        }
    }
}

/// A row of the table.
struct Row {
    code: Code,
    /// Stable; in `google.rpc.ErrorInfo` and the metrics.
    reason: &'static str,
    message: String,
}

fn row(code: Code, reason: &'static str, message: impl Into<String>) -> Row {
    Row { code, reason, message: message.into() }
}

impl Error {
    fn row(&self) -> Row {
        use Code::{
            AlreadyExists, DataLoss, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, NotFound,
            OutOfRange, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable,
        };
        let text = self.to_string();
        match self {
            Self::Field { .. } => row(InvalidArgument, "FIELD_INVALID", text),
            Self::Unauthenticated { .. } => row(Unauthenticated, "CLIENT_MISSING", text),
            // Which right, purpose or gallery was missing is the operator's to know.
            Self::Denied(_) => row(PermissionDenied, "NOT_PERMITTED", "the policy does not permit this call"),
            Self::NoRoom(none) if none.is_the_clients() => row(
                ResourceExhausted,
                CLIENT_OVER_LIMIT,
                "this client has as much in flight as it may; try again when answers have come",
            ),
            Self::NoRoom(_) => row(ResourceExhausted, OVERLOADED, "too many requests; try again shortly"),
            Self::Extract(error) => match error {
                ExtractError::Decode(error) => row(InvalidArgument, image_reason(error), text),
                ExtractError::Landmarks(_) => row(InvalidArgument, "LANDMARKS_IMPLAUSIBLE", text),
                ExtractError::Device(DeviceError::Full { .. }) => {
                    row(ResourceExhausted, OVERLOADED, "too many requests; try again shortly")
                }
                ExtractError::Late | ExtractError::Device(DeviceError::Late) => {
                    row(DeadlineExceeded, "DEADLINE", "the deadline passed before the work began")
                }
                ExtractError::Device(DeviceError::Failed(_)) => {
                    row(Internal, "EXTRACT_FAILED", "no template could be extracted from this image")
                }
                ExtractError::Device(DeviceError::Lost(_)) => {
                    row(Unavailable, "DEVICE_LOST", "the device that computes was lost; try again shortly")
                }
                ExtractError::Device(DeviceError::Stopped) => {
                    row(Unavailable, "DEVICE_STOPPED", "the device has stopped; try again shortly")
                }
                ExtractError::Internal(_) => row(Internal, "INTERNAL", INTERNAL),
            },
            Self::ChipNotAuthentic => row(FailedPrecondition, "CHIP_NOT_AUTHENTIC", text),
            Self::Refused(assessment) => row(FailedPrecondition, "IMAGE_REFUSED", advice(assessment)),
            Self::Threshold(error) => match error {
                ThresholdError::LaxerThanPolicy { .. } => row(InvalidArgument, "RATE_LAXER_THAN_POLICY", text),
                ThresholdError::Calibration(error) => calibration_row(error, text),
            },
            Self::Receipt(error) => match error {
                ReceiptError::NotAuthentic => row(InvalidArgument, "RECEIPT_NOT_AUTHENTIC", text),
                ReceiptError::OtherClient => row(PermissionDenied, "RECEIPT_OF_ANOTHER_CLIENT", text),
                ReceiptError::Expired => row(FailedPrecondition, "RECEIPT_EXPIRED", text),
                ReceiptError::OtherGallery => row(FailedPrecondition, "RECEIPT_OF_ANOTHER_GALLERY", text),
                ReceiptError::OtherPurpose => row(FailedPrecondition, "RECEIPT_OF_ANOTHER_PURPOSE", text),
                ReceiptError::SubjectErased => row(FailedPrecondition, "RECEIPT_OF_ERASED_SUBJECT", text),
                ReceiptError::OtherModel => row(FailedPrecondition, "RECEIPT_OF_ANOTHER_MODEL", text),
            },
            Self::Store(error) => store_row(error),
            Self::Create(error) => match error {
                CreateError::Model { .. } => row(FailedPrecondition, "GALLERY_OF_ANOTHER_MODEL", text),
                CreateError::TooMany { .. } => row(ResourceExhausted, "TOO_MANY_GALLERIES", text),
                CreateError::Dimension { .. } | CreateError::Random => row(Internal, "INTERNAL", INTERNAL),
                CreateError::Store(error) => store_row(error),
            },
            Self::Enrol(error) => match error {
                EnrolError::Model { .. } | EnrolError::Dimension { .. } => {
                    row(FailedPrecondition, "GALLERY_OF_ANOTHER_MODEL", text)
                }
                EnrolError::Exists { .. } => row(AlreadyExists, "REFERENCE_EXISTS", text),
                EnrolError::TooManyForSubject { .. } => row(FailedPrecondition, "SUBJECT_FULL", text),
                EnrolError::GalleryFull { .. } => row(ResourceExhausted, "GALLERY_FULL", text),
                EnrolError::Seal(_) => row(Internal, "INTERNAL", INTERNAL),
                EnrolError::Store(error) => store_row(error),
            },
            Self::Search(error) => match error {
                SearchError::Model(_) => row(FailedPrecondition, "GALLERY_OF_ANOTHER_MODEL", text),
                SearchError::Rates(error) => calibration_row(error, text),
                SearchError::Index(_) => row(Internal, "INTERNAL", INTERNAL),
                SearchError::Late => row(DeadlineExceeded, "DEADLINE", text),
                SearchError::Moved => row(Unavailable, "GALLERY_MOVED", text),
                SearchError::Stopped => row(Unavailable, "STOPPING", text),
            },
            Self::Case(error) => match error {
                CaseError::Damaged { .. } => row(DataLoss, "CASE_DAMAGED", text),
                CaseError::NoSuchPage => row(InvalidArgument, "PAGE_UNKNOWN", text),
                CaseError::Empty => row(FailedPrecondition, "CASE_WITHOUT_CANDIDATES", text),
                CaseError::Store(error) => store_row(error),
            },
            Self::NotRecorded(_) => {
                row(Unavailable, "DECISION_NOT_RECORDED", "the decision could not be recorded; try again")
            }
            Self::Headers { .. } => row(ResourceExhausted, "METADATA_TOO_LARGE", text),
            Self::MessageTooLarge { .. } => row(OutOfRange, "MESSAGE_TOO_LARGE", text),
            Self::NoMessage => row(Internal, "MESSAGE_MALFORMED", text),
            Self::Stopping => row(Unavailable, "STOPPING", text),
            Self::Silence | Self::Unread | Self::SlowMessage | Self::TimeUp => row(DeadlineExceeded, "DEADLINE", text),
            Self::Unknown(_) => row(NotFound, "NOT_FOUND", text),
            Self::Internal(_) => row(Internal, "INTERNAL", INTERNAL),
        }
    }

    /// Stable word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        self.row().reason
    }

    pub fn into_status(self) -> Status {
        let Row { code, reason, message } = self.row();
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, ERROR_DOMAIN, HashMap::new());
        if let Self::Field { field, expected } = &self {
            details.add_bad_request_violation(*field, format!("expected {expected}"));
        }
        let mut metadata = MetadataMap::new();
        if [OVERLOADED, CLIENT_OVER_LIMIT].contains(&reason) {
            details.set_retry_info(Some(RETRY_AFTER));
            // For clients that retry by gRPC's own policy and read no details.
            metadata.insert(PUSHBACK, MetadataValue::from_static(PUSHBACK_MS));
        }
        Status::with_error_details_and_metadata(code, message, details, metadata)
    }
}

/// A rate that no threshold of the model's keeps, or that would miss too many.
fn calibration_row(error: &CalibrationError, text: String) -> Row {
    match error {
        CalibrationError::BeyondTable { .. } => row(Code::FailedPrecondition, "RATE_BEYOND_CALIBRATION", text),
        CalibrationError::Misses { .. } => row(Code::FailedPrecondition, "EXPECTED_FNIR_TOO_HIGH", text),
        CalibrationError::Empty | CalibrationError::Order { .. } | CalibrationError::Fnmr { .. } => {
            row(Code::Internal, "INTERNAL", INTERNAL)
        }
    }
}

fn store_row(error: &StoreError) -> Row {
    match error {
        StoreError::Full => row(Code::ResourceExhausted, "STORE_FULL", "the store is full: nothing was changed"),
        StoreError::Failed(_) => row(Code::Unavailable, "STORE_FAILED", "the store takes no changes at present"),
        StoreError::Busy => row(Code::Unavailable, "STORE_BUSY", "the store is held by another program; try again"),
        StoreError::Unreadable(_) => row(Code::Unavailable, "STORE_UNREADABLE", "the store cannot be read at present"),
        StoreError::Closed => row(Code::Unavailable, "STOPPING", "the service is going down; try again shortly"),
    }
}

/// A larger camera setting, another file format, or a broken file: three faults that a front end mends in three ways.
fn image_reason(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::Bytes { .. }
        | DecodeError::Side { .. }
        | DecodeError::Area { .. }
        | DecodeError::Scans { .. }
        | DecodeError::Parts { .. } => "IMAGE_OUT_OF_LIMITS",
        DecodeError::Format | DecodeError::Other { .. } | DecodeError::Unsupported { .. } => "IMAGE_UNSUPPORTED",
        DecodeError::Empty { .. }
        | DecodeError::ScansMissing
        | DecodeError::Truncated { .. }
        | DecodeError::Malformed { .. }
        | DecodeError::RawLength { .. } => "IMAGE_MALFORMED",
    }
}

/// What a caller learns of a fault of ours; the log says more.
const INTERNAL: &str = "internal error";

/// The reasons that are worth trying again soon: the server's limits, and the client's own.
const OVERLOADED: &str = "OVERLOADED";
const CLIENT_OVER_LIMIT: &str = "CLIENT_OVER_LIMIT";

/// When a refused caller may try again, in `google.rpc.RetryInfo` and as gRPC's own retries take it.
const RETRY_AFTER: Duration = Duration::from_millis(250);
const PUSHBACK: &str = "grpc-retry-pushback-ms";
const PUSHBACK_MS: &str = "250";

/// What to do at the counter.
fn advice(assessment: &Assessment) -> String {
    let advice: Vec<_> = assessment.refused().map(|m: &Measure| format!("{}: {}", m.name.as_str(), m.advice)).collect();
    if advice.is_empty() { "no face was found in the image".into() } else { advice.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Right;

    #[test]
    fn a_status_carries_a_stable_reason_and_the_field() {
        let status = Error::field("context.site", "1 to 64 characters").into_status();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("FIELD_INVALID", ERROR_DOMAIN));
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(
            (violation.field.as_str(), violation.description.as_str()),
            ("context.site", "expected 1 to 64 characters")
        );
    }

    #[test]
    fn only_overload_invites_to_try_again() {
        let retry = |error: Error| error.into_status().get_error_details().retry_info().and_then(|r| r.retry_delay);
        assert_eq!(retry(Error::NoRoom(NoRoom::Lane)), Some(RETRY_AFTER));
        assert_eq!(retry(Error::Store(StoreError::Full)), None);
    }

    #[test]
    fn a_refused_caller_does_not_learn_the_policy() {
        let status = Error::Denied(Denied::Right(Right::Review)).into_status();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(!status.message().contains("review"));
    }

    #[test]
    fn faults_of_ours_say_nothing_of_the_inside() {
        let status = Error::Extract(ExtractError::Device(DeviceError::Failed("matmul 128x7".into()))).into_status();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("matmul"));
    }
}
