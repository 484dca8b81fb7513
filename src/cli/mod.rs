//! The command line: one file per subcommand, each thin over the same pipeline that serves.

mod bench;
pub mod demo;
mod enrol;
mod evaluate;
mod gallery;
pub mod input;
mod licence;
mod model;
pub mod open;
mod report;
pub mod scratch;
pub mod serve;
mod verify;

use std::{io, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use vultus_engine::precision::Precision;

use crate::telemetry::{self, LogFormat};

/// Face verification (1:1) and duplicate-identity search (1:N).
#[derive(Debug, Parser)]
#[command(version = version(), about, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    shared: Shared,
}

/// The version, and whether kernels for CUDA devices are in it.
fn version() -> &'static str {
    if vultus_engine::cuda::is_built() {
        concat!(env!("CARGO_PKG_VERSION"), " (with CUDA)")
    } else {
        concat!(env!("CARGO_PKG_VERSION"), " (without CUDA)")
    }
}

/// What every subcommand takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Shared {
    /// Prints one JSON object on stdout instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// Where models, galleries and keys live.
    #[arg(long, global = true, default_value = "data", env = "VULTUS_DATA")]
    pub data: PathBuf,
    /// Where model bundles live; by default `models` in the data directory.
    #[arg(long, global = true, env = "VULTUS_MODELS")]
    pub models: Option<PathBuf>,
    /// Name of the model, or the path of its folder; for `bench embed` and `model inspect`, `check` and `run` an ONNX file too.
    #[arg(long, global = true, default_value = "default")]
    pub model: String,
    /// The device that runs the networks: auto, cpu or cuda:N.
    #[arg(long, global = true, default_value = "auto")]
    pub device: String,
    /// What the face network computes in: f32, bf16 or int8; by default what the model's card says. Others need a measured
    /// agreement in the card.
    #[arg(long, global = true)]
    pub precision: Option<Precision>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves gRPC on loopback, and metrics on a port of their own.
    Serve(serve::Options),
    /// Tells the whole story on real faces: enrol, verify, find a second identity, review.
    Demo(demo::Options),
    /// Compares two photos with one face each, without a server: are they of one person?
    Verify(verify::Options),
    /// Enrols a folder of images into a gallery. Run again, it goes on where it stopped.
    Enrol(enrol::Options),
    /// Compares pairs of images whose truth is known, and counts errors.
    Evaluate(evaluate::Options),
    /// Gets, lists and checks networks.
    #[command(subcommand)]
    Model(model::Options),
    /// Describes galleries and erases from them, while no server has them open.
    #[command(subcommand)]
    Gallery(gallery::Options),
    /// Measures this machine.
    #[command(subcommand)]
    Bench(bench::Options),
}

/// How a command ended, for scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 0: done; a match; every check passed.
    Good,
    /// 3: done, and the answer is no: a non-match, a failed check, some items refused.
    Negative,
    /// 4: no answer: a face is missing or its quality was refused.
    Undetermined,
    /// 5: the device was lost. A supervisor starts the process anew.
    DeviceLost,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Good => Self::from(0),
            Outcome::Negative => Self::from(3),
            Outcome::Undetermined => Self::from(4),
            Outcome::DeviceLost => Self::from(5),
        }
    }
}

/// An error that ends a command: exit code 1, its text on stderr.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The text of a failure, which may hold names of files, for a terminal: in lines as it was made, and nothing else that does things.
pub fn told(failure: &Failure) -> String {
    failure.to_string().split('\n').map(report::printable).collect::<Vec<_>>().join("\n")
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<Outcome, Failure> {
    let Arguments { command, shared } = arguments;
    // A server always logs, other commands when asked to.
    let asked = !matches!(command, Command::Serve(_)) && std::env::var_os("VULTUS_LOG").is_some();
    let _log = asked.then(|| telemetry::log_to_stderr(LogFormat::Text));
    match command {
        Command::Serve(options) => serve::run(&options, &shared),
        Command::Demo(options) => demo::run(&options, &shared),
        Command::Verify(options) => verify::run(&options, &shared),
        Command::Enrol(options) => enrol::run(&options, &shared),
        Command::Evaluate(options) => evaluate::run(&options, &shared),
        Command::Model(options) => model::run(&options, &shared),
        Command::Gallery(options) => gallery::run(&options, &shared),
        Command::Bench(options) => bench::run(&options, &shared),
    }
}

/// Of as many threads as there are cores.
///
/// # Errors
/// When the system gives none.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
