//! What a step stores of its values, and who stores it: threads have some pixels or some channels each.

use std::ops::Range;

use super::{
    kernels::{Buffer, Columns, LINE, Lanes},
    layout::{Layout, Pixel, in_lines, pixel},
};
use crate::int8::{Form, How};

/// A representation that a step stores.
#[derive(Debug)]
pub struct Emission {
    pub layout: Layout,
    /// Of codes: for each line of channels.
    scale: Vec<[f32; LINE]>,
    shift: Vec<[f32; LINE]>,
}

impl Emission {
    pub fn new(how: &How, layout: Layout) -> Self {
        let (scale, shift) = match how {
            How::Codes { scale, shift } => (in_lines(scale, 0.0), in_lines(shift, 0.0)),
            How::F16 | How::F32 => (vec![], vec![]),
        };
        Self { layout, scale, shift }
    }
}

#[derive(Debug)]
enum Target<'a> {
    U8(Columns<'a, u8>),
    S8(Columns<'a, u8>),
    /// With the least and the greatest.
    Words(Columns<'a, i16>, [i16; 2]),
    F16(Columns<'a, u16>),
    F32(Columns<'a, f32>),
}

/// A thread's part of a representation.
#[derive(Debug)]
pub struct Out<'a> {
    emission: &'a Emission,
    target: Target<'a>,
    /// The number of the first pixel, and the first channel.
    first: usize,
    channel: usize,
}

macro_rules! split {
    ($target:expr, $of:ident, $at:expr) => {
        match $target {
            Target::U8(columns) => {
                let (a, b) = columns.$of($at);
                (Target::U8(a), Target::U8(b))
            }
            Target::S8(columns) => {
                let (a, b) = columns.$of($at);
                (Target::S8(a), Target::S8(b))
            }
            Target::Words(columns, ends) => {
                let (a, b) = columns.$of($at);
                (Target::Words(a, ends), Target::Words(b, ends))
            }
            Target::F16(columns) => {
                let (a, b) = columns.$of($at);
                (Target::F16(a), Target::F16(b))
            }
            Target::F32(columns) => {
                let (a, b) = columns.$of($at);
                (Target::F32(a), Target::F32(b))
            }
        }
    };
}

impl<'a> Out<'a> {
    /// All pixels and channels. Writes the halo of n images.
    pub fn new(emission: &'a Emission, images: usize, buffer: &'a mut Buffer) -> Self {
        let layout = &emission.layout;
        layout.surround(images, buffer);
        let (elements, pitch) = (layout.elements(images), layout.pitch);
        let target = match layout.form {
            Form::U8 if layout.bytes => Target::U8(Columns::new(&mut buffer.bytes_mut()[..elements], pitch)),
            Form::S8 if layout.bytes => Target::S8(Columns::new(&mut buffer.bytes_mut()[..elements], pitch)),
            Form::U8 | Form::S8 | Form::Pixels => {
                let ends = if layout.form == Form::U8 { [0, 255] } else { [-128, 127] };
                Target::Words(Columns::new(&mut buffer.words_mut()[..elements], pitch), ends)
            }
            Form::F16 => Target::F16(Columns::new(&mut buffer.halves_mut()[..elements], pitch)),
            Form::F32 => Target::F32(Columns::new(&mut buffer.floats_mut()[..elements], pitch)),
        };
        Self { emission, target, first: 0, channel: 0 }
    }

    /// Those before the pixel, and the others.
    fn split_pixels(self, at: Pixel) -> (Self, Self) {
        let (emission, place) = (self.emission, self.emission.layout.place(at));
        let (a, b) = split!(self.target, split_rows, place.saturating_sub(self.first));
        (Self { target: a, ..self }, Self { emission, target: b, first: place, channel: self.channel })
    }

    /// Those before the channel, and the others.
    fn split_channels(self, at: usize) -> (Self, Self) {
        let (a, b) = split!(self.target, split_columns, at.saturating_sub(self.channel));
        (Self { target: a, ..self }, Self { target: b, channel: at, ..self })
    }

    /// Stores the values of some pixels: of the line of channels that begins with `channel`.
    #[inline(always)]
    pub fn store<L: Lanes>(&mut self, values: &[L], pixels: &[Pixel], channel: usize) {
        let Emission { layout, scale, shift } = self.emission;
        let (first, column) = (self.first, channel - self.channel);
        let values = values.iter().copied().zip(pixels.iter().map(|pixel| layout.place(*pixel) - first));
        match &mut self.target {
            Target::F16(columns) => {
                let inverse = L::splat(layout.inverse_unit());
                for (v, row) in values {
                    match columns.row(row)[column..].first_chunk_mut() {
                        Some(line) => v.mul(inverse).store_half(line),
                        None => debug_assert!(false, "halves have whole lines"),
                    }
                }
            }
            Target::F32(columns) => {
                for (v, row) in values {
                    match columns.row(row)[column..].first_chunk_mut() {
                        Some(line) => v.store(line),
                        None => debug_assert!(false, "floats have whole lines"),
                    }
                }
            }
            Target::U8(columns) => {
                let (scale, shift) = (L::load(&scale[channel / LINE]), L::load(&shift[channel / LINE]));
                for (v, row) in values {
                    put(v.fma(scale, shift).to_bytes(), &mut columns.row(row)[column..]);
                }
            }
            Target::S8(columns) => {
                let (scale, shift) = (L::load(&scale[channel / LINE]), L::load(&shift[channel / LINE]));
                for (v, row) in values {
                    put(v.fma(scale, shift).to_offset_bytes(), &mut columns.row(row)[column..]);
                }
            }
            Target::Words(columns, [least, most]) => {
                let (scale, shift) = (L::load(&scale[channel / LINE]), L::load(&shift[channel / LINE]));
                for (v, row) in values {
                    put(v.fma(scale, shift).to_words(*least, *most), &mut columns.row(row)[column..]);
                }
            }
        }
    }
}

/// As many as there is room for.
#[inline(always)]
fn put<T: Copy>(codes: [T; LINE], to: &mut [T]) {
    match to.first_chunk_mut() {
        Some(line) => *line = codes,
        None => to.copy_from_slice(&codes[..to.len()]),
    }
}

/// One thread's part of a step.
#[derive(Debug)]
pub struct Part<'a> {
    /// Counted through all images.
    pub pixels: Range<usize>,
    /// In units of what the step gives.
    pub panels: Range<usize>,
    pub outs: Vec<Out<'a>>,
}

/// Parts of nearly equal size.
pub fn shares(total: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    (0..parts).map(move |i| total * i / parts..total * (i + 1) / parts)
}

/// Cuts the pixels of all images, which `rows` are all of in their order, and the `panels`, of `lanes` channels each,
/// into `columns` of nearly equal size.
pub fn cut<'a>(
    mut outs: Vec<Out<'a>>,
    rows: &[Range<usize>],
    columns: usize,
    panels: usize,
    lanes: usize,
) -> Vec<Part<'a>> {
    let mut parts = Vec::with_capacity(rows.len() * columns);
    for (row, pixels) in rows.iter().enumerate() {
        let mut across;
        (across, outs) = if row + 1 == rows.len() {
            (outs, vec![])
        } else {
            let end = |out: &Out<'_>| pixel(out.emission.layout.shape, pixels.end);
            outs.into_iter()
                .map(|out| {
                    let at = end(&out);
                    out.split_pixels(at)
                })
                .unzip()
        };
        for (column, panels) in shares(panels, columns).enumerate() {
            let (outs, others): (Vec<_>, Vec<_>) = if column + 1 == columns {
                (across, vec![])
            } else {
                across.into_iter().map(|out| out.split_channels(panels.end * lanes)).unzip()
            };
            across = others;
            parts.push(Part { pixels: pixels.clone(), panels, outs });
        }
    }
    parts
}
