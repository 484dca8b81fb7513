//! A dense convolution of codes: kernels/net/convolve.cu.

use vultus_cuda::Error;

use super::{Activation, on};
use crate::{
    cuda::{
        arguments::{self, Operand, Slide},
        layout::{Constants, LINE, Layout, Place},
        place::{Here, Run},
    },
    int8::{self, Form},
};

/// Bytes of a row of the window that a block multiplies in one step.
const STEP: usize = 64;

/// A kernel: pixels and channels that a block computes, and what it takes for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Of signless codes, and of those with a sign.
    names: [&'static str; 2],
    pub pixels: usize,
    pub channels: usize,
    threads: u32,
    stages: usize,
}

impl Tile {
    /// Bytes of shared memory: the ring of steps, in whose place the sums come in the end.
    pub const fn shared(&self) -> u32 {
        let ring = self.stages * (self.pixels + self.channels) * STEP;
        let sums = self.pixels * (self.channels + 8) * 4;
        if ring > sums { ring as u32 } else { sums as u32 }
    }

    pub fn names(&self) -> [&'static str; 2] {
        self.names
    }
}

const fn tile(names: [&'static str; 2], [pixels, channels]: [usize; 2], threads: u32, stages: usize) -> Tile {
    Tile { names, pixels, channels, threads, stages }
}

/// All kernels, the largest tile first.
pub const TILES: [Tile; 4] = [
    tile(["convolve_u8_128x128", "convolve_s8_128x128"], [128, 128], 256, 4),
    tile(["convolve_u8_128x64", "convolve_s8_128x64"], [128, 64], 256, 4),
    tile(["convolve_u8_64x64", "convolve_s8_64x64"], [64, 64], 128, 6),
    tile(["convolve_u8_64x32", "convolve_s8_64x32"], [64, 32], 128, 6),
];

/// How a convolution is computed for a number of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub tile: Tile,
    /// Blocks that share a tile.
    pub splits: usize,
}

impl Choice {
    fn tiles(&self, pixels: usize, pitch: usize) -> usize {
        pixels.div_ceil(self.tile.pixels) * pitch.div_ceil(self.tile.channels)
    }

    /// Bytes of the parts of sums.
    fn partial(&self, pixels: usize, pitch: usize) -> usize {
        let of_tile = self.tile.pixels * self.tile.channels * 4;
        if self.splits > 1 { self.tiles(pixels, pitch) * self.splits * of_tile } else { 0 }
    }
}

/// Blocks that share a tile, at most.
const MAX_SPLITS: usize = 16;
/// Steps that a block should have at least, where several share a tile.
const LEAST_STEPS: usize = 4;

#[derive(Debug)]
pub struct Convolve {
    activation: Activation,
    weight: Place,
    scale: Place,
    bias: Place,
    slide: Slide,
    signed: bool,
    residual: bool,
    steps: usize,
    /// Pixels of an image of the result, and elements of each.
    area: usize,
    pitch: usize,
}

impl Convolve {
    /// `None` for what it does not do: groups.
    pub fn new(c: &int8::Convolution, x: Layout, out: Layout, constants: &mut Constants) -> Option<Self> {
        if c.groups != 1 {
            return None;
        }
        let (ins, outs, area) = (x.shape().channels, out.shape().channels, c.window.height * c.window.width);
        let steps = (area * x.pitch).div_ceil(STEP);
        let mut weight = vec![0i8; out.pitch * steps * STEP];
        for (filter, row) in c.weight.chunks_exact(ins * area).zip(weight.chunks_exact_mut(steps * STEP)) {
            for (channel, plane) in filter.chunks_exact(area).enumerate() {
                plane.iter().enumerate().for_each(|(place, &w)| row[place * x.pitch + channel] = w);
            }
        }
        Some(Self {
            activation: Activation::new(&c.activation, outs, constants),
            weight: constants.add_codes(&weight),
            scale: constants.add_channels(&c.scale),
            bias: constants.add_channels(&c.bias),
            slide: Slide::new(c.window, c.padding),
            signed: x.tensor.form == Form::S8,
            residual: c.residual,
            steps,
            area: out.shape().height * out.shape().width,
            pitch: out.pitch,
        })
    }

    /// What is taken for so many images on a card of so many multiprocessors, where nothing was measured: the largest tile of which there are enough for
    /// all of them; the smallest otherwise, shared by blocks.
    pub fn choose(&self, images: usize, multiprocessors: usize) -> Choice {
        let pixels = self.area * images;
        let fits = |tile: &&Tile| tile.channels < self.pitch + LINE || tile.channels == TILES[TILES.len() - 1].channels;
        let alone = |tile: Tile| Choice { tile, splits: 1 };
        let enough = |choice: &Choice| choice.tiles(pixels, self.pitch) >= multiprocessors;
        let mut fitting = TILES.iter().filter(fits).map(|&tile| alone(tile));
        if let Some(choice) = fitting.clone().find(enough) {
            return choice;
        }
        // At least one fits.
        let choice = fitting.next_back().unwrap_or(alone(TILES[0]));
        let wanted = multiprocessors.div_ceil(choice.tiles(pixels, self.pitch));
        Choice { splits: wanted.min(self.steps / LEAST_STEPS).clamp(1, MAX_SPLITS), ..choice }
    }

    /// Bytes of scratch for so many images: parts of sums; and how many tiles there are.
    pub fn scratch(&self, images: usize, multiprocessors: usize) -> (usize, usize) {
        let (choice, pixels) = (self.choose(images, multiprocessors), self.area * images);
        (choice.partial(pixels, self.pitch), choice.tiles(pixels, self.pitch))
    }

    pub fn launch(&self, here: &Here<'_>, run: &Run<'_>) -> Result<(), Error> {
        let choice = self.choose(here.images(), run.multiprocessors);
        let pixels = self.area * here.images();
        let argument = arguments::Convolution {
            result: here.result(),
            x: here.operand(0),
            residual: if self.residual { here.operand(1) } else { Operand::NONE },
            activation: self.activation.argument(here),
            weight: here.constant(self.weight),
            scale: here.constant(self.scale),
            bias: here.constant(self.bias),
            partial: run.partial,
            tickets: run.tickets,
            slide: self.slide,
            steps: self.steps as i32,
            splits: choice.splits as i32,
            unused: 0,
        };
        let grid = [choice.tiles(pixels, self.pitch) as u32, choice.splits as u32];
        let tile = choice.tile;
        run.launch(tile.names[usize::from(self.signed)], on(grid, tile.threads, tile.shared()), argument)
    }
}
