//! How many images a server's batches have, as its metrics tell.

use std::{collections::BTreeMap, io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Until the metrics are there, and how long they may be.
const PATIENCE: Duration = Duration::from_secs(5);
const MOST_BYTES: u64 = 4 << 20;

/// By network: the images that a server has run so far, and their batches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batches(BTreeMap<String, [f64; 2]>);

impl Batches {
    /// From `host:port`, where a server's metrics are.
    ///
    /// # Errors
    /// When nothing is read in time.
    pub async fn read(address: &str) -> io::Result<Self> {
        let text = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
            let mut text = String::new();
            stream.take(MOST_BYTES).read_to_string(&mut text).await?;
            io::Result::Ok(text)
        };
        Ok(Self::parse(&timeout(PATIENCE, text).await??))
    }

    fn parse(text: &str) -> Self {
        let mut batches = Self::default();
        for (at, kind) in ["sum", "count"].into_iter().enumerate() {
            let name = format!("vultus_batch_images_{kind}{{role=\"");
            for line in text.lines() {
                let said = line.strip_prefix(&name).and_then(|rest| rest.split_once("\"} "));
                if let Some((network, value)) = said.and_then(|(network, value)| Some((network, value.parse().ok()?))) {
                    batches.0.entry(network.to_owned()).or_default()[at] = value;
                }
            }
        }
        batches
    }

    /// What came since `before`, added to this.
    pub fn add(&mut self, before: &Self, after: &Self) {
        for (network, after) in &after.0 {
            let before = before.0.get(network).copied().unwrap_or_default();
            let sums = self.0.entry(network.clone()).or_default();
            sums.iter_mut().zip(after.iter().zip(before)).for_each(|(sum, (after, before))| *sum += after - before);
        }
    }

    /// Images of a batch in the mean, by network; without those that ran none.
    pub fn means(&self) -> BTreeMap<String, f64> {
        let ran = self.0.iter().filter(|(_, [_, batches])| *batches > 0.0);
        ran.map(|(network, [images, batches])| (network.clone(), images / batches)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_between_two_moments() {
        let at = |detect: [u32; 2], embed: [u32; 2]| {
            let line = |role, [images, batches]: [u32; 2]| {
                format!(
                    "vultus_batch_images_bucket{{role=\"{role}\",le=\"1\"}} 9\nvultus_batch_images_sum{{role=\"{role}\"}} {images}\nvultus_batch_images_count{{role=\"{role}\"}} {batches}\n"
                )
            };
            Batches::parse(&(line("detect", detect) + "vultus_serving 1\n" + &line("embed", embed)))
        };
        let mut all = Batches::default();
        all.add(&Batches::default(), &at([10, 10], [0, 0]));
        assert_eq!(all.means(), [("detect".to_owned(), 1.0)].into());
        all.add(&at([10, 10], [4, 1]), &at([20, 20], [16, 5]));
        assert_eq!(all.means(), [("detect".to_owned(), 1.0), ("embed".to_owned(), 3.0)].into());
    }
}
