//! The whole service, as a front end sees it: a real process, real faces, gRPC.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod cancel;
mod counted;
mod canary;
mod chip;
mod decided;
mod door;
mod faces;
mod house;
mod http2;
mod interop;
mod left;
mod misuse;
mod mixup;
mod refusals;
mod requests;
mod server;
mod story;
mod stream;
mod review;
mod traces;
mod unknown;
