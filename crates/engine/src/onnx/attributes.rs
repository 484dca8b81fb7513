//! A node's attributes. Each is asked for by the operator that knows it; one that nobody asked for is refused.

use std::{cell::RefCell, collections::HashSet};

use super::{
    proto::{AttributeProto, NodeProto, TensorProto, attribute_proto::AttributeType},
    shorten,
};

/// Of one node.
pub struct Attributes<'a> {
    all: &'a [AttributeProto],
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Attributes<'a> {
    pub fn new(node: &'a NodeProto) -> Self {
        Self { all: &node.attribute, asked: RefCell::default() }
    }

    fn get(&self, name: &'static str, kind: AttributeType) -> Result<Option<&'a AttributeProto>, String> {
        self.asked.borrow_mut().push(name);
        let Some(found) = self.all.iter().find(|a| a.name == name) else { return Ok(None) };
        // Files of before IR version 2 may leave the type out.
        if found.r#type != kind as i32 && found.r#type != AttributeType::Undefined as i32 {
            return Err(format!("attribute {name} has type {}, expected {}", found.r#type, kind as i32));
        }
        Ok(Some(found))
    }

    pub fn int(&self, name: &'static str, default: i64) -> Result<i64, String> {
        Ok(self.get(name, AttributeType::Int)?.map_or(default, |a| a.i))
    }

    /// `None` where it is not there; infinite ones are let through.
    pub fn float_or_none(&self, name: &'static str) -> Result<Option<f32>, String> {
        match self.get(name, AttributeType::Float)?.map(|a| a.f) {
            Some(value) if value.is_nan() => Err(format!("attribute {name} is no number")),
            value => Ok(value),
        }
    }

    /// `None` where it is not there.
    pub fn int_or_none(&self, name: &'static str) -> Result<Option<i64>, String> {
        Ok(self.get(name, AttributeType::Int)?.map(|a| a.i))
    }

    pub fn float(&self, name: &'static str, default: f32) -> Result<f32, String> {
        let value = self.get(name, AttributeType::Float)?.map_or(default, |a| a.f);
        if value.is_finite() { Ok(value) } else { Err(format!("attribute {name} is not finite")) }
    }

    /// `None` where it is not there.
    pub fn ints(&self, name: &'static str) -> Result<Option<&'a [i64]>, String> {
        Ok(self.get(name, AttributeType::Ints)?.map(|a| a.ints.as_slice()))
    }

    pub fn floats(&self, name: &'static str) -> Result<Option<&'a [f32]>, String> {
        Ok(self.get(name, AttributeType::Floats)?.map(|a| a.floats.as_slice()))
    }

    /// Empty where it is not there.
    pub fn word(&self, name: &'static str) -> Result<String, String> {
        let word = self.get(name, AttributeType::String)?.map_or(&[][..], |a| &a.s);
        Ok(String::from_utf8_lossy(&word[..word.len().min(80)]).into_owned())
    }

    pub fn tensor(&self, name: &'static str) -> Result<Option<&'a TensorProto>, String> {
        Ok(self.get(name, AttributeType::Tensor)?.and_then(|a| a.t.as_ref()))
    }

    /// The attribute must be absent or have this value: nothing else is known.
    pub fn only(&self, name: &'static str, value: i64) -> Result<(), String> {
        match self.int(name, value)? {
            got if got == value => Ok(()),
            got => Err(format!("{name} {got} is not supported: expected {value}")),
        }
    }

    /// As [`Self::only`], of a list whose values must all be `value`.
    pub fn only_all(&self, name: &'static str, value: i64) -> Result<(), String> {
        match self.ints(name)?.unwrap_or(&[]).iter().find(|&&v| v != value) {
            None => Ok(()),
            Some(got) => Err(format!("{name} {got} is not supported: expected {value}")),
        }
    }

    /// To be called last.
    pub fn no_others(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        if let Some(twice) = self.all.iter().find(|a| !names.insert(a.name.as_str())) {
            return Err(format!("attribute {:?} is there twice", shorten(&twice.name)));
        }
        let asked = self.asked.borrow();
        match self.all.iter().find(|a| !asked.contains(&a.name.as_str())) {
            None => Ok(()),
            Some(other) => Err(format!("attribute {:?} is not known", shorten(&other.name))),
        }
    }
}
