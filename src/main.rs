//! Parse, run, say how it ended.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match vultus::cli::run(vultus::cli::Arguments::parse()) {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            eprintln!("vultus: {}", vultus::cli::told(&failure));
            ExitCode::from(1)
        }
    }
}
