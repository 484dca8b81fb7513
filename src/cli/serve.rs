//! `vultus serve`: open, serve, drain, say how it ended.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, Outcome, Shared, licence};
use crate::{
    access::Access,
    audit::Log,
    config::Config,
    domain::{Calibration, SearchRates},
    gallery::Galleries,
    model::Card,
    pipeline::{Pipeline, RatePolicy},
    rpc::{self, Core, Ended, Identities, Serving, TakenAtItsWord},
    telemetry,
};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// The configuration, TOML. Without one no client may do anything.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Serves plaintext, and takes a client's word for its name. Needed until there is mutual TLS; binds loopback alone.
    #[arg(long)]
    insecure: bool,
    /// Address and port for gRPC, over the configuration's; port 0 takes a free one.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Address and port for metrics, over the configuration's; port 0 takes a free one.
    #[arg(long)]
    metrics_listen: Option<SocketAddr>,
}

pub fn run(options: &Options, shared: &Shared) -> Result<Outcome, Failure> {
    let identities = options.identities()?;
    let config = options.load()?;
    let _log = telemetry::log_to_stderr(config.log_format);
    raise_file_limit(config.limits.connections);
    super::runtime()?.block_on(async {
        let signals = Signals::listen()?;
        let (serving, galleries) = open(&config, shared, identities).await?;
        signals.serve(serving, &galleries, shared.json).await
    })
}

/// Files that a server has open besides connections, at most: stores, logs, the metrics' port.
const OTHER_FILES: u64 = 256;

/// Takes as many file handles as the system gives; says so where they are too few for the connections that are allowed.
fn raise_file_limit(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let wanted = connections as u64 + OTHER_FILES;
    // `None` is no limit.
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < wanted) {
        tracing::warn!(files, wanted, "fewer files may be open than limits.connections asks for");
    }
}

impl Options {
    /// Who decides who is at the other end of a connection: with `--insecure` each request's header does.
    ///
    /// # Errors
    /// Where it was not said that there is no TLS.
    pub fn identities(&self) -> Result<Arc<dyn Identities>, Failure> {
        if !self.insecure {
            return Err(
                "there is no mutual TLS yet: expected --insecure, which serves plaintext on loopback alone".into()
            );
        }
        Ok(Arc::new(TakenAtItsWord))
    }

    /// The configuration, with what the command line says over it.
    pub fn load(&self) -> Result<Config, Failure> {
        let mut config = Config::load(self.config.as_deref())?;
        config.listen = self.listen.unwrap_or(config.listen);
        config.metrics_listen = self.metrics_listen.unwrap_or(config.metrics_listen);
        Ok(config)
    }
}

/// What tells a server to stop; listened to before it is opened, which takes a while.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// When the system does not take the handlers.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Says where the server is, and serves until a signal; a second one ends it at once.
    pub async fn serve(self, serving: Serving, galleries: &Galleries, json: bool) -> Result<Outcome, Failure> {
        let Self { mut terminate, mut interrupt } = self;
        announce(&serving, json)?;

        let (told, stop) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::info!("told to stop; answering what is in flight");
            let _ = told.send(()); // the server may have ended by itself
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::warn!("told to stop again; stopping at once");
            std::thread::sleep(LAST_LINES);
            #[expect(clippy::disallowed_methods, reason = "at once means without unwinding what still works")]
            std::process::exit(SECOND_SIGNAL);
        });
        let ended = serving
            .until(async {
                let _ = stop.await; // an error means that nobody can tell any more: stop as well
            })
            .await?;
        galleries.close().await;
        match ended {
            Ended::Drained => tracing::info!("stopped; every request was answered"),
            Ended::BrokenOff => tracing::warn!("stopped; the grace was over before every request was answered"),
            Ended::DeviceLost => {
                tracing::error!("stopped: the device is lost, and comes back with a new process alone")
            }
        }
        Ok(match ended {
            Ended::Drained => Outcome::Good,
            Ended::BrokenOff => Outcome::Negative,
            Ended::DeviceLost => Outcome::DeviceLost,
        })
    }
}

/// For the log's thread to write what waits: nothing unwinds to it.
const LAST_LINES: Duration = Duration::from_millis(50);

/// Exit code after a second signal: nothing was lost that was acknowledged.
const SECOND_SIGNAL: i32 = 130;

/// Opens everything and binds the ports.
pub async fn open(
    config: &Config,
    shared: &Shared,
    identities: Arc<dyn Identities>,
) -> Result<(Serving, Arc<Galleries>), Failure> {
    let (core, galleries) = core(pipeline(config, shared)?, config, shared)?;
    let serving = rpc::bind(core, identities, config.listen, config.metrics_listen, config.reflection).await?;
    Ok((serving, galleries))
}

/// The pipeline of a server, able to test itself.
///
/// # Errors
/// When the model does not open or may not serve, or the policy cannot be kept with it.
pub fn pipeline(config: &Config, shared: &Shared) -> Result<Pipeline, Failure> {
    let models = shared.model_set()?;
    licence::check(&models, config.research_only_models, "policy.research_only_models = true in the configuration")?;
    let Card { name, version, precision, .. } = models.card();
    tracing::info!(model = %name, %version, precision = precision.as_str(), "model opened");
    let pipeline = shared.tested(&models, &shared.root_key()?, config)?;
    check_policy(pipeline.calibration(), config)?;
    Ok(pipeline)
}

