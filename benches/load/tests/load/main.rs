//! The whole service under load: too much of it, a flood beside it, restarts in the middle of it. Short by default; `make load-long`
//! takes the time that the figures need. What is asserted holds on any machine; figures are printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod bench;
#[allow(dead_code)]
#[path = "../../../../tests/service/faces.rs"]
mod faces;
mod flood;
mod null;
mod overload;
mod refused;
#[allow(dead_code)]
#[path = "../../../../tests/service/requests.rs"]
mod requests;
mod restarts;
#[allow(dead_code)]
#[path = "../../../../tests/service/server.rs"]
mod server;

use tokio::sync::Mutex;

/// Tests that load the machine take turns: each has it alone.
static MACHINE: Mutex<()> = Mutex::const_new(());

/// A length that the environment may set.
fn set(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}
