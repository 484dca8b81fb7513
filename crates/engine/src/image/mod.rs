//! Pixels and places in them. Nothing here can be printed or stored; all of it is wiped when dropped.

mod raster;
mod scale;

use std::fmt;

use zeroize::Zeroize;

pub use raster::{Region, Similarity};

/// A place in an image: pixels from the top left corner, x to the right, y down.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    pub x: f32,
    pub y: f32,
}

/// Left, top, width, height in pixels; may reach beyond the image.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rect {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

/// Why bytes are not an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PixelsError {
    #[error("width and height must be at least 1")]
    Empty,
    #[error("expected width * height * 3 = {expected} bytes, got {got}")]
    Length { expected: u64, got: u64 },
}

/// An upright RGB image: `height * width * 3` bytes, row by row from the top.
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels {
    width: u32,
    height: u32,
    rgb8: Vec<u8>,
}

impl Pixels {
    pub fn new(width: u32, height: u32, rgb8: Vec<u8>) -> Result<Self, PixelsError> {
        if width == 0 || height == 0 {
            return Err(PixelsError::Empty);
        }
        let expected = u64::from(width) * u64::from(height) * 3;
        if rgb8.len() as u64 != expected {
            return Err(PixelsError::Length { expected, got: rgb8.len() as u64 });
        }
        Ok(Self { width, height, rgb8 })
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    pub fn rgb8(&self) -> &[u8] {
        &self.rgb8
    }
}

impl Drop for Pixels {
    fn drop(&mut self) {
        // What a decoder left behind the pixels, say samples with alpha.
        self.rgb8.spare_capacity_mut().zeroize();
        // In words: the loop over bytes took a fiftieth of a server's time.
        let (before, words, after) = bytemuck::pod_align_to_mut::<u8, u64>(&mut self.rgb8);
        before.zeroize();
        words.zeroize();
        after.zeroize();
    }
}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pixels({}x{})", self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All channels alike.
    pub(super) fn grey(width: u32, height: u32, value: impl Fn(u32, u32) -> u8) -> Pixels {
        let value = &value;
        let rgb8 = (0..height).flat_map(|y| (0..width).flat_map(move |x| [value(x, y); 3])).collect();
        Pixels { width, height, rgb8 }
    }

    /// One channel of each pixel.
    pub(super) fn shown(pixels: &Pixels) -> Vec<u8> {
        pixels.rgb8.chunks(3).map(|p| p[0]).collect()
    }

    #[test]
    fn pixels_hold_what_they_say() {
        assert!(Pixels::new(2, 2, vec![0; 12]).is_ok());
        assert!(Pixels::new(2, 2, vec![0; 11]).is_err());
        assert!(Pixels::new(0, 2, vec![]).is_err());
        assert!(Pixels::new(u32::MAX, u32::MAX, vec![]).is_err());
    }

    #[test]
    fn debug_shows_no_pixels() {
        assert_eq!(format!("{:?}", Pixels::new(1, 1, vec![201, 202, 203]).unwrap()), "Pixels(1x1)");
    }
}
