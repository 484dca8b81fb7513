//! Reads the weights of TensorFlow.js: a JSON manifest that lists tensors in the order of their bytes, and the shards.
//! f32 and uint8-quantised tensors; anything else is refused by name.

use serde::Deserialize;

use super::weights::{MAX_TENSORS, Weights, WeightsError, element_count};

/// Bytes of a manifest, at most.
pub const MAX_MANIFEST: usize = 4 << 20;

/// Why bytes are not weights of TensorFlow.js.
#[derive(Debug, thiserror::Error)]
pub enum TfjsError {
    #[error("the manifest is not JSON of a known form: {0}")]
    Manifest(#[from] serde_json::Error),
    #[error("the manifest is larger than {MAX_MANIFEST} bytes or lists more than {MAX_TENSORS} tensors")]
    TooLarge,
    #[error("the shard {0:?} is missing")]
    Shard(String),
    #[error("tensor {tensor}: {what} {word:?} is not supported")]
    Unsupported { tensor: String, what: &'static str, word: String },
    #[error("tensor {tensor}: scale and min of its quantisation must be finite")]
    Quantisation { tensor: String },
    #[error("tensor {tensor} needs {needed} bytes, {left} are left in its shards")]
    Truncated { tensor: String, needed: usize, left: usize },
    #[error("{0} bytes are left over in the shards")]
    LeftOver(usize),
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

#[derive(Deserialize)]
struct Group {
    paths: Vec<String>,
    weights: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    quantization: Option<Quantisation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quantisation {
    dtype: String,
    scale: f64,
    min: f64,
}

/// All tensors as f32, in the layout they have there (height, width, in, out). `shard` gives a shard's bytes by its path.
pub fn import<'a>(manifest: &[u8], shard: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Weights, TfjsError> {
    if manifest.len() > MAX_MANIFEST {
        return Err(TfjsError::TooLarge);
    }
    let groups: Vec<Group> = serde_json::from_slice(manifest)?;
    if groups.iter().map(|g| g.weights.len()).sum::<usize>() > MAX_TENSORS {
        return Err(TfjsError::TooLarge);
    }
    let mut weights = Weights::new();
    for group in groups {
        let mut shards = Vec::with_capacity(group.paths.len());
        for path in &group.paths {
            shards.push(shard(path).ok_or_else(|| TfjsError::Shard(path.chars().take(200).collect()))?);
        }
        let bytes = match shards.as_slice() {
            [one] => std::borrow::Cow::Borrowed(*one),
            several => std::borrow::Cow::Owned(several.concat()),
        };
        let mut left: &[u8] = &bytes;
        for entry in group.weights {
            let count = element_count(&entry.name, &entry.shape)?;
            let size = entry.value_bytes()?;
            // Nothing is allocated for a tensor whose bytes are not there.
            let Some((data, rest)) = left.split_at_checked(count * size) else {
                return Err(TfjsError::Truncated { tensor: entry.name, needed: count * size, left: left.len() });
            };
            left = rest;
            let values = match &entry.quantization {
                // In f64, then rounded, as TensorFlow.js does.
                Some(q) => data.iter().map(|&v| (f64::from(v) * q.scale + q.min) as f32).collect(),
                None => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            };
            weights.insert(&entry.name, entry.shape, values)?;
        }
        if !left.is_empty() {
            return Err(TfjsError::LeftOver(left.len()));
        }
    }
    Ok(weights)
}

impl Entry {
    fn value_bytes(&self) -> Result<usize, TfjsError> {
        let unsupported = |what, word: &str| {
            Err(TfjsError::Unsupported { tensor: self.name.clone(), what, word: word.chars().take(40).collect() })
        };
        if self.dtype != "float32" {
            return unsupported("dtype", &self.dtype);
        }
        match &self.quantization {
            None => Ok(4),
            Some(q) if q.dtype != "uint8" => unsupported("quantisation to", &q.dtype),
            Some(q) if !(q.scale.is_finite() && q.min.is_finite()) => {
                Err(TfjsError::Quantisation { tensor: self.name.clone() })
            }
            Some(_) => Ok(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANIFEST: &str = r#"[{"paths":["a.bin"],"weights":[
        {"name":"q","shape":[2,2],"dtype":"float32","quantization":{"dtype":"uint8","scale":0.5,"min":-1.0}},
        {"name":"f","shape":[1],"dtype":"float32"}]}]"#;

    fn read(manifest: &str, bytes: &[u8]) -> Result<Weights, TfjsError> {
        import(manifest.as_bytes(), |path| (path == "a.bin").then_some(bytes))
    }

    fn shard() -> Vec<u8> {
        [[0, 1, 2, 255].as_slice(), &7.5f32.to_le_bytes()].concat()
    }

    #[test]
    fn reads_quantised_and_plain_tensors() {
        let weights = read(MANIFEST, &shard()).unwrap();
        assert_eq!(weights.get("q").unwrap().values(), [-1.0, -0.5, 0.0, 126.5]);
        assert_eq!(weights.get("q").unwrap().shape(), [2, 2]);
        assert_eq!(weights.get("f").unwrap().values(), [7.5]);
    }

    #[test]
    fn says_what_is_wrong() {
        let said = |manifest: &str, bytes: &[u8]| read(manifest, bytes).unwrap_err().to_string();
        assert_eq!(said(MANIFEST, &shard()[..7]), "tensor f needs 4 bytes, 3 are left in its shards");
        assert_eq!(said(MANIFEST, &[shard(), vec![0]].concat()), "1 bytes are left over in the shards");
        assert_eq!(said(&MANIFEST.replace("a.bin", "b.bin"), &shard()), "the shard \"b.bin\" is missing");
        assert_eq!(
            said(&MANIFEST.replace("uint8", "uint16"), &shard()),
            "tensor q: quantisation to \"uint16\" is not supported"
        );
        let nan = [[0; 4].as_slice(), &f32::NAN.to_le_bytes()].concat();
        assert_eq!(said(MANIFEST, &nan), "tensor f: value 0 is not finite");
        let huge = MANIFEST.replace("[2,2]", "[4294967296,4294967296]");
        assert!(said(&huge, &shard()).contains("at most"));
        assert!(said(&MANIFEST.replace("0.5", "1e999"), &shard()).contains("not JSON"));
        assert!(said(&MANIFEST.replace("\"f\"", "\"q\""), &shard()).contains("twice"));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(manifest in ".{0,400}", bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read(&manifest, &bytes);
        }

        #[test]
        fn a_damaged_manifest_never_panics(at in 0..MANIFEST.len(), to in any::<u8>(), cut in 0..MANIFEST.len()) {
            let mut damaged = MANIFEST.as_bytes().to_vec();
            damaged[at] = to;
            let bytes = shard();
            let _ = import(&damaged, |_| Some(&bytes));
            prop_assert!(import(&MANIFEST.as_bytes()[..cut], |_| Some(&bytes)).is_err());
        }

        #[test]
        fn only_the_right_length_is_read(len in 0usize..32) {
            let bytes = vec![0; len];
            prop_assert_eq!(read(MANIFEST, &bytes).is_ok(), len == 8);
        }
    }
}
