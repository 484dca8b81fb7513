//! The server of `--null-model`: all of `vultus serve` but the faces. Its data directory is a new one that goes with it: no gallery of
//! anyone's is ever opened.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use vultus::{
    cli::{
        Failure, Outcome, Shared, runtime,
        scratch::Scratch,
        serve::{self, Signals},
    },
    domain::{ModelDigest, Template, Turn},
    pipeline::{DeviceError, Extract, ExtractError, Extracting, Extraction, FaceInput, Timings},
    rpc, telemetry,
};

pub fn run(options: &serve::Options, shared: &Shared) -> Result<Outcome, Failure> {
    let identities = options.identities()?;
    let config = options.load()?;
    let _log = telemetry::log_to_stderr(config.log_format);
    let home = Scratch::new_in(&std::env::temp_dir())?;
    let own = Shared { data: home.path().into(), models: Some(shared.models_dir()), ..shared.clone() };
    runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let pipeline = serve::pipeline(&config, &own)?;
        let made = Noise { model: pipeline.model(), dimension: pipeline.dimension(), drawn: AtomicU64::new(1) };
        let (core, galleries) = serve::core(pipeline.extracting_with(Arc::new(made)), &config, &own)?;
        let serving = rpc::bind(core, identities, config.listen, config.metrics_listen, config.reflection).await?;
        signals.serve(serving, &galleries, shared.json).await
    })
}

/// Makes a template of every image without a look at it: noise, so that no two are of one person.
#[derive(Debug)]
struct Noise {
    model: ModelDigest,
    dimension: usize,
    drawn: AtomicU64,
}

impl Noise {
    /// 1 or -1 in each place, by a generator that is seeded anew for each template (splitmix64).
    fn template(&self) -> Result<Template, ExtractError> {
        let mut state = self.drawn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        let words: Vec<u64> = (0..self.dimension.div_ceil(64)).map(|_| next()).collect();
        let sign = |place: usize| if words[place / 64] >> (place % 64) & 1 == 1 { 1.0 } else { -1.0 };
        let values = (0..self.dimension).map(sign).collect();
        Template::new(self.model, values).map_err(|e| DeviceError::Failed(e.to_string()).into())
    }
}

impl Extract for Noise {
    fn extract<'a>(&'a self, face: FaceInput, _: &'a Turn) -> Extracting<'a> {
        drop(face);
        let made = self.template().map(|template| Extraction { outcome: Ok(template), timings: Timings::default() });
        Box::pin(std::future::ready(made))
    }
}

#[cfg(test)]
mod tests {
    use vultus::domain::compare;

    use super::*;

    #[test]
    fn no_two_templates_are_alike() {
        let noise = Noise { model: ModelDigest::new([1; 32]), dimension: 128, drawn: AtomicU64::new(1) };
        let made: Vec<Template> = (0..100).map(|_| noise.template().unwrap()).collect();
        for (number, one) in made.iter().enumerate() {
            assert!(made[..number].iter().all(|other| compare(one, other).unwrap().value() < -50.0));
        }
    }
}
