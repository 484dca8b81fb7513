//! The named limits of the galleries of one data directory, and what they are searched with.

use std::{sync::Arc, time::Duration};

use vultus_index::{FaissIndexes, Indexes};

use crate::domain::ModelDigest;

/// Every limit has a default that suits one machine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Galleries in the directory.
    pub max_galleries: usize,
    /// References in one gallery. Each takes `4 * dimension + ~200` bytes of memory.
    pub max_references: usize,
    /// References of one subject. A search asks for so many neighbours more.
    pub max_references_per_subject: usize,
    /// Changes that wait for the writer; more callers wait for a place.
    pub write_queue_depth: usize,
    /// Changes that share one commit, and so one fsync.
    pub commit_batch_max: usize,
    /// Size of the store's file, bytes; rounded down to whole pages. What would pass it is refused as a full disk is.
    pub max_store_bytes: u64,
    /// Room on the disk that is kept for erasing when the disk is full, bytes: what the write-ahead log may grow to, twice, and some.
    pub reserve_bytes: u64,
    /// How long a case can be read, of service time; then it is deleted.
    pub case_retention: Duration,
    /// How long a spent receipt is remembered beyond its expiry, of service time: a search that began in time may end later.
    pub receipt_grace: Duration,
    /// The time between two deletions of expired receipts and cases, a minute at most: for so long service time may be lost in a crash.
    pub purge_interval: Duration,
    /// Passes over one gallery's index at a time; searches that come meanwhile wait, and share the next one.
    pub searches_at_once: usize,
    /// What makes the index of each gallery.
    pub indexes: Arc<dyn Indexes>,
    /// A model that was called by another digest before, and its digest now: galleries of the first are of the second.
    pub renamed_model: Option<(ModelDigest, ModelDigest)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_galleries: 64,
            max_references: 5_000_000,
            max_references_per_subject: 16,
            write_queue_depth: 4096,
            commit_batch_max: 512,
            max_store_bytes: 256 << 30,
            reserve_bytes: 40 << 20,
            case_retention: Duration::from_secs(90 * 24 * 3600),
            receipt_grace: Duration::from_secs(3600),
            purge_interval: Duration::from_secs(60),
            searches_at_once: 2,
            indexes: Arc::new(FaissIndexes),
            renamed_model: None,
        }
    }
}
