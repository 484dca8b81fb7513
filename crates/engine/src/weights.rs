//! Named weights: finite f32 tensors under limits.

use std::{collections::BTreeMap, sync::Arc};

/// Elements of all tensors of one network, at most: 128 Mi, half a GiB of f32. IResNet-100 has 65 M.
pub const MAX_ELEMENTS: usize = 128 << 20;
/// Tensors of one network, at most.
pub const MAX_TENSORS: usize = 10_000;
/// Dimensions of a tensor, at most.
pub const MAX_RANK: usize = 4;
/// Bytes of a tensor's name, at most.
pub const MAX_NAME: usize = 256;

/// Why tensors are not a network's weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    #[error("a tensor's name has 1 to {MAX_NAME} bytes, one has {len}")]
    Name { len: usize },
    #[error("tensor {name}: expected 1 to {MAX_RANK} dimensions, each at least 1, got {shape:?}")]
    Shape { name: String, shape: Vec<usize> },
    #[error("tensor {name}: its shape needs {expected} values, it has {got}")]
    Length { name: String, expected: usize, got: usize },
    #[error("tensor {name}: value {index} is not finite")]
    NotFinite { name: String, index: usize },
    #[error("tensor {name} is there twice")]
    Twice { name: String },
    #[error("a network has at most {MAX_TENSORS} tensors of {MAX_ELEMENTS} values in all")]
    TooLarge,
    #[error("tensor {name} is missing")]
    Missing { name: String },
}

/// One tensor, row-major. Clones share the values.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    shape: Vec<usize>,
    values: Arc<Vec<f32>>,
}

impl Weight {
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Shape and values; they are copied only where a clone shares them.
    pub fn into_parts(self) -> (Vec<usize>, Vec<f32>) {
        (self.shape, Arc::unwrap_or_clone(self.values))
    }

    /// The same values with dimension `order[i]` moved to place i. `None` unless `order` is a permutation of the dimensions.
    pub fn permuted(&self, order: &[usize]) -> Option<Self> {
        let rank = self.shape.len();
        if order.len() != rank || !(0..rank).all(|axis| order.contains(&axis)) {
            return None;
        }
        let mut strides = vec![1; rank];
        for axis in (1..rank).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        let shape: Vec<usize> = order.iter().map(|&axis| self.shape[axis]).collect();
        let strides: Vec<usize> = order.iter().map(|&axis| strides[axis]).collect();
        let mut values = Vec::with_capacity(self.values.len());
        let mut place = vec![0; rank];
        for _ in 0..self.values.len() {
            let at: usize = place.iter().zip(&strides).map(|(p, s)| p * s).sum();
            values.push(self.values[at]);
            for axis in (0..rank).rev() {
                place[axis] += 1;
                if place[axis] < shape[axis] {
                    break;
                }
                place[axis] = 0;
            }
        }
        Some(Self { shape, values: Arc::new(values) })
    }
}

/// The tensors of one network, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, Weight>,
    elements: usize,
}

impl Weights {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor; every value is checked to be finite.
    ///
    /// # Errors
    /// See [`WeightsError`]; then nothing was added.
    pub fn insert(&mut self, name: &str, shape: Vec<usize>, values: Vec<f32>) -> Result<(), WeightsError> {
        let expected = element_count(name, &shape)?;
        if values.len() != expected {
            return Err(WeightsError::Length { name: name.into(), expected, got: values.len() });
        }
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(WeightsError::NotFinite { name: name.into(), index });
        }
        if self.tensors.contains_key(name) {
            return Err(WeightsError::Twice { name: name.into() });
        }
        if self.tensors.len() >= MAX_TENSORS || self.elements + expected > MAX_ELEMENTS {
            return Err(WeightsError::TooLarge);
        }
        self.elements += expected;
        self.tensors.insert(name.into(), Weight { shape, values: Arc::new(values) });
        Ok(())
    }

    /// Adds a tensor that another network's weights already hold.
    pub fn adopt(&mut self, name: &str, weight: Weight) -> Result<(), WeightsError> {
        let (shape, values) = weight.into_parts();
        self.insert(name, shape, values)
    }

    /// Takes a tensor out.
    pub fn take(&mut self, name: &str) -> Result<Weight, WeightsError> {
        let weight = self.get(name)?.clone();
        self.tensors.remove(name);
        self.elements -= weight.values.len();
        Ok(weight)
    }

    pub fn get(&self, name: &str) -> Result<&Weight, WeightsError> {
        self.tensors.get(name).ok_or_else(|| WeightsError::Missing { name: name.chars().take(MAX_NAME).collect() })
    }

    /// In the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Weight)> {
        self.tensors.iter().map(|(name, weight)| (name.as_str(), weight))
    }

    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

/// Values that a tensor of this shape holds, checked against every limit before anything is allocated.
pub fn element_count(name: &str, shape: &[usize]) -> Result<usize, WeightsError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(WeightsError::Name { len: name.len() });
    }
    if shape.is_empty() || shape.len() > MAX_RANK || shape.contains(&0) {
        let shape = shape.iter().copied().take(MAX_RANK + 1).collect();
        return Err(WeightsError::Shape { name: name.into(), shape });
    }
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_ELEMENTS);
    count.ok_or(WeightsError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_checked() {
        let mut w = Weights::new();
        w.insert("a", vec![2, 3], vec![0.0; 6]).unwrap();
        assert_eq!(w.insert("a", vec![1], vec![0.0]), Err(WeightsError::Twice { name: "a".into() }));
        assert!(matches!(
            w.insert("b", vec![2, 3], vec![0.0; 5]),
            Err(WeightsError::Length { expected: 6, got: 5, .. })
        ));
        assert!(matches!(w.insert("b", vec![1], vec![f32::NAN]), Err(WeightsError::NotFinite { index: 0, .. })));
        assert!(matches!(w.insert("b", vec![0], vec![]), Err(WeightsError::Shape { .. })));
        assert!(matches!(w.insert("b", vec![1; 5], vec![0.0]), Err(WeightsError::Shape { .. })));
        assert!(matches!(w.insert("", vec![1], vec![0.0]), Err(WeightsError::Name { len: 0 })));
        assert_eq!(w.insert("b", vec![usize::MAX, 2], vec![]), Err(WeightsError::TooLarge));
        assert_eq!(w.get("c"), Err(WeightsError::Missing { name: "c".into() }));
        assert_eq!(w.len(), 1);
    }

    #[test]
    fn permuting_moves_dimensions() {
        let w = Weight { shape: vec![2, 3], values: Arc::new(vec![0., 1., 2., 3., 4., 5.]) };
        let t = w.permuted(&[1, 0]).unwrap();
        assert_eq!((t.shape(), t.values()), ([3, 2].as_slice(), [0., 3., 1., 4., 2., 5.].as_slice()));
        assert_eq!(w.permuted(&[0, 0]), None);
        assert_eq!(w.permuted(&[0]), None);
    }
}
