//! Which index to measure: ours, or any that Faiss's factory makes.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use faiss::{Index as _, MetricType, error::Error, index::autotune::ParameterSpace};

use super::{ExactIndex, FaissIndex, Index, IndexError, Snapshot};

/// Inverted lists that are visited per probe, as the peers' measurements do.
const PROBED_LISTS: u32 = 64;
/// Rows that an index learns its structure from, at most.
const TRAINING_ROWS: usize = 100_000;

/// `exact`, `flat`, or a factory string of Faiss such as `IVF1024,SQ8`. Galleries use `flat` unless told otherwise; the
/// others are for `bench search`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    Exact,
    Flat,
    Factory(String),
}

/// Not the name of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected exact, flat, or a Faiss factory string of at most 128 printable characters, such as IVF1024,SQ8")]
pub struct SpecError;

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match text {
            "exact" => Ok(Self::Exact),
            "flat" => Ok(Self::Flat),
            _ if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(Self::Factory(text.into()))
            }
            _ => Err(SpecError),
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Flat => f.write_str("flat"),
            Self::Factory(text) => f.write_str(text),
        }
    }
}

/// An index that only answers: rows are named by their number.
pub(super) enum Measured {
    Ours(Arc<dyn Snapshot>),
    /// The crate's bindings know only some kinds of index to be safe for concurrent searches, hence the lock.
    Factory(Mutex<faiss::index::IndexImpl>),
}

impl Measured {
    /// `values`: row by row.
    pub(super) fn build(spec: &Spec, dimension: usize, values: &[f32]) -> Result<Self, IndexError> {
        let ours = |mut index: Box<dyn Index>| {
            let rows: Vec<_> = (0..).zip(values.chunks_exact(dimension.max(1))).collect();
            rows.chunks(1 << 16).try_for_each(|rows| index.insert(rows))?;
            Ok(Self::Ours(index.snapshot()))
        };
        match spec {
            Spec::Exact => ours(Box::new(ExactIndex::new(dimension))),
            Spec::Flat => ours(Box::new(FaissIndex::new(dimension))),
            Spec::Factory(description) => {
                let width = u32::try_from(dimension).map_err(|e| IndexError::Engine(e.to_string()))?;
                let mut index = faiss::index_factory(width, description, MetricType::L2).map_err(engine)?;
                let training = values.get(..TRAINING_ROWS * dimension).unwrap_or(values);
                index.train(training).and_then(|()| index.add(values)).map_err(engine)?;
                if description.starts_with("IVF") {
                    let parameters = ParameterSpace::new().map_err(engine)?;
                    parameters.set_index_parameter(&index, "nprobe", PROBED_LISTS).map_err(engine)?;
                }
                Ok(Self::Factory(Mutex::new(index)))
            }
        }
    }

    /// The nearest row of each of `probes` (row by row), asked for as one of the best `k`.
    pub(super) fn nearest(&self, dimension: usize, probes: &[f32], k: usize) -> Result<Vec<Option<i64>>, IndexError> {
        match self {
            Self::Ours(index) => {
                let probes: Vec<_> = probes.chunks_exact(dimension.max(1)).collect();
                let found = index.nearest(&probes, k)?;
                Ok(found.iter().map(|list| list.first().map(|n| n.id)).collect())
            }
            Self::Factory(index) => {
                let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
                let found = index.search(probes, k).map_err(engine)?;
                let first =
                    |list: &[faiss::Idx]| list.first().and_then(|id| id.get()).and_then(|id| i64::try_from(id).ok());
                Ok(found.labels.chunks_exact(k.max(1)).map(first).collect())
            }
        }
    }
}

fn engine(error: Error) -> IndexError {
    IndexError::Engine(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_read_as_they_print() {
        for text in ["exact", "flat", "Flat", "IVF1024,SQ8"] {
            assert_eq!(text.parse::<Spec>().unwrap().to_string(), text);
        }
        for bad in ["", "a b", "é", &"x".repeat(129)] {
            assert_eq!(bad.parse::<Spec>(), Err(SpecError), "{bad:?}");
        }
    }

    #[test]
    fn what_the_factory_does_not_know_is_an_error() {
        let nonsense = Spec::Factory("Nonsense".into());
        assert!(matches!(Measured::build(&nonsense, 4, &[0.0; 16]), Err(IndexError::Engine(_))));
    }
}
