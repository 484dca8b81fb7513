//! `vultus-load`: what a server answers, and how long that takes, under a load that does not wait for it.

mod arrivals;
mod bare;
mod batches;
mod clients;
mod codec;
mod cores;
mod drive;
mod flood;
mod ideal;
mod null;
mod options;
mod peak;
mod rate;
mod report;
mod requests;
mod run;
mod table;
mod tally;
mod target;
mod usage;
mod window;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let options::Arguments { command, options, shared } = options::Arguments::parse();
    let ended = match command {
        None => run::run(&options, &shared),
        Some(options::Command::NullServer(serve)) => null::run(&serve, &shared),
    };
    match ended {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            eprintln!("vultus-load: {failure}");
            ExitCode::from(1)
        }
    }
}
