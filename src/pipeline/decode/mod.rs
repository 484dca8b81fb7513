//! Stage: bytes to upright RGB pixels, within limits that are checked before anything is allocated.
//!
//! Each format is surveyed first (its header, and for JPEG, WebP and JPEG 2000 the chain of its segments): what is too large, cut off,
//! animated or of an unsupported kind is refused before a decoder sees it. Decoders then run in their strict mode.
//! Transparent pixels are laid over white. Colour profiles are not applied: sRGB is presumed.

mod dg2;
mod jpeg;
mod jpeg2000;
mod orientation;
mod other;
mod png;
mod webp;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::fmt;

use vultus_engine::image::{Pixels, PixelsError};

use orientation::Orientation;

/// What a caller gave.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A JPEG, PNG, WebP or JPEG 2000 file.
    Encoded(&'a [u8]),
    /// The content of an ID chip's DG2, with a JPEG or JPEG 2000 portrait in it.
    Chip(&'a [u8]),
    /// `height * width * 3` bytes, row by row from the top.
    Rgb8 { rgb8: &'a [u8], width: u32, height: u32 },
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoded(bytes) => write!(f, "Encoded({} bytes)", bytes.len()),
            Self::Chip(bytes) => write!(f, "Chip({} bytes)", bytes.len()),
            Self::Rgb8 { width, height, .. } => write!(f, "Rgb8({width}x{height})"),
        }
    }
}

/// What decoding may cost. At the defaults no image takes more than 64 MiB or, on one core of a server, 250 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes of an encoded image.
    pub max_bytes: usize,
    /// The least width and height, pixels.
    pub min_side: u32,
    /// The greatest width and height, pixels.
    pub max_side: u32,
    /// Width times height.
    pub max_pixels: u64,
    /// Scans of a JPEG: each one of a progressive file visits every block again, for next to no bytes. Encoders in use write
    /// 10 or fewer.
    pub max_scans: u32,
    /// Bytes that a PNG's metadata may unpack to.
    pub max_metadata_bytes: usize,
    /// Samples of a JPEG 2000 times their bit planes, and six for the rest: a decoder may have to visit each three times, however few
    /// the bytes. It holds 12 bytes a sample meanwhile. Lossy or lossless, a colour picture of 640 x 850 stays below.
    pub max_sample_planes: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            max_bytes: 2 << 20,
            min_side: 16,
            max_side: 4096,
            max_pixels: 4 << 20,
            max_scans: 32,
            max_metadata_bytes: 1 << 20,
            max_sample_planes: 28 << 20,
        }
    }
}

impl DecodeLimits {
    fn check_size(&self, width: u32, height: u32) -> Result<(), DecodeError> {
        let (least, most) = (self.min_side, self.max_side);
        if [width, height].iter().any(|side| !(least..=most).contains(side)) {
            return Err(DecodeError::Side { width, height, least, most });
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(DecodeError::Area { width, height, most: self.max_pixels });
        }
        Ok(())
    }
}

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Jpeg,
    Png,
    WebP,
    Jpeg2000,
    /// The record of an ID chip around a picture.
    Dg2,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Jpeg2000 => "JPEG 2000",
            Self::Dg2 => "DG2",
        })
    }
}

/// Why there are no pixels. Messages hold sizes and names alone, never a byte of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the image is empty; expected {expected}")]
    Empty { expected: &'static str },
    #[error("the image has {bytes} bytes; at most {most} are accepted")]
    Bytes { bytes: usize, most: usize },
    #[error("the bytes are no JPEG, PNG, WebP or JPEG 2000 file")]
    Format,
    /// With its article.
    #[error("the image is {name} file; expected JPEG, PNG, WebP or JPEG 2000")]
    Other { name: &'static str },
    #[error("the image is {width}x{height} pixels; each side must be {least} to {most}")]
    Side { width: u32, height: u32, least: u32, most: u32 },
    #[error("the image is {width}x{height} pixels; at most {most} pixels in all are accepted")]
    Area { width: u32, height: u32, most: u64 },
    #[error("the JPEG has more than {most} scans")]
    Scans { most: u32 },
    #[error("scans of the JPEG file are missing; expected every bit of every coefficient of each component")]
    ScansMissing,
    #[error("the JPEG 2000 file has more than {most} {what}")]
    Parts { what: &'static str, most: u64 },
    #[error("the {format} file holds {found}; expected {expected}")]
    Unsupported { format: Format, found: &'static str, expected: &'static str },
    #[error("the {format} file ends too early")]
    Truncated { format: Format },
    #[error("the {format} file is damaged")]
    Malformed { format: Format },
    #[error("a raw image of {width}x{height} has {expected} bytes, got {got}")]
    RawLength { width: u32, height: u32, expected: u64, got: u64 },
}

impl DecodeError {
    /// A stable word for it, for error details and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "image_empty",
            Self::Bytes { .. } => "image_bytes",
            Self::Format => "image_format",
            Self::Other { .. } => "image_unsupported",
            Self::Side { .. } => "image_side",
            Self::Area { .. } => "image_area",
            Self::Scans { .. } => "image_scans",
            Self::ScansMissing => "image_truncated",
            Self::Parts { .. } => "image_parts",
            Self::Unsupported { .. } => "image_unsupported",
            Self::Truncated { .. } => "image_truncated",
            Self::Malformed { .. } => "image_malformed",
            Self::RawLength { .. } => "image_raw_length",
        }
    }
}

