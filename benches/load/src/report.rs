//! All figures of a run, for people and for scripts.

use serde::Serialize;

use crate::{
    bare::Bare,
    peak::Peak,
    table::{self, Row},
};

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub machine_cores: usize,
    pub server_may_use_cores: usize,
    /// Whether the generator has cores of its own.
    pub apart: bool,
    pub null_model: bool,
    pub seconds: f64,
    pub seed: u64,
    pub connections: usize,
    /// Different requests, and how many of them match.
    pub requests: usize,
    pub mated: usize,
    /// The middle one's.
    pub message_bytes: usize,
    pub peak: Option<Peak>,
    pub bare: Option<Bare>,
    pub rows: Vec<Row>,
}

impl Report {
    /// Whether every request was sent as it should be, and none failed or was answered otherwise than before the load.
    pub fn is_sound(&self) -> bool {
        let rows = self.rows.iter().all(|row| !row.off && row.failed == 0 && row.changed == 0);
        rows && self.peak.as_ref().is_none_or(|peak| peak.failed == 0 && peak.changed == 0)
    }

    pub fn lines(&self) -> Vec<String> {
        let Self { machine_cores, connections, requests, mated, message_bytes, seconds, seed, .. } = self;
        let whose = if self.apart {
            format!("the server has {} of them alone, the generator the others", self.server_may_use_cores)
        } else {
            "server and generator share them".into()
        };
        let mut lines = vec![
            format!("{machine_cores} cores; {whose}"),
            format!(
                "{requests} different verifications ({mated} match), {message_bytes} bytes in the middle, {connections} connections"
            ),
        ];
        if self.null_model {
            lines.push("the null model: no face is looked at, every answer is NON_MATCH".into());
        }
        lines.extend(self.peak.as_ref().map(peak));
        lines.extend(self.bare.as_ref().into_iter().flat_map(bare));
        lines.push(format!(
            "windows of {seconds} s, Poisson arrivals, seed {seed}; ms from the moment a request was due:"
        ));
        lines.extend(table::lines(&self.rows));
        for row in &self.rows {
            if let Some(ratio) = row.p99_9_over_p50() {
                let ideal = row
                    .ideal_p99_9_over_p50
                    .map(|ideal| format!("; a perfect server's, for these arrivals: {ideal:.2}"));
                lines.push(format!("{:>9}  p99.9 is {ratio:.2} times p50{}", row.name, ideal.unwrap_or_default()));
            }
            if let Some(flood) = &row.flood {
                lines.push(format!(
                    "{:>9}  beside {} callers that identify: {:.0} searches/s answered, {:.0} refused/s, {} failed",
                    row.name, flood.callers, flood.searched_per_s, flood.refused_per_s, flood.failed
                ));
            }
        }
        lines
    }
}

fn peak(peak: &Peak) -> String {
    let mut line =
        format!("peak {:.1} answers/s with {} callers; {}", peak.answers_per_s, peak.callers, peak.used.text());
    if let Some(answers) = peak.answers_per_core_s {
        line += &format!("; {answers:.1} answers for each core-second of the server");
    }
    line
}

fn bare(bare: &Bare) -> Vec<String> {
    let alone: Vec<String> =
        bare.bare_by_network.iter().map(|(network, rate)| format!("{network} {rate:.1}")).collect();
    let mut lines = vec![
        format!(
            "bare networks {:.1} faces/s (alone: {}), the saturated server {:.1}; of the bare loop, round by round, {:.3}",
            bare.bare_faces_per_s,
            alone.join(", "),
            bare.server_faces_per_s,
            bare.ratio
        ),
        format!("  medians of {} rounds in turn; at the server's, {}", bare.bare_rounds.len(), bare.used.text()),
    ];
    let batches = &bare.images_in_a_batch;
    if !batches.is_empty() {
        let means: Vec<String> = batches.iter().map(|(network, images)| format!("{network} {images:.1}")).collect();
        lines.push(format!("  images in one of the server's batches: {}", means.join(", ")));
    }
    lines
}
