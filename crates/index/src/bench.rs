//! `vultus bench search`: searches of a synthetic gallery of unit vectors in which every probe has a mate.

use std::{num::NonZero, thread, time::Instant};

use super::{IndexError, Neighbour, Spec, check_dimension, exact::squared_distance, keep_best, spec::Measured};

/// Length of the noise that is added to a mate to make a probe, in lengths of the mate.
const NOISE: f32 = 0.6;
/// Probes that are also compared with every row exactly.
const RECALL_PROBES: usize = 64;
/// Candidates asked for per probe.
const CANDIDATES: usize = 10;

/// What [`bench_search`] measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SearchReport {
    pub queries_per_s: f64,
    /// Rows of the gallery times queries, a second.
    pub comparisons_per_s: f64,
    /// Share of (at most 64) probes whose first neighbour is that of an exact search.
    pub recall_at_1: f64,
    /// Seconds to train and fill the index.
    pub build_s: f64,
    pub size: usize,
    pub dim: usize,
    pub queries: usize,
    pub batch: usize,
    pub index: String,
}

/// Builds an index of `size` unit vectors of `dim` values and searches it for `queries` probes, `batch` at a time, from
/// one thread. Takes about `8 * size * dim` bytes of memory.
pub fn bench_search(
    size: usize,
    dim: usize,
    queries: usize,
    batch: usize,
    spec: &Spec,
) -> Result<SearchReport, IndexError> {
    let (size, dim, queries, batch) = (size.max(1), dim.max(1), queries.max(1), batch.max(1));
    let mut noise = Noise(3);
    let mut gallery = vec![0.0; size * dim];
    gallery.chunks_exact_mut(dim).for_each(|row| noise.unit(row));
    let mut probes = vec![0.0; queries * dim];
    for probe in probes.chunks_exact_mut(dim) {
        let mate = (noise.next() % size as u64) as usize * dim;
        noise.unit(probe);
        probe.iter_mut().zip(gallery.get(mate..).unwrap_or_default()).for_each(|(p, m)| *p = NOISE * *p + m);
        normalise(probe);
    }

    let start = Instant::now();
    let index = Measured::build(spec, dim, &gallery)?;
    let build_s = start.elapsed().as_secs_f64();

    let batches = || probes.chunks(batch * dim);
    if let Some(first) = batches().next() {
        index.nearest(dim, first, CANDIDATES)?; // threads start, pages come in
    }
    let start = Instant::now();
    let found: Vec<_> = batches().map(|batch| index.nearest(dim, batch, CANDIDATES)).collect::<Result<_, _>>()?;
    let queries_per_s = queries as f64 / start.elapsed().as_secs_f64();

    let checked: Vec<_> = probes.chunks_exact(dim).take(RECALL_PROBES).collect();
    let truth = exact_nearest(dim, &gallery, &checked)?;
    let right = found.iter().flatten().zip(&truth).filter(|(found, truth)| **found == Some(**truth)).count();
    Ok(SearchReport {
        queries_per_s,
        comparisons_per_s: queries_per_s * size as f64,
        recall_at_1: right as f64 / truth.len() as f64,
        build_s,
        size,
        dim,
        queries,
        batch,
        index: spec.to_string(),
    })
}

/// The nearest row of each probe, on all cores.
fn exact_nearest(dim: usize, gallery: &[f32], probes: &[&[f32]]) -> Result<Vec<i64>, IndexError> {
    probes.iter().try_for_each(|probe| check_dimension(dim, probe))?;
    let nearest = |probe: &[f32]| {
        let mut best = Vec::with_capacity(64);
        for (id, row) in (0..).zip(gallery.chunks_exact(dim)) {
            best.push(Neighbour { id, squared_distance: squared_distance(probe, row) as f32 });
            if best.len() == best.capacity() {
                keep_best(&mut best, 1);
            }
        }
        keep_best(&mut best, 1);
        best.first().map_or(-1, |n| n.id)
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let shares: Vec<_> = probes
            .chunks(probes.len().div_ceil(threads).max(1))
            .map(|share| scope.spawn(move || share.iter().map(|p| nearest(p)).collect::<Vec<_>>()))
            .collect();
        let died = |_| IndexError::Engine("a thread of the exact search died".into());
        Ok(shares.into_iter().map(|s| s.join().map_err(died)).collect::<Result<Vec<_>, _>>()?.concat())
    })
}

/// Reproducible pseudo-random numbers (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A unit vector; each value sums four uniform ones, near enough to Gaussian for directions to spread evenly.
    fn unit(&mut self, row: &mut [f32]) {
        for value in row.iter_mut() {
            let bits = self.next();
            *value = (0..4).map(|part| (bits >> (16 * part) & 0xffff) as f32 - 32_767.5).sum();
        }
        normalise(row);
    }
}

fn normalise(row: &mut [f32]) {
    let length = row.iter().map(|v| v * v).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    row.iter_mut().for_each(|v| *v /= length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_and_exact_find_every_mate() {
        for spec in [Spec::Exact, Spec::Flat, Spec::Factory("Flat".into())] {
            for batch in [1, 32] {
                let report = bench_search(3000, 64, 70, batch, &spec).unwrap();
                assert_eq!(report.recall_at_1, 1.0, "{spec} by {batch}");
                assert!(report.queries_per_s > 0.0 && report.comparisons_per_s == report.queries_per_s * 3000.0);
            }
        }
    }

    #[test]
    fn a_coarse_index_finds_less() {
        let report = bench_search(3000, 64, 64, 32, &"PQ2x4".parse().unwrap()).unwrap();
        assert!(report.recall_at_1 < 0.9, "{report:?}");
    }
}
