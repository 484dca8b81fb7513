//! AMX: 32 pixels times 32 channels in four tiles of sums, two tiles of codes, two of weights; a step is a row of a tile of weights.
//!
//! Nobody has seen it run on a machine: it is taken only where the environment asks for it and [`is_exact`] has held. Tests run the same
//! code on tiles that are plain memory, and so hold all of it but the instructions themselves.

#![allow(unsafe_code)]

use std::ops::Range;

use super::{Footprint, LINE, PANEL, Panel, STEP};
use crate::cpu::kernels::tiles::{Shapes, Tiles};

/// Pixels of a tile of sums, rows of any tile, and registers' bytes in a row over four.
const ROWS: usize = 16;
/// Pixels that are summed together.
pub const TILE: usize = 2 * ROWS;

/// Registers: sums of both halves of the pixels with both lines of channels, codes of both halves, weights of both lines.
const SUMS: [[u8; 2]; 2] = [[0, 1], [2, 3]];
const CODES: [u8; 2] = [4, 5];
const WEIGHTS: [u8; 2] = [6, 7];

/// # Safety
/// The tile unit can be used; the arguments passed the checks of [`Panel::sum`].
pub unsafe fn sum(tiles: &mut impl Tiles, panel: &Panel, x: &[u8], places: &[usize], sums: &mut [i32]) {
    let Footprint { runs, steps } = &panel.footprint;
    let halves = [&places[..places.len().min(ROWS)], &places[places.len().min(ROWS)..]];
    let lines = panel.lanes / LINE;
    // Registers have one shape throughout: the most steps at once of which a run is made.
    let at_once = (1..=ROWS.min(*steps)).rev().find(|count| steps % count == 0).unwrap_or(1);
    let mut shapes = Shapes::new();
    for (half, places) in halves.iter().enumerate().filter(|(_, places)| !places.is_empty()) {
        shapes.set(CODES[half], places.len(), at_once * STEP);
        SUMS[half][..lines].iter().for_each(|register| shapes.set(*register, places.len(), LINE * STEP));
    }
    WEIGHTS[..lines].iter().for_each(|register| shapes.set(*register, at_once, LINE * STEP));
    let both = [!halves[1].is_empty(), lines == 2];
    let row = panel.lanes * STEP;
    let mut copies = [Rows([[0; ROWS * STEP]; ROWS]); 2];
    // SAFETY: all pixels' steps lie in `x`, there are as many rows of weights as steps, and of sums as pixels: the caller checked all of it.
    // Registers are used only where they have a shape.
    unsafe {
        tiles.configure(&shapes);
        let mut weights: *const u8 = panel.weights.as_ptr().cast();
        for run in runs {
            for first in (0..*steps).step_by(at_once) {
                let bytes = run + first * STEP..run + (first + at_once) * STEP;
                tiles.load::<{ WEIGHTS[0] }>(weights, row as isize);
                if both[1] {
                    tiles.load::<{ WEIGHTS[1] }>(weights.add(LINE * STEP), row as isize);
                }
                weights = weights.add(at_once * row);
                let [copy, other] = &mut copies;
                let (from, stride) = rows(x, halves[0], bytes.clone(), copy);
                tiles.load::<{ CODES[0] }>(from, stride);
                tiles.multiply::<{ SUMS[0][0] }, { CODES[0] }, { WEIGHTS[0] }>();
                if both[1] {
                    tiles.multiply::<{ SUMS[0][1] }, { CODES[0] }, { WEIGHTS[1] }>();
                }
                if both[0] {
                    let (from, stride) = rows(x, halves[1], bytes, other);
                    tiles.load::<{ CODES[1] }>(from, stride);
                    tiles.multiply::<{ SUMS[1][0] }, { CODES[1] }, { WEIGHTS[0] }>();
                    if both[1] {
                        tiles.multiply::<{ SUMS[1][1] }, { CODES[1] }, { WEIGHTS[1] }>();
                    }
                }
            }
        }
        let to = sums.as_mut_ptr();
        tiles.store::<{ SUMS[0][0] }>(to, row as isize);
        if both[1] {
            tiles.store::<{ SUMS[0][1] }>(to.add(LINE), row as isize);
        }
        if both[0] {
            let to = to.add(ROWS * panel.lanes);
            tiles.store::<{ SUMS[1][0] }>(to, row as isize);
            if both[1] {
                tiles.store::<{ SUMS[1][1] }>(to.add(LINE), row as isize);
            }
        }
        tiles.release();
    }
}

