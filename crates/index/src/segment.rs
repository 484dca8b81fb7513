//! One Faiss flat index, and the ids of its rows.

use faiss::{ConcurrentIndex, FlatIndex, Index as _, error::Error};

use super::{IndexError, Neighbour, keep_best};

pub(super) struct Segment {
    /// Ascending; `ids[i]` names row i of `flat`.
    pub ids: Vec<i64>,
    flat: FlatIndex,
}

impl Segment {
    pub(super) fn new(dimension: usize) -> Result<Self, IndexError> {
        let dimension = u32::try_from(dimension).map_err(|_| IndexError::Engine("the dimension is absurd".into()))?;
        Ok(Self { ids: Vec::new(), flat: FlatIndex::new_l2(dimension).map_err(engine)? })
    }

    pub(super) fn copy(&self, dimension: usize) -> Result<Self, IndexError> {
        let mut copy = Self::new(dimension)?;
        copy.append(&self.ids, self.values())?;
        Ok(copy)
    }

    /// A copy that lacks the rows of `doomed`, `(_, row)` ascending.
    pub(super) fn without(&self, doomed: &[(usize, usize)], dimension: usize) -> Result<Self, IndexError> {
        let mut kept = Self::new(dimension)?;
        let mut from = 0;
        // The runs between the doomed rows, the last run included.
        for to in doomed.iter().map(|&(_, row)| row).chain([self.ids.len()]) {
            kept.append(
                self.ids.get(from..to).unwrap_or_default(),
                self.values().get(from * dimension..to * dimension).unwrap_or_default(),
            )?;
            from = to + 1;
        }
        Ok(kept)
    }

    pub(super) fn append(&mut self, ids: &[i64], values: &[f32]) -> Result<(), IndexError> {
        if !ids.is_empty() {
            self.flat.add(values).map_err(engine)?;
            self.ids.extend_from_slice(ids);
        }
        Ok(())
    }

    /// Row by row.
    pub(super) fn values(&self) -> &[f32] {
        // Faiss has no pointer to give for an empty index.
        if self.ids.is_empty() { &[] } else { self.flat.xb() }
    }

    /// `probes`: one row per list of `found`, which each get this segment's best `k`.
    pub(super) fn search(&self, probes: &[f32], k: usize, found: &mut [Vec<Neighbour>]) -> Result<(), IndexError> {
        let here = k.min(self.ids.len());
        if here == 0 {
            return Ok(());
        }
        let answer = ConcurrentIndex::search(&self.flat, probes, here).map_err(engine)?;
        let lists = answer.labels.chunks_exact(here).zip(answer.distances.chunks_exact(here));
        for (found, (labels, distances)) in found.iter_mut().zip(lists) {
            found.extend(labels.iter().zip(distances).filter_map(|(label, &squared_distance)| {
                let row = usize::try_from(label.get()?).ok()?;
                Some(Neighbour { id: *self.ids.get(row)?, squared_distance })
            }));
            if found.len() > 16 * k {
                keep_best(found, k);
            }
        }
        Ok(())
    }
}

fn engine(error: Error) -> IndexError {
    IndexError::Engine(error.to_string())
}
