//! JPEG: baseline and progressive, grey or YCbCr or RGB, 8 bits.
//!
//! Refused by name: sequential pictures whose colours lie in scans of their own, where some are subsampled. zune-jpeg 0.5.15 puts their blocks
//! in the wrong places and says nothing: encode any picture with `jpeg_encoder`'s `set_optimized_huffman_tables(true)`, which writes such
//! scans, and `SamplingFactor::R_4_2_0`; decode; compare with the same without the tables (a mean difference of 80 grey levels).

use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use super::{DecodeError, DecodeLimits, Decoded, Format, Orientation};

mod tables;
#[cfg(test)]
mod tests;

const TRUNCATED: DecodeError = DecodeError::Truncated { format: Format::Jpeg };
const MALFORMED: DecodeError = DecodeError::Malformed { format: Format::Jpeg };

pub(super) fn decode(file: &[u8], limits: &DecodeLimits) -> Result<Decoded, DecodeError> {
    let survey = Survey::of(file, limits)?;
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(limits.max_side as usize)
        .set_max_height(limits.max_side as usize)
        .jpeg_set_max_scans(limits.max_scans as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let image = survey.completed();
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(image.as_slice()), options);
    // The decoder's own message may quote bytes of the file.
    let rgb8 = decoder.decode().map_err(|_| MALFORMED)?;
    Ok(Decoded { width: survey.width, height: survey.height, rgb8, orientation: survey.orientation })
}

/// The frame's size, without a look at what follows it.
pub(super) fn stated_size(file: &[u8], limits: &DecodeLimits) -> Result<(u32, u32), DecodeError> {
    let mut at = 2; // after SOI
    loop {
        let marker = marker_at(file, &mut at)?;
        match marker {
            0x01 | 0xd0..=0xd7 => continue,
            0x00 | 0xd8..=0xda => return Err(MALFORMED),
            _ => {}
        }
        let segment = segment_at(file, &mut at)?;
        if matches!(marker, 0xc0..=0xc2) {
            return frame_size(segment, limits);
        }
    }
}

/// What the chain of segments says, from SOI to EOI.
struct Survey<'a> {
    width: u32,
    height: u32,
    orientation: Orientation,
    /// From SOI through EOI; phones append further pictures after it.
    image: &'a [u8],
    /// There are no Huffman tables before the first scan of a sequential picture: a frame of Motion JPEG.
    wants_tables: bool,
}

impl<'a> Survey<'a> {
    fn of(file: &'a [u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let (mut frame, mut orientation, mut scans, mut has_tables) = (None, None, 0, false);
        let mut at = 2; // after SOI
        loop {
            let marker = marker_at(file, &mut at)?;
            match marker {
                0xd9 => break,
                0x01 | 0xd0..=0xd7 => continue, // TEM, RSTn: bare markers
                0x00 | 0xd8 => return Err(MALFORMED),
                _ => {}
            }
            let segment = segment_at(file, &mut at)?;
            match marker {
                // A second frame header would escape the checks of the first.
                0xc0..=0xc2 if frame.is_some() => return Err(MALFORMED),
                0xc0..=0xc2 => frame = Some(Frame::of(marker, segment, limits)?),
                0xc4 => has_tables |= scans == 0,
                0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    return Err(unsupported("a lossless, hierarchical or arithmetic-coded picture"));
                }
                0xda => {
                    scans += 1;
                    if scans > limits.max_scans {
                        return Err(DecodeError::Scans { most: limits.max_scans });
                    }
                    let components = *segment.first().ok_or(MALFORMED)?;
                    if frame.as_ref().is_some_and(|frame| frame.is_parted_by(components)) {
                        return Err(unsupported("subsampled colours in scans of their own"));
                    }
                    skip_entropy_coded(file, &mut at)?;
                }
                0xe1 if orientation.is_none() => {
                    orientation = segment.strip_prefix(b"Exif\0\0").map(Orientation::from_tiff);
                }
                _ => {}
            }
        }
        let Frame { width, height, sequential, .. } = frame.ok_or(MALFORMED)?;
        let image = file.get(..at).filter(|_| scans > 0).ok_or(MALFORMED)?;
        Ok(Self {
            width,
            height,
            orientation: orientation.unwrap_or(Orientation::UPRIGHT),
            image,
            wants_tables: sequential && !has_tables,
        })
    }

    /// The image with the standard Huffman tables, where it has none, and a run of one-bits before EOI. No Huffman code is all ones, so a decoder that still wants blocks there fails
    /// instead of filling the rest with grey; one that has them all never reads the run (a scan ends in one-bits anyway).
    fn completed(&self) -> Vec<u8> {
        const ONES: [u8; 32] = {
            let mut stuffed = [0; 32];
            let mut i = 0;
            while i < stuffed.len() {
                stuffed[i] = 0xff;
                i += 2;
            }
            stuffed
        };
        let (soi, rest) = self.image.split_at(self.image.len().min(2));
        let (segments, eoi) = rest.split_at(rest.len().saturating_sub(2));
        let tables = if self.wants_tables { tables::standard() } else { vec![] };
        [soi, &tables, segments, &ONES, eoi].concat()
    }
}

