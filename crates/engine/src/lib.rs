//! Networks: what they compute, how they are read, and who runs them on images. Knows tensors, images and views of them; nothing of
//! galleries or cards.
//!
//! [`onnx`] reads a network from a file, [`tfjs`] reads tensors that [`architectures`] wires to one. A network is a [`graph`] of typed
//! operations with [`weights`]; [`plan`] fuses what can be fused, and an [`executor`] runs the plan on [`view`]s of [`image`]s: [`cpu`], [`cuda`].
//! [`int8`] is what a plan becomes where its results must have the same bits everywhere.
//! [`candle`] runs the graph itself, node by node: the oracle, which [`parity`] holds the others against.

#![deny(unsafe_code)]

pub mod parity;
pub mod candle;
pub mod cpu;
pub mod cuda;
pub mod int8;
pub mod executor;
pub mod view;
pub mod plan;
pub mod onnx;
pub mod architectures;
pub mod tfjs;
pub mod shapes;
pub mod graph;
#[cfg(test)]
mod generated_tests;
pub mod weights;
mod slots;
pub mod input;
pub mod precision;
pub mod device;
pub mod image;
