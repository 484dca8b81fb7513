//! Logs, and every metric in one list with its unit. Labels are from lists that end: no label can grow without bound.

mod log;

use std::{
    collections::HashSet,
    sync::{LazyLock, Mutex, PoisonError},
    time::Duration,
};

use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use log::{Log, LogFormat, log_to_stderr};

/// Reviewers that a metric tells apart.
const REVIEWERS: usize = 500;

/// Every metric of the service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Reviewers that have a label.
    reviewers: Mutex<HashSet<(String, String)>>,
    /// Seconds by rpc, from the door to the answer, of what was let in.
    pub request_seconds: HistogramVec,
    /// Calls, and items of EnrolStreams, by rpc and by the gRPC code that they ended with; CANCELLED where the client had gone.
    pub answers_total: IntCounterVec,
    /// Seconds by stage: decode, align, detect_small, detect, landmark, embed, compare, search, commit.
    pub stage_seconds: HistogramVec,
    /// Images in a batch, by role; probes in a search's pass.
    pub batch_images: HistogramVec,
    /// Jobs that wait for the device, by lane.
    pub queue_depth: IntGaugeVec,
    /// Probes that wait for a pass over an index, of all galleries.
    pub search_queue_depth: IntGauge,
    /// Seconds that work waited for the device or for a pass, by lane.
    pub queue_seconds: HistogramVec,
    /// Work that was never begun, by reason (gone, late, full), by what it waited for (pixels, core, device, search), by lane.
    pub dropped_jobs_total: IntCounterVec,
    /// Requests that the door refused, by reason and lane.
    pub refusals_total: IntCounterVec,
    /// Decisions of Verify, by reason.
    pub decisions_total: IntCounterVec,
    /// Outcomes of Identify: no_duplicate, review.
    pub identifications_total: IntCounterVec,
    /// Cases shown and lists of cases, by reviewer and client, and by what was looked at: case, list. See [`Self::looked`].
    pub case_lookups_total: IntCounterVec,
    /// Cases by the verdict that stands now, of all time.
    pub case_verdicts: IntGaugeVec,
    /// Searches with an outcome, and those of them that opened a case, of all time: as the store counts them.
    pub field_searches: IntGauge,
    pub field_cases: IntGauge,
    /// Share of searches that named a person who was not it, as reviewers judge; NaN before the first verdict.
    pub field_false_positive_rate: Gauge,
    /// Jumps of a clock (wall, uptime), by direction: ahead, back.
    pub clock_jumps_total: IntCounterVec,
    /// Requests that ended in an error, by rpc and reason.
    pub failures_total: IntCounterVec,
    /// Images whose quality was refused, by measure.
    pub refused_measures_total: IntCounterVec,
    /// References that were enrolled; an enrolment that was sent again counts once.
    pub enrolments_total: IntCounter,
    /// References that were erased.
    pub erased_references_total: IntCounter,
    /// References in all galleries.
    pub references: IntGauge,
    /// Requests being answered, by lane.
    pub requests_in_flight: IntGaugeVec,
    /// Requests that may be answered at a time, by lane.
    pub requests_limit: IntGaugeVec,
    /// Bytes of requests that are held, and how many may be.
    pub request_bytes: IntGauge,
    pub request_bytes_limit: IntGauge,
    /// Log lines that waited in vain for stderr.
    pub lost_log_lines: IntGauge,
    /// 1 while health says SERVING.
    pub serving: IntGauge,
    /// Canaries, by outcome: good, wrong, not_run, failed, hung.
    pub canaries_total: IntCounterVec,
    pub devices_lost_total: IntCounter,
}

