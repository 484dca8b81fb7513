//! Constants of a graph: tensors of floats or integers, from the file, from beside it, or computed from others.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Component, Path},
};

use super::{
    OnnxError,
    proto::{TensorProto, tensor_proto::DataLocation, tensor_proto::DataType},
    shorten,
};
use crate::weights::{MAX_ELEMENTS, MAX_RANK, Weight, Weights};

/// Why a number that holds the batch's size is refused.
pub const OF_THE_BATCH: &str = "it takes the batch's size, which is not known: that is supported for shapes alone";

/// A tensor whose values are known.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    /// Empty for a scalar.
    pub shape: Vec<usize>,
    pub values: Values,
}

/// Row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
    /// Dimensions of a shape, with the batch's size among them.
    Dimensions(Vec<Dimension>),
}

/// One number of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dimension {
    /// The batch's size, which is not known.
    Batch,
    Of(i64),
}

impl Constant {
    /// Decodes `tensor`; `folder` is where external data may lie. Every float is finite,
    /// or the only one and infinite, as bounds are.
    pub fn read(tensor: &TensorProto, folder: &Path) -> Result<Self, OnnxError> {
        let fault = |reason: String| OnnxError::Tensor { name: shorten(&tensor.name), reason };
        let shape = shape(tensor).map_err(fault)?;
        let count: usize = shape.iter().product();
        let kind = DataType::try_from(tensor.data_type).unwrap_or(DataType::Undefined);
        let size = match kind {
            DataType::Float | DataType::Int32 => 4,
            DataType::Float16 => 2,
            DataType::Double | DataType::Int64 => 8,
            DataType::Undefined => {
                return Err(fault(format!(
                    "data type {} is not supported: expected f32, f16, f64, i32 or i64",
                    tensor.data_type
                )));
            }
        };
        let external = match tensor.data_location == DataLocation::External as i32 {
            true => Some(external(tensor, folder, count * size).map_err(fault)?),
            false => None,
        };
        let raw = external.as_deref().unwrap_or(&tensor.raw_data);
        let typed =
            [tensor.float_data.len(), tensor.int32_data.len(), tensor.int64_data.len(), tensor.double_data.len()];
        if external.is_some() || !raw.is_empty() {
            if raw.len() != count * size || typed.iter().any(|&n| n > 0) {
                let (expected, got) = (count * size, raw.len());
                return Err(fault(format!("its shape {shape:?} needs {expected} bytes, it has {got}")));
            }
        } else {
            let got = match kind {
                DataType::Float => typed[0],
                DataType::Float16 | DataType::Int32 => typed[1],
                DataType::Int64 => typed[2],
                DataType::Double | DataType::Undefined => typed[3],
            };
            if got != count {
                return Err(fault(format!("its shape {shape:?} needs {count} values, it has {got}")));
            }
        }
        let values = decode(tensor, kind, raw);
        if let Values::Floats(values) = &values
            && let Some(index) = values.iter().position(|v| v.is_nan() || (v.is_infinite() && count > 1))
        {
            return Err(fault(format!("value {index} is not finite")));
        }
        Ok(Self { shape, values })
    }

    pub fn len(&self) -> usize {
        match &self.values {
            Values::Floats(values) => values.len(),
            Values::Integers(values) => values.len(),
            Values::Dimensions(dimensions) => dimensions.len(),
        }
    }

    /// The floats, with their shape.
    pub fn floats(self) -> Result<(Vec<usize>, Vec<f32>), String> {
        match self.values {
            Values::Floats(values) => Ok((self.shape, values)),
            _ => Err("expected a constant of floats, got integers".into()),
        }
    }

    /// Not of what holds the batch's size: a number in its place would be made up.
    pub fn integers(self) -> Result<Vec<i64>, String> {
        match self.values {
            Values::Integers(values) => Ok(values),
            Values::Dimensions(_) => Err(OF_THE_BATCH.into()),
            Values::Floats(_) => Err("expected a constant of integers, got floats".into()),
        }
    }

    /// The one float in it.
    pub fn scalar(self) -> Result<f32, String> {
        match self.values {
            Values::Floats(values) => match values.as_slice() {
                &[value] => Ok(value),
                _ => Err(format!("expected one value, got {}", values.len())),
            },
            _ => Err("expected a constant of floats, got integers".into()),
        }
    }

    /// Integers, the batch's size among them or not.
    pub fn dimensions(self) -> Result<Vec<Dimension>, String> {
        match self.values {
            Values::Dimensions(dimensions) => Ok(dimensions),
            _ => Ok(self.integers()?.into_iter().map(Dimension::Of).collect()),
        }
    }

    /// Those that need no batch are integers like others.
    pub fn of_dimensions(shape: Vec<usize>, dimensions: Vec<Dimension>) -> Self {
        let known = |dimension: &Dimension| match dimension {
            Dimension::Of(n) => Some(*n),
            Dimension::Batch => None,
        };
        let values = match dimensions.iter().map(known).collect() {
            Some(integers) => Values::Integers(integers),
            None => Values::Dimensions(dimensions),
        };
        Self { shape, values }
    }

    /// The same with dimension `order[i]` moved to place i.
    pub fn transposed(self, order: &[usize]) -> Result<Self, String> {
        let (shape, values) = self.floats()?;
        // Weights know how, and check both.
        let mut weights = Weights::new();
        weights.insert("t", shape, values).map_err(|e| e.to_string())?;
        let moved = weights.get("t").ok().and_then(|w| w.permuted(order)).map(Weight::into_parts);
        let (shape, values) = moved.ok_or_else(|| format!("perm {order:?} is no order of its dimensions"))?;
        Ok(Self { shape, values: Values::Floats(values) })
    }
}