/// Rows of a tile of codes, copied where pixels do not lie evenly.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Rows([[u8; ROWS * STEP]; ROWS]);

/// Where the `bytes` after each of the places lie, and how far from each other: as they are where one comes after the other, else copied.
fn rows(x: &[u8], places: &[usize], bytes: Range<usize>, copy: &mut Rows) -> (*const u8, isize) {
    let apart = places.get(1).and_then(|second| second.checked_sub(places[0]));
    if let Some(apart) = apart.filter(|apart| places.windows(2).all(|pair| pair[1] == pair[0] + apart)) {
        // The last row ends where the caller's check of `x` said.
        return (x[places[0] + bytes.start..].as_ptr(), apart as isize);
    }
    for (row, place) in copy.0.iter_mut().zip(places) {
        row[..bytes.len()].copy_from_slice(&x[place + bytes.start..place + bytes.end]);
    }
    (copy.0.as_ptr().cast(), (ROWS * STEP) as isize)
}

/// Whether sums of pseudo-random codes and weights are right: for every number of pixels, with runs of every length up to three tiles, of both
/// widths, of pixels that lie evenly, at one place, backwards and anywhere.
///
/// # Safety
/// The tile unit can be used.
pub unsafe fn is_exact(tiles: &mut impl Tiles) -> bool {
    let mut state = 1u32;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let every = (1..=3 * ROWS).flat_map(|steps| [(steps, TILE), (steps, 1 + steps % TILE), (steps, ROWS)]);
    for (case, (steps, pixels)) in every.chain((1..=TILE).map(|pixels| (ROWS, pixels))).enumerate() {
        for (lanes, lie) in [LINE, PANEL].into_iter().flat_map(|lanes| (0..5).map(move |lie| (lanes, lie))) {
            let footprint = Footprint { runs: (0..1 + case % 3).map(|_| draw(64)).collect(), steps };
            let count = footprint.runs.len() * steps;
            let weights: Vec<i16> = (0..count * lanes * STEP).map(|_| draw(255) as i16 - 127).collect();
            let x: Vec<u8> = (0..64 + footprint.reach() + TILE * 64).map(|_| draw(256) as u8).collect();
            let place = |p: usize, drawn: usize| match lie {
                0 => p * 64,
                1 => p * 37,
                2 => 64,
                3 => (TILE - 1 - p) * 64,
                _ => drawn,
            };
            let places: Vec<usize> = (0..pixels).map(|p| place(p, draw(TILE * 64))).collect();
            let panel = Panel::of_bytes(footprint, lanes, &weights);
            let mut sums = vec![0; places.len() * lanes];
            // SAFETY: the caller's promise; `x` reaches as far as the last place and the footprint.
            unsafe { sum(tiles, &panel, &x, &places, &mut sums) };
            if !(0..sums.len()).all(|at| sums[at] == plain(&panel, &weights, &x, places[at / lanes], at % lanes)) {
                return false;
            }
        }
    }
    true
}

fn plain(panel: &Panel, weights: &[i16], x: &[u8], place: usize, channel: usize) -> i32 {
    let Footprint { runs, steps } = &panel.footprint;
    let starts = runs.iter().flat_map(|run| (0..*steps).map(move |step| run + step * STEP));
    let step = |(number, start): (usize, usize)| -> i32 {
        let weights = &weights[(number * panel.lanes + channel) * STEP..][..STEP];
        weights.iter().zip(&x[place + start..]).map(|(w, x)| i32::from(*w) * i32::from(*x)).sum()
    };
    starts.enumerate().map(step).sum()
}
