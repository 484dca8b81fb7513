//! JPEG 2000: JP2 files and raw code streams (Part 1), grey or colour, 8 bits.
//!
//! The decoder is given the code stream alone, between SOC and EOC: what it allocates follows from headers that were read here.

mod codestream;
mod container;

#[cfg(test)]
mod tests;

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};

use super::{DecodeError, DecodeLimits, Decoded, Format, Orientation};
use codestream::CodeStream;

const TRUNCATED: DecodeError = DecodeError::Truncated { format: Format::Jpeg2000 };
const MALFORMED: DecodeError = DecodeError::Malformed { format: Format::Jpeg2000 };

/// The first box of a JP2 file.
pub(super) const JP2_SIGNATURE: [u8; 12] = [0, 0, 0, 12, b'j', b'P', b' ', b' ', 0x0d, 0x0a, 0x87, 0x0a];
/// SOC and SIZ.
pub(super) const CODE_STREAM_SIGNATURE: [u8; 4] = [0xff, 0x4f, 0xff, 0x51];

/// How the three components of a colour picture are meant. Grey has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colour {
    Rgb,
    /// sYCC; the decoder itself turns chroma of half the size into RGB.
    Ycc,
}

pub(super) fn decode(file: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let Survey { stream, colour } = Survey::of(file, limits)?;
    let settings = DecodeSettings { strict: true, resolve_palette_indices: false, target_resolution: None };
    let image = Image::new(&stream.bytes, &settings).map_err(|_| MALFORMED)?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(|_| MALFORMED)?;
    let pixels = stream.width as usize * stream.height as usize;
    let components = decoded.components();
    if components.len() != stream.components || components.iter().any(|c| c.samples().len() != pixels) {
        return Err(MALFORMED);
    }
    let mut samples = decoded.data_u8();
    drop(context); // the planes, of 4 bytes a sample
    let rgb8 = match stream.components {
        1 => zeroize::Zeroizing::new(samples).iter().flat_map(|v| [*v; 3]).collect(),
        _ => {
            if colour == Colour::Ycc && !stream.subsampled {
                to_rgb(&mut samples);
            }
            samples
        }
    };
    let (width, height) = (stream.width, stream.height);
    Ok(Decoded { width, height, rgb8, orientation: Orientation::UPRIGHT })
}

/// The size that the code stream states, and the container with it.
pub(super) fn stated_size(file: &[u8], limits: &DecodeLimits) -> Result<(u32, u32), DecodeError> {
    Survey::of(file, limits).map(|survey| (survey.stream.width, survey.stream.height))
}

struct Survey<'a> {
    stream: CodeStream<'a>,
    colour: Colour,
}

impl<'a> Survey<'a> {
    fn of(file: &'a [u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        if !file.starts_with(&JP2_SIGNATURE) {
            return Ok(Self { stream: CodeStream::of(file, limits)?, colour: Colour::Rgb });
        }
        let jp2 = container::read(file)?;
        let stream = CodeStream::of(jp2.code_stream, limits)?;
        if (jp2.width, jp2.height) != (stream.width, stream.height) {
            return Err(MALFORMED);
        }
        Ok(Self { stream, colour: jp2.colour })
    }
}

/// sYCC: full range, as JPEG's.
fn to_rgb(samples: &mut [u8]) {
    for pixel in samples.as_chunks_mut::<3>().0 {
        let [y, cb, cr] = pixel.map(f32::from);
        let (cb, cr) = (cb - 128.0, cr - 128.0);
        // A cast saturates.
        *pixel = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|v| v.round() as u8);
    }
}

fn unsupported(found: &'static str) -> DecodeError {
    let expected = "8-bit grey or RGB, without a palette, alpha or parts of Part 2 and Part 15";
    DecodeError::Unsupported { format: Format::Jpeg2000, found, expected }
}