/// The marker at `at`, fill bytes skipped; `at` moves behind it.
fn marker_at(file: &[u8], at: &mut usize) -> Result<u8, DecodeError> {
    if *file.get(*at).ok_or(TRUNCATED)? != 0xff {
        return Err(MALFORMED);
    }
    let rest = file.get(*at..).unwrap_or_default();
    let fill = rest.iter().take_while(|b| **b == 0xff).count();
    let marker = *rest.get(fill).ok_or(TRUNCATED)?;
    *at += fill + 1;
    Ok(marker)
}

/// The payload of the segment at `at`; `at` moves behind it.
fn segment_at<'a>(file: &'a [u8], at: &mut usize) -> Result<&'a [u8], DecodeError> {
    let rest = file.get(*at..).unwrap_or_default();
    let length = usize::from(u16::from_be_bytes(*rest.first_chunk().ok_or(TRUNCATED)?));
    if length < 2 {
        return Err(MALFORMED);
    }
    *at += length;
    rest.get(2..length).ok_or(TRUNCATED)
}

/// Moves `at` to the marker that ends a scan: neither a stuffed 0xff nor a restart.
fn skip_entropy_coded(file: &[u8], at: &mut usize) -> Result<(), DecodeError> {
    let rest = file.get(*at..).unwrap_or_default();
    let end = rest.windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0x00 | 0xd0..=0xd7 | 0xff));
    *at += end.ok_or(TRUNCATED)?;
    Ok(())
}

/// What a frame header says.
struct Frame {
    width: u32,
    height: u32,
    /// Not progressive.
    sequential: bool,
    components: u8,
    /// Some component has fewer samples than another.
    subsampled: bool,
}

impl Frame {
    fn of(marker: u8, segment: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let (width, height) = frame_size(segment, limits)?;
        let (specifications, _) = segment.get(6..).unwrap_or_default().as_chunks::<3>();
        let components = *segment.get(5).ok_or(MALFORMED)?;
        let specifications = specifications.get(..usize::from(components)).ok_or(MALFORMED)?;
        let [_, first, _] = *specifications.first().ok_or(MALFORMED)?;
        let subsampled = specifications.iter().any(|[_, sampling, _]| *sampling != first);
        Ok(Self { width, height, sequential: marker != 0xc2, components, subsampled })
    }

    /// Whether a scan of so many components makes it a picture that would be decoded wrongly.
    fn is_parted_by(&self, components: u8) -> bool {
        self.sequential && self.subsampled && components < self.components
    }
}

fn frame_size(frame: &[u8], limits: &DecodeLimits) -> Result<(u32, u32), DecodeError> {
    let [precision, h1, h0, w1, w0, components, ..] = *frame else { return Err(MALFORMED) };
    let (width, height) = (u32::from(u16::from_be_bytes([w1, w0])), u32::from(u16::from_be_bytes([h1, h0])));
    limits.check_size(width, height)?;
    match (precision, components) {
        (8, 1 | 3) => Ok((width, height)),
        (8, 4) => Err(unsupported("CMYK colours")),
        (8, _) => Err(MALFORMED),
        _ => Err(unsupported("samples of more than 8 bits")),
    }
}

fn unsupported(found: &'static str) -> DecodeError {
    DecodeError::Unsupported {
        format: Format::Jpeg,
        found,
        expected: "8-bit grey or RGB, baseline in one scan, or progressive",
    }
}
