//! The oracle: a plain scan, summed in f64.

use std::{borrow::Cow, fmt, sync::Arc};

use super::{
    Index, IndexError, Neighbour, Snapshot, Vectors, Within, check_dimension, check_rows, keep_best, with_room,
};

/// Rows side by side, and nothing clever.
#[derive(Clone)]
pub struct ExactIndex {
    dimension: usize,
    ids: Vec<i64>,
    /// `ids.len() x dimension`, row by row.
    values: Vec<f32>,
}

impl fmt::Debug for ExactIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactIndex").field("dimension", &self.dimension).finish_non_exhaustive()
    }
}

impl ExactIndex {
    pub fn new(dimension: usize) -> Self {
        Self { dimension, ids: Vec::new(), values: Vec::new() }
    }

    /// Every row, unordered.
    fn all(&self, probe: &[f32]) -> Result<Vec<Neighbour>, IndexError> {
        check_dimension(self.dimension, probe)?;
        let neighbour = |(id, row)| Neighbour { id, squared_distance: squared_distance(probe, row) as f32 };
        Ok(self.rows().map(neighbour).collect())
    }

    fn rows(&self) -> impl Iterator<Item = (i64, &[f32])> {
        self.ids.iter().copied().zip(self.values.chunks_exact(self.dimension.max(1)))
    }
}

impl Index for ExactIndex {
    fn insert(&mut self, rows: &[(i64, &[f32])]) -> Result<(), IndexError> {
        check_rows(self.dimension, self.ids.last().copied(), rows)?;
        for (id, vector) in rows {
            self.ids.push(*id);
            self.values.extend_from_slice(vector);
        }
        Ok(())
    }

    fn remove(&mut self, ids: &[i64]) -> Result<usize, IndexError> {
        let (kept_ids, kept): (Vec<_>, Vec<_>) = self.rows().filter(|(id, _)| !ids.contains(id)).unzip();
        let values = kept.concat();
        let removed = self.ids.len() - kept_ids.len();
        (self.ids, self.values) = (kept_ids, values);
        Ok(removed)
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(self.clone())
    }
}

impl Snapshot for ExactIndex {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn within(&self, asks: &[Within<'_>]) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        let answer = |ask: &Within<'_>| {
            let mut found = self.all(ask.probe)?;
            found.retain(|neighbour| neighbour.squared_distance <= with_room(ask.squared_distance));
            keep_best(&mut found, ask.most);
            Ok(found)
        };
        asks.iter().map(answer).collect()
    }

    fn nearest(&self, probes: &[&[f32]], k: usize) -> Result<Vec<Vec<Neighbour>>, IndexError> {
        let nearest = |probe: &&[f32]| {
            let mut found = self.all(probe)?;
            keep_best(&mut found, k);
            Ok(found)
        };
        probes.iter().map(nearest).collect()
    }

    fn vectors(&self) -> &dyn Vectors {
        self
    }
}

impl Vectors for ExactIndex {
    fn vector(&self, id: i64) -> Result<Option<Cow<'_, [f32]>>, IndexError> {
        Ok(self.rows().find(|row| row.0 == id).map(|row| Cow::Borrowed(row.1)))
    }
}

/// Of two vectors of one length; sums in f64, in eight lanes that the compiler can put in a register.
pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    let mut lanes = [0.0_f64; 8];
    for (a, b) in a8.iter().zip(b8) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            let difference = f64::from(*a) - f64::from(*b);
            *lane += difference * difference;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_by_distance_then_id() {
        let mut index = ExactIndex::new(2);
        index.insert(&[(1, &[3.0, 4.0]), (4, &[1.0, 0.0]), (9, &[0.0, 1.0])]).unwrap();
        let found = index.nearest(&[&[0.0, 0.0]], 2).unwrap();
        let expected = [4, 9].map(|id| Neighbour { id, squared_distance: 1.0 });
        assert_eq!(found, [expected.to_vec()]);
        assert_eq!(index.nearest(&[&[0.0, 0.0]], 9).unwrap()[0][2].squared_distance, 25.0);
        let within =
            |most| index.within(&[Within { probe: &[0.0, 0.0], squared_distance: 1.0, most }]).unwrap().remove(0);
        assert_eq!(within(5), expected);
        assert_eq!(within(1), expected[..1]);
        assert_eq!(index.remove(&[4, 5]), Ok(1));
        assert_eq!(index.vector(9), Ok(Some([0.0, 1.0].as_slice().into())));
        assert_eq!((index.vector(4), index.len()), (Ok(None), 2));
    }

    #[test]
    fn refuses_what_does_not_fit_and_stays_as_it_was() {
        let mut index = ExactIndex::new(2);
        let wrong = index.insert(&[(1, &[0.0, 0.0]), (2, &[0.0])]);
        assert_eq!(wrong, Err(IndexError::Dimension { expected: 2, found: 1 }));
        assert_eq!(index.insert(&[(2, &[0.0, 0.0]), (2, &[0.0, 0.0])]), Err(IndexError::Order { id: 2, last: 2 }));
        assert!(index.is_empty());
        assert!(index.nearest(&[&[0.0]], 1).is_err());
    }

    #[test]
    fn sums_every_value() {
        for length in 0..40 {
            let (a, b): (Vec<f32>, Vec<f32>) = (0..length).map(|i| (i as f32, -(i as f32))).unzip();
            let expected: f64 = (0..length).map(|i| f64::from(4 * i * i)).sum();
            assert_eq!(squared_distance(&a, &b), expected);
        }
    }
}
