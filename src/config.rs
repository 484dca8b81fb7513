//! One checked [`Config`] from a TOML file and the command line. All faults are reported together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::Read,
    net::SocketAddr,
    path::Path,
    str::FromStr,
    time::Duration,
};

use limits::RawLimits;
use serde::Deserialize;

use crate::{
    access::{ClientPolicy, Right},
    domain::{ClientId, Fmr, Fnir, Fpir, GalleryName, Purpose, Tail},
    gallery::Settings,
    pipeline::{BatchLimits, DecodeLimits, RatePolicy},
    rpc::Limits,
    telemetry::LogFormat,
};

/// Everything that `vultus serve` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    pub listen: SocketAddr,
    pub metrics_listen: SocketAddr,
    /// Whether weights that are licensed for research alone may serve.
    pub research_only_models: bool,
    /// Whether the contract may be asked for, as grpcurl and ghz do.
    pub reflection: bool,
    pub log_format: LogFormat,
    pub rates: RatePolicy,
    pub alternative_route: String,
    pub clients: BTreeMap<ClientId, ClientPolicy>,
    pub limits: Limits,
    pub decode: DecodeLimits,
    /// Bytes of decoded images held at a time; requests that need more wait.
    pub pixel_bytes: usize,
    pub batch: BatchLimits,
    pub on_loss: OnLoss,
    pub galleries: Settings,
}

/// What a server does once its device is lost, for good as far as the process goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// It ends, with an exit code of its own: whoever supervises it starts it anew.
    #[default]
    Exit,
    /// It goes on on the CPU, once that has passed the self-test.
    Cpu,
}

/// What is wrong, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults(Vec<String>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault(s):", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigFaults {}

/// A configuration file is small; a larger one is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Of decoded images: 42 of the greatest size, thousands of crops.
const PIXEL_BYTES: usize = 512 << 20;

/// Bytes of a message beyond its image: context, receipt, framing.
const AROUND_AN_IMAGE: usize = 64 << 10;

