//! Which of several kernels is the fastest for a convolution of a shape: measured on the card, kept in a file.

use std::collections::BTreeMap;

/// By what a convolution is and for how many images, the name of a method.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tuning(BTreeMap<String, String>);

impl Tuning {
    pub fn set(&mut self, key: String, method: String) {
        self.0.insert(key, method);
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}
