//! WebP: lossy or lossless, with or without alpha; one picture.

use std::io::Cursor;

use image_webp::WebPDecoder;

use super::{DecodeError, DecodeLimits, Decoded, Format, Orientation, lay_over_white, over_white};

const TRUNCATED: DecodeError = DecodeError::Truncated { format: Format::WebP };
const MALFORMED: DecodeError = DecodeError::Malformed { format: Format::WebP };

pub(super) fn decode(file: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let survey = Survey::of(file, limits)?;
    let mut decoder = WebPDecoder::new(Cursor::new(survey.image)).map_err(|_| MALFORMED)?;
    // 4 bytes a pixel at most: the size was checked above.
    let mut samples = vec![0; decoder.output_buffer_size().ok_or(MALFORMED)?];
    decoder.read_image(&mut samples).map_err(|_| MALFORMED)?;
    if decoder.has_alpha() {
        let over = |[r, g, b, a]: [u8; 4]| [r, g, b].map(|v| over_white(v, a));
        let length = lay_over_white(&mut samples, over);
        samples.truncate(length);
    }
    Ok(Decoded { width: survey.width, height: survey.height, rgb8: samples, orientation: survey.orientation })
}

/// The size that all chunks agree on.
pub(super) fn stated_size(file: &[u8], limits: &DecodeLimits) -> Result<(u32, u32), DecodeError> {
    Survey::of(file, limits).map(|survey| (survey.width, survey.height))
}

/// What the chain of RIFF chunks says. The canvas and the bitstream each state a size, and the decoder allocates for the
/// bitstream's before it compares the two: so all of them are read here.
struct Survey<'a> {
    width: u32,
    height: u32,
    orientation: Orientation,
    /// The RIFF container, without what follows it.
    image: &'a [u8],
}

impl<'a> Survey<'a> {
    const RIFF_HEADER: usize = 12;

    fn of(file: &'a [u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let riff_size = file.get(4..).and_then(|s| s.first_chunk()).map(|s| u32::from_le_bytes(*s)).ok_or(TRUNCATED)?;
        let end = usize::try_from(riff_size).ok().and_then(|s| s.checked_add(8)).ok_or(TRUNCATED)?;
        let image = file.get(..end).ok_or(TRUNCATED)?;

        let (mut size, mut orientation, mut pictures) = (None, Orientation::UPRIGHT, 0);
        let mut rest = image.get(Self::RIFF_HEADER..).ok_or(TRUNCATED)?;
        while !rest.is_empty() {
            let (name, payload, after) = chunk(rest)?;
            let stated = match &name {
                b"VP8X" => Some(canvas_size(payload)?),
                b"VP8 " => Some(lossy_size(payload)?),
                b"VP8L" => Some(lossless_size(payload)?),
                b"ANIM" | b"ANMF" => return Err(ANIMATED),
                b"EXIF" => {
                    // Some writers keep JPEG's prefix.
                    orientation = Orientation::from_tiff(payload.strip_prefix(b"Exif\0\0").unwrap_or(payload));
                    None
                }
                _ => None,
            };
            if let Some((width, height)) = stated {
                limits.check_size(width, height)?;
                if size.is_some_and(|before| before != (width, height)) {
                    return Err(MALFORMED);
                }
                size = Some((width, height));
                pictures += u32::from(&name != b"VP8X");
            }
            rest = after;
        }
        let (width, height) = size.filter(|_| pictures == 1).ok_or(MALFORMED)?;
        Ok(Self { width, height, orientation, image })
    }
}

const ANIMATED: DecodeError =
    DecodeError::Unsupported { format: Format::WebP, found: "an animation", expected: "one picture" };

/// Name, payload, and what follows.
type Chunk<'a> = ([u8; 4], &'a [u8], &'a [u8]);

/// The chunk at the start of `bytes`.
fn chunk(bytes: &[u8]) -> Result<Chunk<'_>, DecodeError> {
    let (name, rest) = bytes.split_first_chunk::<4>().ok_or(TRUNCATED)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(TRUNCATED)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| TRUNCATED)?;
    let payload = rest.get(..length).ok_or(TRUNCATED)?;
    // Chunks are padded to even length; writers forget it at the end of the file.
    let after = rest.get(length + length % 2..).unwrap_or_default();
    Ok((*name, payload, after))
}

/// VP8X: a byte of flags, 3 reserved, then width - 1 and height - 1 in 24 bits each.
fn canvas_size(payload: &[u8]) -> Result<(u32, u32), DecodeError> {
    const ANIMATION_FLAG: u8 = 0x02;
    let [flags, _, _, _, w0, w1, w2, h0, h1, h2, ..] = *payload else { return Err(MALFORMED) };
    if flags & ANIMATION_FLAG != 0 {
        return Err(ANIMATED);
    }
    Ok((u32::from_le_bytes([w0, w1, w2, 0]) + 1, u32::from_le_bytes([h0, h1, h2, 0]) + 1))
}

/// VP8: 3 bytes of frame tag, the start code, then width and height in 14 bits each (2 more scale: viewers' business).
fn lossy_size(payload: &[u8]) -> Result<(u32, u32), DecodeError> {
    let [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] = *payload else { return Err(MALFORMED) };
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    Ok((side(w0, w1), side(h0, h1)))
}

/// VP8L: a signature byte, then width - 1 and height - 1 in 14 bits each.
fn lossless_size(payload: &[u8]) -> Result<(u32, u32), DecodeError> {
    let [0x2f, b0, b1, b2, b3, ..] = *payload else { return Err(MALFORMED) };
    let bits = u32::from_le_bytes([b0, b1, b2, b3]);
    Ok(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
}
