//! What is loaded: a server of its own process, so that its share of the machine can be told from the generator's, or one that
//! runs somewhere already.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{batches::Batches, clients, cores::ServerCores, usage::Snapshot};
use vultus::cli::{Failure, Shared, scratch::Scratch};

/// The gallery of a server that is started here.
pub const GALLERY: &str = "bench";

/// How long a server may take until it serves, and how long to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where requests go, and whose time is measured.
#[derive(Debug)]
pub struct Target {
    pub address: String,
    /// The process that answers, where it is known.
    pid: Option<u32>,
    /// `host:port`, of one that was started here.
    metrics: Option<String>,
    /// Ends with this.
    _own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    child: Child,
    /// Its data and its log; goes after it.
    _home: Scratch,
}

/// Verifying clients, and those of a flood. Thresholds as the demonstration has them for verification: people who look alike to the
/// default model are told apart. For searches they let a gallery be
/// large, whatever they miss.
fn config(counters: usize) -> String {
    let known = |name: String, rights: &str| {
        format!("[clients.{name}]\nrights = [{rights}]\npurposes = [\"sim_activation\"]\ngalleries = [\"{GALLERY}\"]\n")
    };
    let verify = (0..counters).map(|connection| known(clients::counter(connection), r#""verify", "enrol", "scores""#));
    let identify = (0..clients::OF_FLOOD).map(|connection| known(clients::flooder(connection), r#""identify""#));
    let policy = "[policy]\nmax_fmr = 0.001\nmax_fpir = 0.5\nmax_fnir = 1.0\nextrapolated_thresholds = true\n";
    policy.to_owned() + &verify.chain(identify).collect::<String>()
}

impl Target {
    /// One that runs already.
    pub fn running(address: String, pid: Option<u32>) -> Self {
        Self { address, pid, metrics: None, _own: None }
    }

    /// Starts `program` as a server over `home`, which goes afterwards; `command` is what makes it one.
    pub async fn start(
        program: &Path,
        command: &str,
        home: Scratch,
        clients: usize,
        cores: &ServerCores,
        shared: &Shared,
    ) -> Result<Self, Failure> {
        let (file, log) = (home.path().join("config.toml"), home.path().join("server.log"));
        fs::write(&file, config(clients))?;
        let mut server = Command::new(program);
        server
            .arg(command)
            .args(["--insecure", "--json", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .args(["--model", &shared.model, "--device", &shared.device])
            .args(shared.precision.iter().flat_map(|precision| ["--precision", precision.as_str()]))
            .args(["--data".as_ref(), home.path().as_os_str(), "--models".as_ref(), shared.models_dir().as_os_str()])
            .args(["--config".as_ref(), file.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?);
        let mut child = cores.run(|| server.spawn())?.map_err(|e| format!("starting {}: {e}", program.display()))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.as_mut() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let mut own = Own { child, _home: home };
        let said: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let Some(address) = said.as_ref().and_then(|said| said["listening"].as_str()) else {
            own.end();
            return Err(format!("the server did not start:\n{}", fs::read_to_string(&log).unwrap_or_default()).into());
        };
        let metrics = said.as_ref().and_then(|said| said["metrics"].as_str());
        let metrics = metrics.map(|url| url.trim_start_matches("http://").trim_end_matches("/metrics").to_owned());
        let target = Self { address: address.into(), pid: Some(own.child.id()), metrics, _own: Some(own) };
        target.wait_until_serving().await?;
        Ok(target)
    }

    pub async fn connect(&self) -> Result<Channel, Failure> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?;
        Ok(endpoint.connect().await.map_err(|e| format!("connecting to {}: {e}", self.address))?)
    }

    /// Its self-test would take part in the first figures.
    async fn wait_until_serving(&self) -> Result<(), Failure> {
        let mut health = HealthClient::new(self.connect().await?);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let answer = health.check(HealthCheckRequest { service: String::new() }).await?.into_inner();
            if answer.status() == ServingStatus::Serving {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!("the server does not serve after {} s", PATIENCE.as_secs()).into())
    }

    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// What it has run so far; nothing where its metrics are not known.
    pub async fn batches(&self) -> Result<Batches, Failure> {
        match &self.metrics {
            Some(address) => Ok(Batches::read(address).await.map_err(|e| format!("metrics of {address}: {e}"))?),
            None => Ok(Batches::default()),
        }
    }

    /// What it and everyone else have used so far.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self.pid)
    }
}

impl Own {
    fn end(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM); // it may have ended
        }
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while std::time::Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill(); // as above
        let _ = self.child.wait();
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vultus::config::Config;

    #[test]
    fn the_servers_configuration_is_one() {
        assert_eq!(Config::parse(&config(3)).unwrap().clients.len(), 7);
    }
}
