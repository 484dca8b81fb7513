//! Mutated files: each must end in pixels or in a refusal, soon. `VULTUS_FUZZ_CASES` asks for more, `VULTUS_FUZZ_SEED` repeats a run.

use std::{
    env,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    tests::{chips, corpus},
    *,
};

const CASES: u64 = 5_000;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn mutate(file: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(6) {
        if file.is_empty() {
            return;
        }
        // Half of the changes fall into the first bytes, where headers are.
        let reach = if random.below(2) == 0 { file.len().min(64) } else { file.len() };
        let at = random.below(reach);
        match random.below(8) {
            0 => file[at] ^= 1 << random.below(8),
            1 => file[at] = random.next() as u8,
            2 => file[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6)],
            3 => file.truncate(at),
            4 => drop(file.drain(at..(at + random.below(32)).min(file.len()))),
            5 => {
                let from = random.below(other.len());
                let piece = other[from..(from + random.below(64)).min(other.len())].to_vec();
                file.splice(at..at, piece);
            }
            6 => {
                let piece = file[at..(at + random.below(256)).min(file.len())].to_vec();
                file.splice(at..at, piece);
            }
            _ => {
                let end = (at + 4).min(file.len());
                let value = (random.next() as u32 >> random.below(32)).to_be_bytes();
                file[at..end].copy_from_slice(&value[..end - at]);
            }
        }
    }
}

/// Checksums would refuse nearly every mutated PNG before its decoder works: mend them.
fn mend_png(file: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = file.get(at..).and_then(|s| s.first_chunk()).map(|s| u32::from_be_bytes(*s) as usize) {
        let Some(sum_at) = at.checked_add(length).and_then(|e| e.checked_add(8)).filter(|s| s + 4 <= file.len()) else {
            return;
        };
        let mut crc = flate2::Crc::new();
        crc.update(&file[at + 4..sum_at]);
        file[sum_at..sum_at + 4].copy_from_slice(&crc.sum().to_be_bytes());
        at = sum_at + 4;
    }
}

/// A tile-part of another length than it says ends a JPEG 2000 before its decoder works: let it say its own, and EOC follow.
fn mend_code_stream(file: &mut Vec<u8>) {
    let Some(sot) = file.windows(4).position(|w| w == [0xff, 0x90, 0, 10]) else { return };
    let length = (file.len() - sot) as u32;
    let Some(stated) = file.get_mut(sot + 6..sot + 10) else { return };
    stated.copy_from_slice(&length.to_be_bytes());
    file.extend([0xff, 0xd9]);
}

#[test]
fn mutated_files_end_in_pixels_or_a_refusal() {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let seed = number("VULTUS_FUZZ_SEED").unwrap_or_else(clock);
    let cases = number("VULTUS_FUZZ_CASES").unwrap_or(CASES);
    println!("VULTUS_FUZZ_SEED={seed} VULTUS_FUZZ_CASES={cases}");
    let (corpus, limits) = ([corpus(), chips()].concat(), DecodeLimits::default());
    let (mut accepted, mut longest) = (0, Duration::ZERO);
    for case in 0..cases {
        let mut random = Random(seed.wrapping_add(case.wrapping_mul(0x5851_f42d_4c95_7f2d)));
        let (kind, file) = &corpus[random.below(corpus.len())];
        let (_, other) = &corpus[random.below(corpus.len())];
        let mut file = file.clone();
        mutate(&mut file, other, &mut random);
        if kind.ends_with("png") && random.below(4) > 0 {
            mend_png(&mut file);
        }
        if kind.ends_with("j2k") && random.below(2) == 0 {
            mend_code_stream(&mut file);
        }
        let source = if kind.starts_with("dg2") { Source::Chip(&file) } else { Source::Encoded(&file) };
        let began = Instant::now();
        let result = decode(source, &limits);
        longest = longest.max(began.elapsed());
        if let Ok(image) = result {
            accepted += 1;
            let area = u64::from(image.width()) * u64::from(image.height());
            assert!(area <= limits.max_pixels, "case {case}: {image:?}");
            let stated = most_pixel_bytes(source, &limits);
            assert!(area * 3 <= stated, "case {case}: {image:?} in room for {stated} bytes");
        }
    }
    println!("{accepted} accepted, the longest took {longest:?}");
    // A wide margin over the 250 ms of one quiet core: this is no benchmark, and machines that test are busy.
    assert!(longest < Duration::from_secs(5), "a {longest:?} image");
}
