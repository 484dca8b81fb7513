//! How tensors lie in memory: image, row, column, channel.
//!
//! Codes have a halo around every image, as wide as the paddings of all who read them, which holds the code 0: so a
//! convolution finds all of its window in place. A code is a byte or a word, as the instruction set wants it; a signed
//! byte is stored plus 128, and a pixel as a word is less 128. What is no code is read by lines of 16 channels and has
//! no halo.

use std::ops::Range;

use super::kernels::{Buffer, LINE};
use crate::{
    cpu::kernels::Level,
    graph::{Edges, Shape},
    int8::{Form, Tensor, number::power_of_two},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub form: Form,
    pub shape: Shape,
    pub halo: Edges,
    /// Elements from pixel to pixel.
    pub pitch: usize,
    /// Codes are bytes, not words.
    pub bytes: bool,
    /// Halves stand for themselves times 2 to this.
    pub exponent: i32,
}

/// A pixel of some image.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pixel {
    pub image: usize,
    pub row: usize,
    pub column: usize,
}

impl Layout {
    /// Bytes after the last pixel that may be read: whole lines and steps are.
    pub const SLACK: usize = 64;

    /// `halo` is of codes and pixels alone.
    pub fn new(level: Level, tensor: Tensor, halo: Edges) -> Self {
        let Tensor { shape, form, exponent } = tensor;
        let (pitch, halo) = match form {
            Form::Pixels => (shape.channels, halo),
            Form::U8 | Form::S8 => (shape.channels.next_multiple_of(level.each()), halo),
            Form::F16 | Form::F32 => (shape.channels.next_multiple_of(LINE), Edges::NONE),
        };
        Self { form, shape, halo, pitch, bytes: level.takes_bytes(), exponent: exponent.into() }
    }

    /// What halves are multiplied by when they are read.
    #[inline(always)]
    pub fn unit(&self) -> f32 {
        power_of_two(self.exponent)
    }

    /// What values are multiplied by before they are stored as halves.
    #[inline(always)]
    pub fn inverse_unit(&self) -> f32 {
        power_of_two(-self.exponent)
    }

    /// Pixels of a row, with the halo.
    pub fn columns(&self) -> usize {
        self.shape.width + self.halo.left + self.halo.right
    }

    /// Rows of an image, with the halo.
    pub fn rows(&self) -> usize {
        self.shape.height + self.halo.top + self.halo.bottom
    }

    /// The pixel's number, counted with the halo.
    #[inline(always)]
    pub fn place(&self, pixel: Pixel) -> usize {
        (pixel.image * self.rows() + pixel.row + self.halo.top) * self.columns() + pixel.column + self.halo.left
    }

    /// Elements of n images.
    pub fn elements(&self, images: usize) -> usize {
        images * self.rows() * self.columns() * self.pitch
    }

    /// Bytes of an element.
    pub fn size(&self) -> usize {
        match self.form {
            Form::Pixels | Form::U8 | Form::S8 if self.bytes => 1,
            Form::Pixels | Form::U8 | Form::S8 | Form::F16 => 2,
            Form::F32 => 4,
        }
    }

    /// What n images need.
    #[cfg(test)]
    pub fn room(&self, images: usize) -> usize {
        self.elements(images) * self.size() + Self::SLACK
    }

    /// What all bytes of a code 0 are: of a pixel it is the middle, which a stem's sums count from.
    pub fn zero(&self) -> u8 {
        match self.form {
            Form::Pixels | Form::S8 if self.bytes => 128,
            _ => 0,
        }
    }

    /// Writes the halo of n images.
    pub fn surround(&self, images: usize, buffer: &mut Buffer) {
        if self.halo == Edges::NONE {
            return;
        }
        let (pitch, zero, Edges { top, left, bottom, right }) = (self.pitch * self.size(), self.zero(), self.halo);
        let columns = self.columns() * pitch;
        for image in buffer.bytes_mut().chunks_exact_mut(self.rows() * columns).take(images) {
            image[..top * columns].fill(zero);
            let (inner, last) = image[top * columns..].split_at_mut(self.shape.height * columns);
            last[..bottom * columns].fill(zero);
            for row in inner.chunks_exact_mut(columns) {
                row[..left * pitch].fill(zero);
                row[columns - right * pitch..].fill(zero);
            }
        }
    }
}

/// The `at`th of the pixels of images of such a shape.
pub fn pixel(shape: Shape, at: usize) -> Pixel {
    let (row, column) = (at / shape.width, at % shape.width);
    Pixel { image: row / shape.height, row: row % shape.height, column }
}

/// As [`pixel`], of a range.
pub fn each_pixel(shape: Shape, range: Range<usize>) -> impl Iterator<Item = Pixel> {
    let mut next = pixel(shape, range.start);
    range.map(move |_| {
        let this = next;
        next.column += 1;
        if next.column == shape.width {
            (next.column, next.row) = (0, next.row + 1);
        }
        if next.row == shape.height {
            (next.row, next.image) = (0, next.image + 1);
        }
        this
    })
}

/// Filled up to whole lines.
pub fn in_lines<T: Copy>(values: &[T], zero: T) -> Vec<[T; LINE]> {
    let line = |values: &[T]| {
        let mut line = [zero; LINE];
        line[..values.len()].copy_from_slice(values);
        line
    };
    values.chunks(LINE).map(line).collect()
}
