//! All galleries of a store, kept in memory as its feed tells them.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak},
};

use super::{
    CaseError, Clock, Clocks, CreateError, Gallery, MachineClocks, OpenError, Settings, StoreError, Tally,
    sqlite::{self, Opened},
    store::{Change, FollowError, Follower, Store, StoredGallery},
};
use crate::{
    domain::{Case, CaseId, GalleryName, ModelDigest, Template},
    seal::RootKey,
};

/// The use of the key that the store's check value is sealed under.
const CHECK_PURPOSE: &str = "vultus store check v1";

/// All galleries of a data directory, which it locks.
///
/// Dropping it without [`Self::close`] lets the store finish what is queued, but nobody hears when it has.
pub struct Galleries {
    live: Arc<Live>,
    store: Arc<dyn Store>,
}

/// What follows the store.
struct Live {
    root: RootKey,
    settings: Settings,
    clock: Arc<Clock>,
    open: RwLock<Open>,
    /// Set once the store is served. Weak: the galleries own it, and `close` ends it.
    store: Arc<OnceLock<Weak<dyn Store>>>,
}

#[derive(Default)]
struct Open {
    by_key: BTreeMap<i64, Arc<Gallery>>,
    by_name: BTreeMap<GalleryName, Arc<Gallery>>,
}

impl Live {
    fn open(&self) -> RwLockReadGuard<'_, Open> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for Live {
    fn created(&self, stored: StoredGallery) -> Result<(), FollowError> {
        let (key, name) = (stored.key, stored.name.clone());
        let store = Arc::clone(&self.store);
        let gallery = Arc::new(Gallery::new(stored, &self.root, store, &self.settings, Arc::clone(&self.clock))?);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.by_key.insert(key, Arc::clone(&gallery));
        open.by_name.insert(name, gallery);
        Ok(())
    }

    fn changed(&self, gallery: i64, changes: Vec<Change>, position: u64) -> Result<(), FollowError> {
        // Not held while the gallery follows: who waits to write would keep new readers waiting.
        let gallery = self.open().by_key.get(&gallery).map(Arc::clone).ok_or(FollowError::NoGallery(gallery))?;
        gallery.follow(changes, position)
    }
}

impl Galleries {
    /// Whether a store was ever made in the directory. Looking makes none.
    pub fn were_made_in(dir: &Path) -> bool {
        sqlite::was_made_in(dir)
    }

    /// Opens the directory, makes it if need be (mode 0700), and loads every gallery. Blocks, for about
    /// 16 s per million references of 512 values: each page is checked, each template opened.
    pub fn open(dir: &Path, root: &RootKey, settings: Settings) -> Result<Self, OpenError> {
        Self::open_by(dir, root, settings, Arc::new(MachineClocks))
    }

    /// As [`Self::open`], by other clocks than the machine's.
    pub fn open_by(dir: &Path, root: &RootKey, settings: Settings, clocks: Arc<dyn Clocks>) -> Result<Self, OpenError> {
        let opened = Opened::open(dir, &root.sealer(CHECK_PURPOSE), settings.clone(), clocks)?;
        let clock = Arc::clone(opened.clock());
        let live = Live { root: root.clone(), settings, clock, open: RwLock::default(), store: Arc::default() };
        let live = Arc::new(live);
        let store: Arc<dyn Store> = Arc::new(opened.serve(Arc::clone(&live) as Arc<dyn Follower>)?);
        let _ = live.store.set(Arc::downgrade(&store)); // the only time
        Ok(Self { live, store })
    }

    /// True once the store takes no further changes: only a restart helps.
    pub fn has_failed(&self) -> bool {
        self.store.has_failed()
    }

    pub fn get(&self, name: &GalleryName) -> Option<Arc<Gallery>> {
        self.live.open().by_name.get(name).map(Arc::clone)
    }

    /// By name.
    pub fn list(&self) -> Vec<Arc<Gallery>> {
        self.live.open().by_name.values().map(Arc::clone).collect()
    }

    /// A gallery is made for one model and one dimension, and stays so: asking for another is an error.
    pub async fn get_or_create(
        &self,
        name: &GalleryName,
        model: ModelDigest,
        dimension: usize,
    ) -> Result<Arc<Gallery>, CreateError> {
        if dimension == 0 || dimension > Template::MAX_DIMENSION {
            return Err(CreateError::Dimension { found: dimension });
        }
        if self.get(name).is_none() {
            self.store.create(name.clone(), model, dimension).await?;
        }
        // The feed told it before the answer came.
        let gallery = self.get(name).ok_or(StoreError::Closed)?;
        if gallery.model != model || gallery.dimension != dimension {
            return Err(CreateError::Model {
                name: name.clone(),
                expected: gallery.model,
                dimension: gallery.dimension,
                found: model,
            });
        }
        Ok(gallery)
    }

    /// The case with the candidates that are still enrolled, ranked anew; `None` if there is none, or its retention is over. Reads
    /// beside the writer.
    pub async fn case(&self, id: CaseId) -> Result<Option<Case>, CaseError> {
        self.store.case(id).await
    }

    /// Whose a case is; `None` if there is none. Reads beside the writer.
    pub async fn gallery_of_case(&self, id: CaseId) -> Result<Option<GalleryName>, CaseError> {
        self.store.gallery_of_case(id).await
    }

    /// What happened since the store was made. Reads beside the writer.
    pub async fn tally(&self) -> Result<Tally, StoreError> {
        self.store.tally().await
    }

    /// The time source of all that expires.
    pub fn clock(&self) -> &Clock {
        self.store.clock()
    }

    /// Refuses new changes, finishes those that are queued, closes the store and gives the directory free.
    pub async fn close(&self) {
        self.store.close().await;
    }
}

impl fmt::Debug for Galleries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_writer_that_panics_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootKey::from_bytes([7; 32]);
        let galleries = Galleries::open(dir.path(), &root, Settings::default()).unwrap();
        assert!(!galleries.has_failed());
        galleries.store.in_turn(Box::new(|| panic!("as the test wishes"))).await;
        galleries.close().await;
        assert!(galleries.has_failed());
    }
}
