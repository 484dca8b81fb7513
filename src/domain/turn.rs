//! Whose work it is, how urgent, and until when it is of use.

use std::{sync::Arc, time::Instant};

use super::ClientId;

/// Who goes first, from first to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// A customer stands at the counter.
    Verification,
    /// The search after a verification: the customer still waits, and has an answer already.
    Identification,
    /// Enrolment, erasure and back-office work.
    Enrolment,
}

impl Lane {
    pub const ALL: [Self; 3] = [Self::Verification, Self::Identification, Self::Enrolment];

    /// The word for it in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::Identification => "identification",
            Self::Enrolment => "enrolment",
        }
    }
}

/// What a piece of work brings to a queue.
#[derive(Debug, Clone)]
pub struct Turn {
    pub lane: Lane,
    /// Within a lane clients take turns; `None` is the house itself.
    pub client: Option<Arc<ClientId>>,
    /// When the request came: of one client's work the oldest goes first.
    pub arrived: Instant,
    /// Work that is not begun by then is of no use.
    pub deadline: Instant,
}

impl Turn {
    /// Of a client's request that came now.
    pub fn of(client: &ClientId, lane: Lane, deadline: Instant) -> Self {
        Self { lane, client: Some(Arc::new(client.clone())), arrived: Instant::now(), deadline }
    }

    /// Of the house's own work: self-tests, the command line.
    pub fn own(lane: Lane, deadline: Instant) -> Self {
        Self { lane, client: None, arrived: Instant::now(), deadline }
    }
}
