//! `vultus bench`: figures of this machine.

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Subcommand;
use serde::Serialize;
use vultus_engine::precision::Precision;
use vultus_index::{Spec, bench::bench_search};

use super::{Failure, Outcome, Shared, open::cores, scratch::Scratch};
use crate::{
    config::Config,
    domain::{GalleryName, ModelDigest},
    gallery::{Galleries, Gallery, bench_enrol, bench_erasures},
    model::bench::{bench_embed, bench_file},
    seal::RootKey,
};

#[derive(Debug, Subcommand)]
pub enum Options {
    /// Faces a second through the face network of `--model`, or through the network in an ONNX file that it names; decoding and
    /// alignment are not counted.
    Embed {
        #[arg(long, default_value = "32")]
        batch: NonZeroUsize,
        /// At least so long.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Threads of the CPU; by default one per core.
        #[arg(long)]
        threads: Option<NonZeroUsize>,
        /// Of an ONNX file with several outputs: the name of the one to take.
        #[arg(long)]
        output: Option<String>,
    },
    /// Searches a second of an index over made-up unit vectors.
    Search {
        /// Rows of the index.
        #[arg(long, default_value_t = 100_000)]
        size: usize,
        /// Values of a row.
        #[arg(long, default_value_t = 128)]
        dim: usize,
        #[arg(long, default_value_t = 1000)]
        queries: usize,
        /// Probes in one search.
        #[arg(long, default_value_t = 1)]
        batch: usize,
        /// exact, flat, or a factory string of Faiss such as IVF1024,SQ8.
        #[arg(long, default_value = "flat")]
        index: Spec,
    },
    /// Enrolments a second, made durable, of made-up templates.
    Enrol {
        #[arg(long, default_value_t = 20_000)]
        references: usize,
        /// Callers at a time.
        #[arg(long, default_value_t = 256)]
        concurrency: usize,
        /// Values of a template.
        #[arg(long, default_value_t = 128)]
        dim: usize,
        /// Makes the gallery in a folder here, and removes it; by default in the data directory, for the figure is the disk's.
        #[arg(long)]
        folder: Option<PathBuf>,
    },
    /// What erasures do to the gallery's part of a verification: its times alone and beside erasures, in turn.
    Erase {
        #[arg(long, default_value_t = 1_000_000)]
        references: usize,
        /// Values of a template.
        #[arg(long, default_value_t = 128)]
        dim: usize,
        /// Of each part of a round.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// As of `bench enrol`.
        #[arg(long)]
        folder: Option<PathBuf>,
    },
}

/// Images of a batch, at most.
const MAX_BATCH: usize = 4096;
/// Bytes of made-up vectors at most.
const MAX_BYTES: usize = 64 << 30;

pub fn run(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    match options {
        Options::Embed { batch, seconds, threads, output } => {
            let duration = Duration::try_from_secs_f64(*seconds).map_err(|e| format!("--seconds {seconds}: {e}"))?;
            if batch.get() > MAX_BATCH {
                return Err(format!("--batch {batch}: expected 1 to {MAX_BATCH}").into());
            }
            let (device, threads) = (shared.device_choice()?, threads.unwrap_or_else(cores));
            let report = match shared.onnx_file_for(output.as_deref())? {
                Some(file) => {
                    let precision = shared.precision.unwrap_or(Precision::F32);
                    let report = bench_file(file, output.as_deref(), precision, device, *batch, threads, duration);
                    report.map_err(|e| format!("{}: {e}", file.display()))?
                }
                None => bench_embed(&shared.carded_model_set()?, shared.precision, device, *batch, threads, duration)?,
            };
            print(&report, shared.json)
        }
        Options::Search { size, dim, queries, batch, index } => {
            let rows = size.checked_add(*queries).and_then(|rows| rows.checked_mul(4 * dim));
            if rows.is_none_or(|bytes| bytes > MAX_BYTES) {
                return Err("--size, --dim and --queries: expected at most 64 GiB of vectors".into());
            }
            print(&bench_search(*size, *dim, *queries, *batch, index)?, shared.json)
        }
        Options::Enrol { references, concurrency, dim, folder } => {
            let measured = async |gallery: Arc<Gallery>| Ok(bench_enrol(&gallery, *references, *concurrency).await?);
            print(&in_a_gallery(folder.as_deref(), *dim, shared, measured)?, shared.json)
        }
        Options::Erase { references, dim, seconds, rounds, folder } => {
            let measured = async |gallery: Arc<Gallery>| {
                bench_enrol(&gallery, *references, ENROLLERS).await?;
                Ok(bench_erasures(&gallery, *seconds, *rounds).await?)
            };
            print(&in_a_gallery(folder.as_deref(), *dim, shared, measured)?, shared.json)
        }
    }
}

/// Callers that fill a gallery.
const ENROLLERS: usize = 512;

/// What is measured in a gallery of its own, in a folder that goes afterwards.
fn in_a_gallery<T>(
    folder: Option<&Path>,
    dim: usize,
    shared: &Shared,
    measure: impl AsyncFnOnce(Arc<Gallery>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let scratch = Scratch::new_in(folder.unwrap_or(&shared.data))?;
    let settings = Config::load(None)?.galleries;
    super::runtime()?.block_on(async {
        let galleries = Galleries::open(scratch.path(), &RootKey::random()?, settings)?;
        let gallery = galleries.get_or_create(&GalleryName::new("bench")?, ModelDigest::new([0; 32]), dim).await?;
        let report = measure(gallery).await;
        galleries.close().await;
        report
    })
}

/// The object, or its fields, one on a line.
fn print(report: &impl Serialize, as_json: bool) -> Result<Outcome, Failure> {
    if as_json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(Outcome::Good);
    }
    for (name, value) in serde_json::to_value(report)?.as_object().into_iter().flatten() {
        match value.as_f64() {
            Some(number) if number.fract() != 0.0 => println!("{name:<20} {number:.4}"),
            _ => println!("{name:<20} {}", value.to_string().trim_matches('"')),
        }
    }
    Ok(Outcome::Good)
}
