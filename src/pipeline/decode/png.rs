//! PNG: every colour type and depth, interlaced or not; one picture.

use std::io::Cursor;

use ::png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};
use zeroize::Zeroizing;

use super::{DecodeError, DecodeLimits, Decoded, Format, Orientation, lay_over_white, over_white};

const MALFORMED: DecodeError = DecodeError::Malformed { format: Format::Png };

pub(super) fn decode(file: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: limits.max_metadata_bytes });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);

    let header = decoder.read_header_info().map_err(refusal)?;
    let (width, height) = header.size();
    limits.check_size(width, height)?;

    let mut reader = decoder.read_info().map_err(refusal)?;
    if reader.info().is_animated() {
        return Err(DecodeError::Unsupported { format: Format::Png, found: "an animation", expected: "one picture" });
    }
    // png 0.18.1 presumes whole entries, and panics otherwise (image-rs/image-png#694).
    if reader.info().palette.as_ref().is_some_and(|palette| palette.len() % 3 != 0) {
        return Err(MALFORMED);
    }
    let (colour, depth) = reader.output_color_type();
    if depth != BitDepth::Eight {
        return Err(MALFORMED);
    }
    // 4 bytes a pixel at most: the size was checked above.
    let mut samples = vec![0; reader.output_buffer_size().ok_or(MALFORMED)?];
    reader.next_frame(&mut samples).map_err(refusal)?;
    // Through IEND: a file that lost its tail lost something.
    reader.finish().map_err(refusal)?;

    let orientation = reader.info().exif_metadata.as_deref().map_or(Orientation::UPRIGHT, Orientation::from_tiff);
    Ok(Decoded { width, height, rgb8: to_rgb(colour, samples)?, orientation })
}

/// The size in the first chunk, IHDR.
pub(super) fn stated_size(file: &[u8], limits: &DecodeLimits) -> Result<(u32, u32), DecodeError> {
    let [_, _, _, _, b'I', b'H', b'D', b'R', w3, w2, w1, w0, h3, h2, h1, h0, ..] = *file.get(8..).unwrap_or_default()
    else {
        return Err(MALFORMED);
    };
    let (width, height) = (u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0]));
    limits.check_size(width, height)?;
    Ok((width, height))
}

fn to_rgb(colour: ColorType, mut samples: Vec<u8>) -> Result<Vec<u8>, DecodeError> {
    match colour {
        ColorType::Rgb => Ok(samples),
        ColorType::Rgba => {
            let over = |[r, g, b, a]: [u8; 4]| [r, g, b].map(|v| over_white(v, a));
            let length = lay_over_white(&mut samples, over);
            samples.truncate(length);
            Ok(samples)
        }
        ColorType::Grayscale | ColorType::GrayscaleAlpha => {
            let samples = Zeroizing::new(samples);
            Ok(match colour {
                ColorType::Grayscale => samples.iter().flat_map(|v| [*v; 3]).collect(),
                _ => samples.chunks_exact(2).flat_map(|p| [over_white(p[0], p[1]); 3]).collect(),
            })
        }
        ColorType::Indexed => Err(MALFORMED), // EXPAND leaves none
    }
}

/// The decoder's own message may quote the file.
fn refusal(error: DecodingError) -> DecodeError {
    match error {
        DecodingError::IoError(_) => DecodeError::Truncated { format: Format::Png },
        DecodingError::Format(_) | DecodingError::Parameter(_) | DecodingError::LimitsExceeded => MALFORMED,
    }
}