impl Metrics {
    /// The process's metrics.
    pub fn get() -> &'static Self {
        static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::register);
        &METRICS
    }

    /// Notes how long a stage took.
    pub fn stage(&self, stage: &str, took: Duration) {
        self.stage_seconds.with_label_values(&[stage]).observe(took.as_secs_f64());
    }

    /// Counts work that is not done: why, what it waited for, whose it was.
    pub fn dropped(&self, reason: &str, waited_for: &str, lane: &str) {
        self.dropped_jobs_total.with_label_values(&[reason, waited_for, lane]).inc();
    }

    /// Observes a wait that ended in work: for what, and whose.
    pub fn queued(&self, waited_for: &str, lane: &str, waited: Duration) {
        self.queue_seconds.with_label_values(&[waited_for, lane]).observe(waited.as_secs_f64());
    }

    /// Counts a look of a reviewer. Reviewers' names come from clients: the first [`REVIEWERS`] of them have labels, later ones share
    /// `other`.
    pub fn looked(&self, client: &str, reviewer: &str, what: &str) {
        let mut known = self.reviewers.lock().unwrap_or_else(PoisonError::into_inner);
        let label = (client.to_owned(), reviewer.to_owned());
        let has_label = known.contains(&label) || known.len() < REVIEWERS && known.insert(label);
        drop(known);
        let reviewer = if has_label { reviewer } else { "other" };
        self.case_lookups_total.with_label_values(&[client, reviewer, what]).inc();
    }

    /// The text that Prometheus scrapes.
    pub fn exposition(&self) -> Result<String, prometheus::Error> {
        self.lost_log_lines.set(i64::try_from(log::lost_lines()).unwrap_or(i64::MAX));
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn register() -> Self {
        let registry = Registry::new();
        let seconds = prometheus::exponential_buckets(0.000_1, 2.0, 18).unwrap_or_default(); // 0.1 ms to 13 s
        let images = (0..=6).map(|p| f64::from(1 << p)).collect::<Vec<_>>(); // 1 to 64
        let list = List(&registry);
        let metrics = Self {
            request_seconds: list.histograms("request_seconds", "Seconds from receipt to answer.", &["rpc"], &seconds),
            answers_total: list.counters("answers_total", "Answers by gRPC code.", &["rpc", "code"]),
            stage_seconds: list.histograms("stage_seconds", "Seconds in a stage.", &["stage"], &seconds),
            batch_images: list.histograms("batch_images", "Images in a batch.", &["role"], &images),
            queue_depth: list.gauges("queue_depth", "Jobs that wait for the device.", &["lane"]),
            search_queue_depth: list.gauge("search_queue_depth", "Probes that wait for a pass over an index."),
            queue_seconds: list.histograms("queue_seconds", "Seconds of waiting.", &["waited_for", "lane"], &seconds),
            dropped_jobs_total: list.counters(
                "dropped_jobs_total",
                "Work that was never begun.",
                &["reason", "waited_for", "lane"],
            ),
            refusals_total: list.counters("refusals_total", "Requests refused at the door.", &["reason", "lane"]),
            decisions_total: list.counters("decisions_total", "Verify's decisions.", &["decision", "reason"]),
            identifications_total: list.counters("identifications_total", "Identify's outcomes.", &["outcome"]),
            case_lookups_total: list.counters("case_lookups_total", "Looks at cases.", &["client", "reviewer", "what"]),
            case_verdicts: list.gauges("case_verdicts", "Cases by verdict.", &["verdict"]),
            field_searches: list.gauge("field_searches", "Searches with an outcome, of all time."),
            field_cases: list.gauge("field_cases", "Searches that opened a case, of all time."),
            field_false_positive_rate: list.ratio(
                "field_false_positive_rate",
                "Share of searches that reviewers found false; NaN before the first verdict.",
            ),
            clock_jumps_total: list.counters("clock_jumps_total", "Jumps of a clock.", &["clock", "direction"]),
            failures_total: list.counters("failures_total", "Requests that ended in an error.", &["rpc", "reason"]),
            refused_measures_total: list.counters("refused_measures_total", "Refused quality measures.", &["measure"]),
            enrolments_total: list.counter("enrolments_total", "Enrolled references."),
            erased_references_total: list.counter("erased_references_total", "Erased references."),
            references: list.gauge("references", "References in all galleries."),
            requests_in_flight: list.gauges("requests_in_flight", "Requests being answered.", &["lane"]),
            requests_limit: list.gauges("requests_limit", "Requests that may be answered at a time.", &["lane"]),
            request_bytes: list.gauge("request_bytes", "Bytes of requests that are held."),
            request_bytes_limit: list.gauge("request_bytes_limit", "Bytes of requests that may be held."),
            lost_log_lines: list.gauge("lost_log_lines", "Log lines that stderr did not take in time."),
            serving: list.gauge("serving", "1 while health says SERVING."),
            canaries_total: list.counters("canaries_total", "Canaries that ran.", &["outcome"]),
            devices_lost_total: list.counter("devices_lost_total", "Devices that were lost, each for good."),
            registry,
            reviewers: Mutex::default(),
        };
        metrics.make_shared_labels();
        metrics
    }

    /// Labels of what verifications and searches both observe are there from the start: making one locks its metric for all, and a thread
    /// that runs when a core is idle may hold it then.
    fn make_shared_labels(&self) {
        for stage in ["decode", "align", "detect_small", "detect", "landmark", "embed", "compare", "search", "commit"] {
            self.stage_seconds.with_label_values(&[stage]);
        }
        for role in ["detect_small", "detect", "landmark", "embed", "search"] {
            self.batch_images.with_label_values(&[role]);
        }
        for lane in ["verification", "identification", "enrolment"] {
            for waited_for in ["pixels", "core", "device", "search"] {
                self.queue_seconds.with_label_values(&[waited_for, lane]);
                for reason in ["gone", "late", "full"] {
                    self.dropped_jobs_total.with_label_values(&[reason, waited_for, lane]);
                }
            }
        }
    }
}

/// Registers under the prefix `vultus_`.
struct List<'a>(&'a Registry);

/// Registration fails only for a malformed or doubled name: a fault of the list above, which the first test to run would
/// show.
#[expect(clippy::expect_used, reason = "names are constants")]
impl List<'_> {
    fn add<M: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        let metric = made.expect("a well-formed metric");
        self.0.register(Box::new(metric.clone())).expect("a metric registered once");
        metric
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(format!("vultus_{name}"), help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, labels))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(format!("vultus_{name}"), help), labels))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(format!("vultus_{name}"), help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(format!("vultus_{name}"), help), labels))
    }

    fn ratio(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::new(format!("vultus_{name}"), help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(format!("vultus_{name}"), help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviewers_cannot_grow_a_metric_without_end() {
        for number in 0..2 * REVIEWERS {
            Metrics::get().looked("office", &format!("r-{number}"), "case");
        }
        Metrics::get().looked("office", "r-1", "case");
        let text = Metrics::get().exposition().unwrap();
        let labels =
            text.lines().filter(|line| line.starts_with("vultus_case_lookups_total{client=\"office\"")).count();
        assert!(labels <= REVIEWERS + 1, "{labels}");
        assert!(text.contains("{client=\"office\",reviewer=\"r-1\",what=\"case\"} 2"), "{text}");
    }

    #[test]
    fn every_metric_registers_and_shows() {
        let metrics = Metrics::get();
        metrics.stage("decode", Duration::from_millis(3));
        metrics.enrolments_total.inc();
        let text = metrics.exposition().unwrap();
        assert!(text.contains("vultus_stage_seconds_bucket{stage=\"decode\""), "{text}");
        assert!(text.contains("vultus_enrolments_total 1"), "{text}");
    }
}
