//! A real server process, on free ports, over its own data directory.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tonic::transport::{Channel, Endpoint};
use vultus::rpc::pb::{
    gallery_service_client::GalleryServiceClient, match_service_client::MatchServiceClient,
    review_service_client::ReviewServiceClient,
};

/// A shop and a kiosk, a back office and an auditor that sees no scores, one client without rights.
pub const CONFIG: &str = r#"
[policy]
max_fmr = 0.01
max_fpir = 0.5
max_fnir = 0.5
extrapolated_thresholds = true
alternative_route = "Ask for a second document."
[server]
reflection = true
[clients.shop]
rights = ["verify", "identify", "enrol", "erase", "scores", "admin"]
purposes = ["sim_activation", "sim_replacement", "case_review", "data_subject_request", "operations"]
galleries = ["subscribers", "staff"]
[clients.kiosk]
rights = ["verify", "identify"]
purposes = ["sim_activation", "case_review"]
galleries = ["subscribers"]
[clients.back-office]
rights = ["review", "scores"]
purposes = ["case_review"]
galleries = ["subscribers", "staff"]
[clients.auditor]
rights = ["review"]
purposes = ["case_review"]
galleries = ["subscribers"]
[clients.nobody]
"#;

pub struct Server {
    child: Child,
    pub address: String,
    pub metrics: String,
    log: PathBuf,
}

/// A program of the workspace, built beside the tests.
pub fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let built = tests.ancestors().nth(2).unwrap().join(name);
    assert!(built.exists(), "{} is not built: run `cargo build --release --workspace`", built.display());
    built
}

/// The repository, from whichever of its crates the tests are.
pub fn root() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.filter(|folder| folder.join("Cargo.lock").exists()).last().unwrap().into()
}

/// The fetched model. `make model` puts it there.
pub fn models() -> PathBuf {
    let root = root();
    let models = std::env::var_os("VULTUS_MODELS").map_or_else(|| root.join("data/models"), PathBuf::from);
    assert!(models.join("default/model.toml").exists(), "{} holds no model: run `make model`", models.display());
    models
}

impl Server {
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, CONFIG)
    }

    pub fn start_with(data: &Path, config: &str) -> Self {
        Self::start_as("vultus", &["serve"], data, config)
    }

    /// A program, and the subcommand of it that serves.
    pub fn start_as(name: &str, command: &[&str], data: &Path, config: &str) -> Self {
        let path = data.join("config.toml");
        fs::write(&path, config).unwrap();
        let log = data.join("server.log");
        let mut child = Command::new(program(name))
            .args(command)
            .args(["--insecure", "--json", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .args(["--data".as_ref(), data.as_os_str(), "--models".as_ref(), models().as_os_str()])
            .args(["--config".as_ref(), path.as_os_str()])
            .stdout(Stdio::piped())
            .stderr(fs::File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line)
            .unwrap_or_else(|e| panic!("{e}: {line:?}\n{}", fs::read_to_string(&log).unwrap_or_default()));
        let text = |key: &str| said[key].as_str().unwrap().to_owned();
        Self { child, address: text("listening"), metrics: text("metrics"), log }
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.timeout(Duration::from_secs(120)).connect().await.unwrap()
    }

    pub async fn matching(&self) -> MatchServiceClient<Channel> {
        MatchServiceClient::new(self.channel().await)
    }

    pub async fn gallery(&self) -> GalleryServiceClient<Channel> {
        GalleryServiceClient::new(self.channel().await)
    }

    pub async fn review(&self) -> ReviewServiceClient<Channel> {
        ReviewServiceClient::new(self.channel().await)
    }

    /// All that the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// What Prometheus would scrape.
    pub fn scrape(&self) -> String {
        use std::io::Write;
        let address = self.metrics.trim_start_matches("http://").trim_end_matches("/metrics");
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// As `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As Kubernetes does; returns how the process ended.
    pub fn terminate(self) -> ExitStatus {
        self.tell_to_stop();
        self.end()
    }

    /// Ends it, and reads all that it wrote.
    pub fn log_at_the_end(self) -> String {
        let log = self.log.clone();
        assert!(self.terminate().success());
        fs::read_to_string(log).unwrap()
    }

    pub fn tell_to_stop(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for it.
    pub fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ended already, where the test ended it
        let _ = self.child.wait();
    }
}
