//! The command line.

use std::{num::NonZeroUsize, path::PathBuf};

use clap::{Parser, Subcommand};
use vultus::cli::{Shared, serve};

use crate::{rate::Rate, target::GALLERY};

/// Answers a second of a whole Vultus server, and their latencies at given rates of requests.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The server of `--null-model`: it verifies nobody.
    #[command(hide = true)]
    NullServer(serve::Options),
}

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Requests a second, or a share of the peak, which is then found first: 40, or 80%. One window for each.
    #[arg(long, value_delimiter = ',', default_value = "50%,80%,100%,1000%")]
    pub rate: Vec<Rate>,
    /// How long each window is.
    #[arg(long, default_value_t = 20.0)]
    pub seconds: f64,
    /// Of the moments at which requests are sent: the same number gives the same moments.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Connections, each of a client of its own.
    #[arg(long, default_value = "8")]
    pub connections: NonZeroUsize,
    /// Each request's.
    #[arg(long, default_value_t = 10_000)]
    pub deadline_ms: u64,
    /// A server that runs, HOST:PORT, instead of one that is started for the benchmark. Faces are enrolled in it.
    #[arg(long)]
    pub target: Option<String>,
    /// The running server's process, where it is on this machine: its time and memory are then shown.
    #[arg(long, requires = "target")]
    pub pid: Option<u32>,
    /// The clients to call the running server as, with the rights to verify and enrol.
    #[arg(long, requires = "target", value_delimiter = ',', default_value = "shop")]
    pub client: Vec<String>,
    /// The gallery of the running server.
    #[arg(long, requires = "target", default_value = GALLERY)]
    pub gallery: String,
    /// Starts a server of its own that looks at no face, and sends it 20 KB of noise: what is left is the transport. With
    /// `--target`, sends noise to a server that does the same.
    #[arg(long)]
    pub null_model: bool,
    /// Gives the server the first half of the cores, and the generator the others. By default they share all.
    #[arg(long, conflicts_with = "target")]
    pub apart: bool,
    /// Takes the peak with so many callers that wait for their answers; by default 8 to 128, of which the fewest that bring within 2 % of
    /// the most.
    #[arg(long)]
    pub callers: Option<NonZeroUsize>,
    /// How often the saturated server and the bare networks are measured in turn; 0 leaves it out.
    #[arg(long, default_value_t = 0)]
    pub rounds: usize,
    /// Runs every window twice: as it is, and with so many callers beside that identify without a rest.
    #[arg(long, default_value_t = 0, conflicts_with_all = ["target", "null_model"])]
    pub flood: usize,
    /// Made-up references in the flood's gallery.
    #[arg(long, default_value_t = 20_000, requires = "flood")]
    pub references: usize,
    /// The server's program; by default the one beside this.
    #[arg(long, conflicts_with_all = ["target", "null_model"])]
    pub vultus: Option<PathBuf>,
}
