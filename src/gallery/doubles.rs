//! Indexes that are not the product's: what a gallery does may not depend on which it has.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use imbl::OrdMap;
use vultus_index::{ExactIndex, FaissIndexes, Index, IndexError, Indexes, Neighbour, Snapshot, Vectors, Within};

/// One of each kind, none of which fails.
pub fn every_kind() -> [Arc<dyn Indexes>; 4] {
    [Arc::new(FaissIndexes), Arc::new(Oracles), Arc::new(CoarseIndexes), Arc::new(Faults::default())]
}

/// The index crate's oracle for every gallery.
#[derive(Debug)]
pub struct Oracles;

impl Indexes for Oracles {
    fn make(&self, dimension: usize) -> Result<Box<dyn Index>, IndexError> {
        Ok(Box::new(ExactIndex::new(dimension)))
    }
}

/// Finds by codes, and opens a vector of its own for whoever asks: what is searched and what is kept are two memories.
#[derive(Debug)]
pub struct CoarseIndexes;

impl Indexes for CoarseIndexes {
    fn make(&self, dimension: usize) -> Result<Box<dyn Index>, IndexError> {
        Ok(Box::new(Coarse { dimension, codes: OrdMap::new(), kept: Kept::default() }))
    }
}

/// Width of what shares a code.
const STEP: f32 = 0.5;

#[derive(Clone)]
struct Coarse {
    dimension: usize,
    codes: OrdMap<i64, Arc<[f32]>>,
    kept: Kept,
}

#[derive(Clone, Default)]
struct Kept(OrdMap<i64, Arc<[f32]>>);

impl Coarse {
    /// What lies within the distance of the probe: codes leave out the rest, vectors say how far it is.
    fn look(&self, probe: &[f32], squared_distance: f32, most: usize) -> Vec<Neighbour> {
        let reach = squared_distance.max(0.0).sqrt() + STEP * (self.dimension as f32).sqrt();
        let near = self.codes.iter().filter(|(_, code)| squared(probe, code).sqrt() <= reach);
        let compared = near.filter_map(|(id, _)| {
            let squared_distance = squared(probe, self.kept.0.get(id)?);
            Some(Neighbour { id: *id, squared_distance })
        });
        let mut found: Vec<_> = compared.filter(|near| near.squared_distance <= squared_distance + 1e-3).collect();
        found.sort_by(Neighbour::order);
        found.truncate(most);
        found
    }
}

fn squared(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

impl Index for Coarse {
    fn insert(&mut self, rows: &[(i64, &[f32])]) -> Result<(), IndexError> {
        for (id, vector) in rows {
            assert_eq!(vector.len(), self.dimension);
            assert!(self.codes.get_max().is_none_or(|last| last.0 < *id), "{id} does not ascend");
            self.codes.insert(*id, vector.iter().map(|value| (value / STEP).round() * STEP).collect());
            self.kept.0.insert(*id, (*vector).into());
        }
        Ok(())
    }

    fn remove(&mut self, ids: &[i64]) -> Result<usize, IndexError> {
        ids.iter().for_each(|id| drop(self.codes.remove(id)));
        Ok(ids.iter().filter_map(|id| self.kept.0.remove(id)).count())
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(self.clone())
    }
}

impl Snapshot for Coarse {
    fn len(&self) -> usize {
        self.codes.len()
    }

    fn within(&self, asks: &[Within<'_>]) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        Ok(asks.iter().map(|ask| self.look(ask.probe, ask.squared_distance, ask.most)).collect())
    }

    fn nearest(&self, probes: &[&[f32]], k: usize) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        Ok(probes.iter().map(|probe| self.look(probe, f32::INFINITY, k)).collect())
    }

    fn vectors(&self) -> &dyn Vectors {
        &self.kept
    }
}

impl Vectors for Kept {
    fn vector(&self, id: i64) -> Result<Option<Cow<'_, [f32]>>, IndexError> {
        Ok(self.0.get(&id).map(|values| Cow::Owned(values.to_vec())))
    }
}

/// Makes indexes that find, and fail as the test wishes.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// None is made.
    pub making: Arc<AtomicBool>,
    /// None takes another row.
    pub inserting: Arc<AtomicBool>,
    /// No vector can be read.
    pub reading: Arc<AtomicBool>,
    /// Every vector is lost.
    pub keeping: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Faulty {
    inner: ExactIndex,
    faults: Faults,
}

impl Faults {
    fn check(fault: &AtomicBool) -> Result<(), IndexError> {
        if fault.load(SeqCst) { Err(IndexError::Engine("as the test wishes".into())) } else { Ok(()) }
    }
}

impl Indexes for Faults {
    fn make(&self, dimension: usize) -> Result<Box<dyn Index>, IndexError> {
        Self::check(&self.making)?;
        Ok(Box::new(Faulty { inner: ExactIndex::new(dimension), faults: self.clone() }))
    }
}

impl Index for Faulty {
    fn insert(&mut self, rows: &[(i64, &[f32])]) -> Result<(), IndexError> {
        Faults::check(&self.faults.inserting)?;
        self.inner.insert(rows)
    }

    fn remove(&mut self, ids: &[i64]) -> Result<usize, IndexError> {
        self.inner.remove(ids)
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(self.clone())
    }
}

impl Snapshot for Faulty {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn within(&self, asks: &[Within<'_>]) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        self.inner.within(asks)
    }

    fn nearest(&self, probes: &[&[f32]], k: usize) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        self.inner.nearest(probes, k)
    }

    fn vectors(&self) -> &dyn Vectors {
        self
    }
}

impl Vectors for Faulty {
    fn vector(&self, id: i64) -> Result<Option<Cow<'_, [f32]>>, IndexError> {
        if self.faults.reading.load(SeqCst) {
            return Err(IndexError::Unreadable { id, why: "as the test wishes".into() });
        }
        if self.faults.keeping.load(SeqCst) { Ok(None) } else { self.inner.vector(id) }
    }
}
