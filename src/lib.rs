//! Vultus: face verification (1:1) and duplicate-identity search (1:N) as a gRPC service.
//!
//! The modules stand in the order of the layers, the life of a request from top to bottom. Imports point only
//! downwards in this list, and the stages of `pipeline` never import each other; `tests/tidy` keeps it so.

#![deny(unsafe_code)]

pub mod cli;
pub mod config;
pub mod rpc;
pub mod access;
pub mod audit;
pub mod pipeline;
pub mod gallery;
pub mod model;
pub mod seal;
pub mod domain;
pub mod telemetry;
pub mod priority;