/// Decodes, lays over white, and turns upright (EXIF orientation; a raw image is upright already).
///
/// # Errors
/// [`DecodeError`] for anything that is not one whole still image within `limits`.
pub fn decode(source: Source<'_>, limits: &DecodeLimits) -> Result<Pixels, DecodeError> {
    match source {
        Source::Encoded(_) | Source::Chip(_) => {
            let decoded = decode_file(source, limits)?;
            let (width, height, rgb8) = decoded.orientation.upright(decoded.width, decoded.height, decoded.rgb8);
            pixels(width, height, rgb8)
        }
        Source::Rgb8 { rgb8, width, height } => {
            check(source, limits)?;
            pixels(width, height, rgb8.to_vec())
        }
    }
}

/// As stored in the file: `rgb8` is `height * width * 3` bytes, not yet upright.
struct Decoded {
    width: u32,
    height: u32,
    rgb8: Vec<u8>,
    orientation: Orientation,
}

fn decode_file(source: Source<'_>, limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let (file, format) = picture(source, limits)?;
    match format {
        Format::Jpeg => jpeg::decode(file, limits),
        Format::Png => png::decode(file, limits),
        Format::WebP => webp::decode(file, limits),
        Format::Jpeg2000 => jpeg2000::decode(file, limits),
        Format::Dg2 => Err(DecodeError::Format), // no picture is one
    }
}

/// The file with the picture, and its format by its first bytes.
fn picture<'a>(source: Source<'a>, limits: &DecodeLimits) -> Result<(&'a [u8], Format), DecodeError> {
    let (Source::Encoded(file) | Source::Chip(file) | Source::Rgb8 { rgb8: file, .. }) = source;
    if file.is_empty() {
        let expected = match source {
            Source::Chip(_) => "the content of EF.DG2 of an ID's chip, with the portrait",
            Source::Encoded(_) | Source::Rgb8 { .. } => "a JPEG, PNG, WebP or JPEG 2000 file",
        };
        return Err(DecodeError::Empty { expected });
    }
    if file.len() > limits.max_bytes {
        return Err(DecodeError::Bytes { bytes: file.len(), most: limits.max_bytes });
    }
    match source {
        Source::Encoded(_) => Ok((file, format(file).ok_or_else(|| other::refusal(file))?)),
        Source::Chip(_) => {
            let portrait = dg2::portrait(file)?;
            match format(portrait) {
                Some(format @ (Format::Jpeg | Format::Jpeg2000)) => Ok((portrait, format)),
                _ => Err(dg2::unsupported("a portrait that is neither JPEG nor JPEG 2000")),
            }
        }
        Source::Rgb8 { .. } => Err(DecodeError::Format), // pixels already
    }
}

fn format(file: &[u8]) -> Option<Format> {
    match file {
        [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Format::WebP),
        _ if file.starts_with(&jpeg2000::JP2_SIGNATURE) => Some(Format::Jpeg2000),
        _ if file.starts_with(&jpeg2000::CODE_STREAM_SIGNATURE) => Some(Format::Jpeg2000),
        _ => None,
    }
}

/// What headers alone tell, in microseconds: the picture's size as it is stored. What is refused here needs no work on pixels.
///
/// # Errors
/// [`DecodeError`], of those that [`decode`] gives.
pub fn check(source: Source<'_>, limits: &DecodeLimits) -> Result<(u32, u32), DecodeError> {
    if let Source::Rgb8 { rgb8, width, height } = source {
        limits.check_size(width, height)?;
        let (expected, got) = (u64::from(width) * u64::from(height) * 3, rgb8.len() as u64);
        return if got == expected {
            Ok((width, height))
        } else {
            Err(DecodeError::RawLength { width, height, expected, got })
        };
    }
    let (file, format) = picture(source, limits)?;
    match format {
        Format::Jpeg => jpeg::stated_size(file, limits),
        Format::Png => png::stated_size(file, limits),
        Format::WebP => webp::stated_size(file, limits),
        Format::Jpeg2000 => jpeg2000::stated_size(file, limits),
        Format::Dg2 => Err(DecodeError::Format),
    }
}

/// Bytes of the pixels that [`decode`] may give, at most: by the image's headers; by the limits where those say nothing.
pub fn most_pixel_bytes(source: Source<'_>, limits: &DecodeLimits) -> u64 {
    if let Source::Rgb8 { rgb8, .. } = source {
        return rgb8.len() as u64;
    }
    let stated = check(source, limits);
    let pixels = stated.map_or(limits.max_pixels, |(width, height)| u64::from(width) * u64::from(height));
    pixels.saturating_mul(3)
}

fn pixels(width: u32, height: u32, rgb8: Vec<u8>) -> Result<Pixels, DecodeError> {
    let got = rgb8.len() as u64;
    Pixels::new(width, height, rgb8).map_err(|error| match error {
        PixelsError::Empty => DecodeError::Empty { expected: "pixels" },
        PixelsError::Length { expected, .. } => DecodeError::RawLength { width, height, expected, got },
    })
}

/// Lays pixels with alpha over white, in place: `N` channels (1 grey, 2 grey and alpha, 3 RGB, 4 RGBA) become RGB.
fn lay_over_white<const N: usize>(samples: &mut [u8], rgb: impl Fn([u8; N]) -> [u8; 3]) -> usize {
    debug_assert!(N >= 3, "in place only towards fewer channels");
    let count = samples.len() / N;
    for i in 0..count {
        if let Some(pixel) = samples.get(i * N..).and_then(|s| s.first_chunk::<N>()).copied()
            && let Some(out) = samples.get_mut(i * 3..i * 3 + 3)
        {
            out.copy_from_slice(&rgb(pixel));
        }
    }
    count * 3
}

/// One channel over white.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}