/// The file's words, unchecked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    server: RawServer,
    policy: RawPolicy,
    device: RawDevice,
    limits: RawLimits,
    clients: BTreeMap<String, RawClient>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawServer {
    listen: Option<String>,
    metrics_listen: Option<String>,
    reflection: Option<bool>,
    log_format: Option<LogFormat>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawDevice {
    on_loss: Option<OnLoss>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPolicy {
    max_fmr: Option<f64>,
    max_fpir: Option<f64>,
    max_fnir: Option<f64>,
    extrapolated_thresholds: Option<bool>,
    alternative_route: Option<String>,
    case_retention_days: Option<u64>,
    research_only_models: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawClient {
    rights: Vec<String>,
    purposes: Vec<String>,
    galleries: Vec<String>,
}

impl Config {
    /// Reads a file; without one, everything has its default, and no client may do anything.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigFaults> {
        let Some(path) = path else { return Self::check(RawConfig::default()) };
        let named = |fault: String| ConfigFaults(vec![format!("{}: {fault}", path.display())]);
        let mut text = String::new();
        // Bounded as it is read: what is no regular file has no length to ask for.
        let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
        read.map_err(|e| named(e.to_string()))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(named(format!("expected at most {MAX_FILE_BYTES} bytes, the file has more")));
        }
        Self::parse(&text)
    }

    /// Parses the text of a file.
    pub fn parse(text: &str) -> Result<Self, ConfigFaults> {
        Self::check(toml::from_str(text).map_err(|e| ConfigFaults(vec![e.to_string()]))?)
    }

    fn check(raw: RawConfig) -> Result<Self, ConfigFaults> {
        let mut faults = Faults(Vec::new());
        let decode = DecodeLimits::default();
        let batch = BatchLimits::default();
        let galleries = Settings::default();
        let l = &raw.limits;
        let config = Self {
            listen: faults.address("server.listen", raw.server.listen.as_deref(), "127.0.0.1:7443"),
            metrics_listen: faults.address(
                "server.metrics_listen",
                raw.server.metrics_listen.as_deref(),
                "127.0.0.1:9464",
            ),
            reflection: raw.server.reflection.unwrap_or(false),
            log_format: raw.server.log_format.unwrap_or_default(),
            research_only_models: raw.policy.research_only_models.unwrap_or(false),
            on_loss: raw.device.on_loss.unwrap_or_default(),
            rates: faults.rates(&raw.policy),
            alternative_route: faults.route(raw.policy.alternative_route),
            clients: raw.clients.into_iter().filter_map(|(name, client)| faults.client(&name, &client)).collect(),
            limits: limits::check(&raw.limits, &mut faults),
            decode: DecodeLimits {
                max_bytes: faults.within("limits.image_bytes", l.image_bytes, 1 << 10..=64 << 20, decode.max_bytes),
                max_side: faults.within("limits.image_side_px", l.image_side_px, 64..=16_384, decode.max_side),
                max_pixels: faults.within("limits.image_pixels", l.image_pixels, 4096..=1 << 26, decode.max_pixels),
                ..decode
            },
            pixel_bytes: faults.within("limits.pixel_bytes", l.pixel_bytes, 1 << 20..=1 << 38, PIXEL_BYTES),
            batch: BatchLimits {
                queue_depth: faults.within("limits.queue_depth", l.queue_depth, 1..=1 << 20, batch.queue_depth),
                batch_images: faults.within("limits.batch_images", l.batch_images, 1..=64, batch.batch_images),
                ..batch
            },
            galleries: Settings {
                max_galleries: faults.within(
                    "limits.max_galleries",
                    l.max_galleries,
                    1..=4096,
                    galleries.max_galleries,
                ),
                max_references: faults.within(
                    "limits.max_references",
                    l.max_references,
                    1..=100_000_000,
                    galleries.max_references,
                ),
                max_references_per_subject: faults.within(
                    "limits.max_references_per_subject",
                    l.max_references_per_subject,
                    1..=256,
                    galleries.max_references_per_subject,
                ),
                case_retention: faults
                    .within("policy.case_retention_days", raw.policy.case_retention_days, 1..=3650, 90)
                    .checked_mul(24 * 3600)
                    .map_or(galleries.case_retention, Duration::from_secs),
                ..galleries
            },
        };
        faults.together(&config);
        if faults.0.is_empty() { Ok(config) } else { Err(ConfigFaults(faults.0)) }
    }
}

/// Collects faults and lets the check go on with a default.
struct Faults(Vec<String>);

impl Faults {
    fn within<T: Copy + PartialOrd + fmt::Display>(
        &mut self,
        name: &str,
        value: Option<T>,
        range: std::ops::RangeInclusive<T>,
        default: T,
    ) -> T {
        let value = value.unwrap_or(default);
        if !range.contains(&value) {
            self.0.push(format!("{name}: expected {} to {}, got {value}", range.start(), range.end()));
            return default;
        }
        value
    }

    fn add(&mut self, fault: String) {
        self.0.push(fault);
    }

    /// Settings that are sound alone, and not with each other.
    fn together(&mut self, config: &Config) {
        let message_bytes = config.limits.message_bytes;
        let least = config.decode.max_bytes.saturating_add(AROUND_AN_IMAGE);
        if message_bytes < least {
            self.0.push(format!(
                "limits.message_bytes: expected at least limits.image_bytes and {AROUND_AN_IMAGE} for the rest of a message, \
                 {least} in all, got {message_bytes}"
            ));
        }
    }

    fn millis(&mut self, name: &str, value: Option<u64>, default: Duration) -> Duration {
        Duration::from_millis(self.within(name, value, 1..=600_000, u64::try_from(default.as_millis()).unwrap_or(1)))
    }

    fn address(&mut self, name: &str, value: Option<&str>, default: &str) -> SocketAddr {
        let text = value.unwrap_or(default);
        SocketAddr::from_str(text).unwrap_or_else(|_| {
            self.0.push(format!("{name}: expected an address and port such as {default}, got {text:?}"));
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    fn rates(&mut self, policy: &RawPolicy) -> RatePolicy {
        let mut rate = |name: &str, value: Option<f64>, default: f64| match value.unwrap_or(default) {
            value if value > 0.0 && value <= 1.0 => value,
            value => {
                self.0.push(format!("{name}: expected a rate above 0 and at most 1, got {value}"));
                1.0
            }
        };
        let fmr = rate("policy.max_fmr", policy.max_fmr, 0.01);
        let fpir = rate("policy.max_fpir", policy.max_fpir, 0.05);
        let fnir = rate("policy.max_fnir", policy.max_fnir, 0.2);
        let extrapolated = policy.extrapolated_thresholds.unwrap_or(false);
        RatePolicy {
            max_fmr: Fmr::new(fmr).unwrap_or(Fmr::ONE),
            max_fpir: Fpir::new(fpir).unwrap_or(Fpir::ONE),
            max_fnir: Fnir::new(fnir).unwrap_or(Fnir::ONE),
            tail: if extrapolated { Tail::Extrapolated } else { Tail::Measured },
        }
    }

    fn route(&mut self, text: Option<String>) -> String {
        let text = text.unwrap_or_else(|| "A member of staff checks the identity by another way.".into());
        if text.is_empty() || text.len() > 500 {
            self.0.push(
                "policy.alternative_route: expected 1 to 500 bytes: a customer who is not matched is offered a way"
                    .into(),
            );
        }
        text
    }

    fn client(&mut self, name: &str, raw: &RawClient) -> Option<(ClientId, ClientPolicy)> {
        let mut words = |list: &str, words: &[String], known: String, parse: &mut dyn FnMut(&str) -> bool| {
            for word in words {
                if !parse(word) {
                    self.0.push(format!("clients.{name}.{list}: {word:?} is none; expected {known}"));
                }
            }
        };
        let mut policy =
            ClientPolicy { rights: BTreeSet::new(), purposes: BTreeSet::new(), galleries: BTreeSet::new() };
        words("rights", &raw.rights, Right::ALL.map(Right::as_str).join(", "), &mut |word| {
            Right::parse(word).map(|right| policy.rights.insert(right)).is_some()
        });
        words("purposes", &raw.purposes, Purpose::ALL.map(Purpose::as_str).join(", "), &mut |word| {
            Purpose::parse(word).map(|purpose| policy.purposes.insert(purpose)).is_some()
        });
        words("galleries", &raw.galleries, "1 to 64 characters of a-z 0-9 _ -".into(), &mut |word| {
            GalleryName::new(word).map(|gallery| policy.galleries.insert(gallery)).is_ok()
        });
        if let Some((review, beside)) = policy.conflict() {
            self.0.push(format!(
                "clients.{name}.rights: expected no {} beside {}: who may do both could enrol a stranger's photo and read a name from the \
                 case; give the right to a client of the back office",
                review.as_str(),
                beside.as_str()
            ));
        }
        match ClientId::new(name) {
            Ok(id) => Some((id, policy)),
            Err(error) => {
                self.0.push(format!("clients.{name}: expected {}", error.expected));
                None
            }
        }
    }
}

mod limits;
#[cfg(test)]
mod tests;