/// Opens everything else that a server answers from.
///
/// # Errors
/// When the galleries do not open.
pub fn core(pipeline: Pipeline, config: &Config, shared: &Shared) -> Result<(Core, Arc<Galleries>), Failure> {
    let root = shared.root_key()?;
    let galleries = shared.galleries(&root, config, Some(pipeline.renamed_model()))?;
    for gallery in galleries.list() {
        let same_model = gallery.model() == pipeline.model();
        let references = gallery.describe().references;
        tracing::info!(gallery = %gallery.name(), references, same_model, "gallery opened");
    }
    let access = Access::new(config.clients.clone(), Arc::clone(&galleries));
    let core = Core::new(access, pipeline, Arc::new(Log), config.alternative_route.clone(), config.limits.clone())?;
    Ok((core, galleries))
}

/// A policy that no request could be decided by is refused now, not at the first request.
fn check_policy(calibration: &Arc<Calibration>, config: &Config) -> Result<(), Failure> {
    let RatePolicy { max_fmr, max_fpir, max_fnir, tail } = config.rates;
    let point = calibration.at_fmr(max_fmr, tail).map_err(|e| format!("policy.max_fmr: {e}"))?;
    let expected_fnmr = point.fnmr.unwrap_or(f64::NAN);
    tracing::info!(max_fmr = max_fmr.value(), threshold = point.threshold.value(), expected_fnmr, "verification");
    let rates = SearchRates { calibration: Arc::clone(calibration), max_fpir, max_fnir, tail };
    let (max_fpir, max_fnir) = (max_fpir.value(), max_fnir.value());
    if let Some(refused_from) = refused_from(&rates, config.galleries.max_references as u64) {
        tracing::warn!(
            refused_from,
            max_fpir,
            max_fnir,
            "searches of `refused_from` references or more will be refused: the model's card has no threshold that keeps both rates there"
        );
    } else {
        tracing::info!(max_fpir, max_fnir, "identification");
    }
    Ok(())
}

/// The fewest references in which no search is answered, where a gallery may grow so far.
fn refused_from(rates: &SearchRates, max_references: u64) -> Option<u64> {
    rates.greatest_size().unwrap_or(0).checked_add(1).filter(|refused| *refused <= max_references)
}

/// Says on stdout where the server listens, for people or, as one line of JSON, for scripts.
fn announce(serving: &Serving, json: bool) -> Result<(), Failure> {
    let (address, metrics) = (serving.address()?, serving.metrics_address()?);
    let metrics = format!("http://{metrics}/metrics");
    if json {
        println!("{}", serde_json::json!({ "listening": address.to_string(), "metrics": metrics }));
    } else {
        println!("gRPC on {address} (plaintext, loopback alone), metrics on {metrics}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CalibrationPoint, Fmr, Fnir, Fpir, Score, Tail, Threshold};

    #[test]
    fn the_log_names_the_first_size_that_is_refused() {
        let point = |fmr, threshold, fnmr| CalibrationPoint {
            fmr: Fmr::new(fmr).unwrap(),
            threshold: Threshold::new(Score::new(threshold).unwrap()),
            trials: 700,
            fnmr: Some(fnmr),
        };
        // 1 - (1 - 0.004)^26 is below 0.1, and with 27 references above it; the stricter point misses too many.
        let table = Calibration::new(vec![point(0.004, 0.7, 0.1), point(1e-6, 0.9, 0.3)]).unwrap();
        let (max_fpir, max_fnir) = (Fpir::new(0.1).unwrap(), Fnir::new(0.2).unwrap());
        let rates = SearchRates { calibration: Arc::new(table), max_fpir, max_fnir, tail: Tail::Measured };
        let refused = refused_from(&rates, 1000).unwrap();
        assert!(rates.at(refused - 1).is_ok() && rates.at(refused).is_err());
        assert_eq!(refused, 27);
        assert_eq!((refused_from(&rates, 27), refused_from(&rates, 26)), (Some(27), None));
        let lax = SearchRates { max_fpir: Fpir::ONE, ..rates };
        assert_eq!(refused_from(&lax, u64::MAX), None);
    }

    #[test]
    fn a_policy_beyond_the_calibration_is_refused_at_the_start() {
        let point = CalibrationPoint {
            fmr: Fmr::new(0.01).unwrap(),
            threshold: Threshold::new(Score::new(0.7).unwrap()),
            trials: 700,
            fnmr: Some(0.1),
        };
        let table = Arc::new(Calibration::new(vec![point]).unwrap());
        let check =
            |max_fmr: &str| check_policy(&table, &Config::parse(&format!("[policy]\nmax_fmr = {max_fmr}")).unwrap());
        check("0.01").unwrap();
        let refused = check("0.0099").unwrap_err().to_string();
        assert!(refused.contains("policy.max_fmr") && refused.contains("1e-2"), "{refused}");
    }
}
