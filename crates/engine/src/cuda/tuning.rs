//! Which of several kernels is the fastest for a convolution of a shape.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// By what a convolution is and for how many images, the name of a method.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tuning(BTreeMap<String, String>);

impl Tuning {
    pub fn set(&mut self, key: String, method: String) {
        self.0.insert(key, method);
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
