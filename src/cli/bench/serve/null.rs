//! The server of `--null-model`: all of `vultus serve` but the faces. It verifies nobody, and its data directory is a new one that
//! goes with it: no gallery of anyone's is ever opened.

use crate::{
    cli::{
        Failure, Outcome, Shared,
        scratch::Scratch,
        serve::{self, Signals},
    },
    rpc, telemetry,
};

pub fn run(options: &serve::Options, shared: &Shared) -> Result<Outcome, Failure> {
    options.check()?;
    let config = options.load()?;
    let _log = telemetry::log_to_stderr(config.log_format);
    let home = Scratch::new_in(&std::env::temp_dir())?;
    let own = Shared { data: home.path().into(), models: Some(shared.models_dir()), ..shared.clone() };
    crate::cli::runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let (core, galleries) = serve::core(&config, &own)?;
        let core = core.with_null_model();
        let serving = rpc::bind(core, config.listen, config.metrics_listen, config.reflection).await?;
        signals.serve(serving, &galleries, shared.json).await
    })
}
