//! A dense convolution of codes: kernels/net/convolve.cu.

use vultus_cuda::Error;

use super::{
    Activation,
    hopper::{self, Form, HOPPER_TILES, HopperTile},
    on,
};
use crate::{
    cuda::{
        arguments::{self, Operand, Slide},
        layout::{Constants, LINE, Layout, Place},
        place::{Card, Here, Run},
    },
    int8,
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
pub enum Method {
    /// On any card; blocks that share a tile.
    Tile {
        tile: Tile,
        splits: usize,
    },
    Hopper(HopperTile),
}

impl Method {
    /// As a tuning names it.
    pub fn name(&self) -> String {
        match self {
            Self::Tile { tile, splits } => format!("{}x{}/{splits}", tile.pixels, tile.channels),
            Self::Hopper(HopperTile { pixels, channels, bytes, .. }) => format!("hopper {pixels}x{channels}/{bytes}"),
        }
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
    /// Pixels of an image of the result.
    area: usize,
    /// Elements of a pixel of the operand and of the result.
    pitches: [usize; 2],
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
            signed: x.tensor.form == int8::Form::S8,
            residual: c.residual,
            steps,
            area: out.shape().height * out.shape().width,
            pitches: [x.pitch, out.pitch],
        })
    }

    /// What it is, as far as that matters for its speed: the key of a tuning.
    pub fn key(&self, images: usize) -> String {
        let Slide { height, width, stride, .. } = self.slide;
        let [x, out] = self.pitches;
        let residual = if self.residual { " residual" } else { "" };
        let codes = if self.signed { "s8" } else { "u8" };
        format!("{images} x {} px of {codes}, {height}x{width}/{stride}, {x} -> {out}{residual}", self.area)
    }

    fn tiles(&self, images: usize, [pixels, channels]: [usize; 2]) -> usize {
        (self.area * images).div_ceil(pixels) * self.pitches[1].div_ceil(channels)
    }

    /// All ways to compute it for so many images.
    pub fn methods(&self, images: usize, card: &Card<'_>) -> Vec<Method> {
        let hopper = HOPPER_TILES.iter().filter(|tile| card.hopper && hopper::fits(tile, &self.slide, self.pitches[0]));
        let mut methods: Vec<Method> = hopper.map(|&tile| Method::Hopper(tile)).collect();
        for tile in TILES {
            methods.push(Method::Tile { tile, splits: 1 });
            let splits = self.splits(images, tile, card);
            if splits > 1 {
                methods.push(Method::Tile { tile, splits });
            }
        }
        methods
    }

    /// Blocks that share a tile so that all multiprocessors have work.
    fn splits(&self, images: usize, tile: Tile, card: &Card<'_>) -> usize {
        let wanted = card.multiprocessors.div_ceil(self.tiles(images, [tile.pixels, tile.channels]));
        wanted.min(self.steps / LEAST_STEPS).clamp(1, MAX_SPLITS)
    }

    /// What is taken for so many images: what was measured; else the largest tile of which there are enough for all multiprocessors, and where
    /// there is none the smallest, shared by blocks.
    pub fn choose(&self, images: usize, card: &Card<'_>) -> Method {
        if let Some(name) = card.tuning.get(&self.key(images))
            && let Some(method) = self.methods(images, card).into_iter().find(|method| method.name() == name)
        {
            return method;
        }
        let out = self.pitches[1];
        let enough = |size: [usize; 2]| self.tiles(images, size) >= card.multiprocessors;
        let narrow = |channels: usize| channels < out + LINE;
        let hopper =
            HOPPER_TILES.iter().rev().filter(|tile| card.hopper && hopper::fits(tile, &self.slide, self.pitches[0]));
        let hopper = hopper.filter(|tile| narrow(tile.channels) && tile.channels <= 128);
        if let Some(&tile) = hopper.clone().find(|tile| enough([tile.pixels, tile.channels])) {
            return Method::Hopper(tile);
        }
        let mut fitting = TILES.iter().filter(|tile| narrow(tile.channels));
        if let Some(&tile) = fitting.clone().find(|tile| enough([tile.pixels, tile.channels])) {
            return Method::Tile { tile, splits: 1 };
        }
        let tile = fitting.next_back().copied().unwrap_or(TILES[TILES.len() - 1]);
        Method::Tile { tile, splits: self.splits(images, tile, card) }
    }

    /// Bytes of scratch for so many images: parts of sums; and how many tiles share them.
    pub fn scratch(&self, method: Method, images: usize) -> (usize, usize) {
        match method {
            Method::Tile { tile, splits } if splits > 1 => {
                let tiles = self.tiles(images, [tile.pixels, tile.channels]);
                (tiles * splits * tile.pixels * tile.channels * size_of::<i32>(), tiles)
            }
            Method::Tile { .. } | Method::Hopper(_) => (0, 0),
        }
    }

    pub fn launch(&self, here: &Here<'_>, run: &Run<'_>) -> Result<(), Error> {
        self.launch_by(self.choose(here.images(), &run.card), here, run)
    }

    pub fn launch_by(&self, method: Method, here: &Here<'_>, run: &Run<'_>) -> Result<(), Error> {
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
            splits: 1,
            unused: 0,
        };
        match method {
            Method::Tile { tile, splits } => {
                let grid = [self.tiles(here.images(), [tile.pixels, tile.channels]) as u32, splits as u32];
                let argument = arguments::Convolution { splits: splits as i32, ..argument };
                run.launch(tile.names[usize::from(self.signed)], on(grid, tile.threads, tile.shared()), argument)
            }
            Method::Hopper(tile) => {
                let form = Form { argument: &argument, signed: self.signed, pitches: self.pitches, area: self.area };
                hopper::launch(&tile, &form, here, run)
            }
        }
    }
}
