//! The stages between an image and a template. Stages never import each other.

pub mod align;
pub mod decode;