/// At most [`MAX_RANK`] dimensions of at least 1 and [`MAX_ELEMENTS`] values; an empty list of integers may have 0.
fn shape(tensor: &TensorProto) -> Result<Vec<usize>, String> {
    let dims = &tensor.dims;
    let bad = || {
        format!(
            "shape {:?} has more than {MAX_RANK} dimensions, an empty or a negative one",
            &dims[..dims.len().min(8)]
        )
    };
    if dims.len() > MAX_RANK {
        return Err(bad());
    }
    let shape: Option<Vec<usize>> = dims.iter().map(|&d| usize::try_from(d).ok().filter(|&d| d > 0)).collect();
    let shape = shape.ok_or_else(bad)?;
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_ELEMENTS);
    count.map(|_| shape).ok_or_else(|| format!("it has more than {MAX_ELEMENTS} values"))
}

/// Lengths were checked.
fn decode(tensor: &TensorProto, kind: DataType, raw: &[u8]) -> Values {
    let in_fields = raw.is_empty();
    match kind {
        DataType::Float if in_fields => Values::Floats(tensor.float_data.clone()),
        DataType::Float => Values::Floats(raw.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        DataType::Float16 if in_fields => {
            Values::Floats(tensor.int32_data.iter().map(|&bits| half_to_f32((bits & 0xffff) as u16)).collect())
        }
        DataType::Float16 => {
            Values::Floats(raw.as_chunks::<2>().0.iter().map(|b| half_to_f32(u16::from_le_bytes(*b))).collect())
        }
        DataType::Int32 if in_fields => Values::Integers(tensor.int32_data.iter().map(|&v| v.into()).collect()),
        DataType::Int32 => {
            Values::Integers(raw.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b).into()).collect())
        }
        DataType::Int64 if in_fields => Values::Integers(tensor.int64_data.clone()),
        DataType::Int64 => Values::Integers(raw.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
        DataType::Double | DataType::Undefined if in_fields => {
            Values::Floats(tensor.double_data.iter().map(|&v| v as f32).collect())
        }
        DataType::Double | DataType::Undefined => {
            Values::Floats(raw.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect())
        }
    }
}

/// IEEE 754 binary16.
fn half_to_f32(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15), u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction as f32 * 2f32.powi(-24),
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// To the nearest that IEEE 754 binary16 holds, and then to even; infinite beyond all of them.
pub fn round_to_half(value: f32) -> f32 {
    const GREATEST: f32 = 65504.0;
    let exponent = (value.to_bits() >> 23 & 255) as i32 - 127;
    // The distance of two neighbours: from 2^-14 down it shrinks no more.
    let step = 2f32.powi(exponent.max(-14) - 10);
    let rounded = (value / step).round_ties_even() * step;
    if rounded.abs() > GREATEST { rounded * f32::INFINITY } else { rounded }
}

/// `expected` bytes of the file that the tensor names: a regular file in `folder` itself or in a folder there.
fn external(tensor: &TensorProto, folder: &Path, expected: usize) -> Result<Vec<u8>, String> {
    let entry = |key: &str| tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| {
        entry(key).map(|v| v.parse::<u64>().map_err(|_| format!("external {key} is no number"))).transpose()
    };
    let location = entry("location").ok_or("its external data have no location")?;
    let below = |c| matches!(c, Component::Normal(_) | Component::CurDir);
    let inside = !location.is_empty() && Path::new(location).components().all(below);
    let outside = || format!("its external data {:?} lie outside of the model's folder", shorten(location));
    if !inside {
        return Err(outside());
    }
    let failed = |e: std::io::Error| format!("its external data {:?}: {e}", shorten(location));
    // A link could lead elsewhere: what it leads to counts.
    let (root, path) = (folder.canonicalize().map_err(failed)?, folder.join(location).canonicalize().map_err(failed)?);
    if !path.starts_with(&root) {
        return Err(outside());
    }
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(expected as u64));
    // Before it is opened: opening a pipe would wait for its other end.
    let metadata = path.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("its external data {:?} are no file", shorten(location)));
    }
    let mut file = File::open(path).map_err(failed)?;
    let end = offset.checked_add(expected as u64);
    if length != expected as u64 || end.is_none_or(|end| end > metadata.len()) {
        let (have, shape) = (metadata.len(), &tensor.dims);
        return Err(format!(
            "its shape {shape:?} needs {expected} bytes of {:?}; length {length} at {offset} of a file of {have} bytes",
            shorten(location)
        ));
    }
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    let mut bytes = vec![0; expected];
    file.read_exact(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_floats() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(half_to_f32(bits), value, "{bits:#x}");
        }
        assert!(half_to_f32(0x7c00).is_infinite() && half_to_f32(0x7e00).is_nan());
        // All of them stay, and what lies between two goes to the nearer one, or to the even one of the two.
        for bits in (0..0x7c00).chain(0x8000..0xfc00) {
            let value = half_to_f32(bits);
            assert_eq!(round_to_half(value).to_bits(), value.to_bits(), "{bits:#x}");
        }
        for bits in 0..0x7bff {
            let (low, high) = (half_to_f32(bits), half_to_f32(bits + 1));
            let even = if bits % 2 == 0 { low } else { high };
            let third = low + (high - low) / 4.0;
            assert_eq!([third, low + (high - low) / 2.0].map(round_to_half), [low, even], "{bits:#x}");
        }
        assert_eq!([65519.0, 65520.0, -1e30, 1e-10].map(round_to_half), [65504.0, f32::INFINITY, -f32::INFINITY, 0.0]);
    }
}
