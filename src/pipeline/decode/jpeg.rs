//! JPEG: baseline and progressive, grey or YCbCr or RGB, 8 bits.
//!
//! zune-jpeg 0.5.15 gives other pictures wrong and says nothing, so they are refused by name before it sees them:
//!
//! - Sequential pictures in several scans. Blocks of subsampled colours land in wrong places; and where few bits are left at a
//!   scan's end, the next scan's marker is met too early and the rows that are left are dropped: 16 x 16 pixels that are flat below,
//!   Y, Cb and Cr in a scan each and none subsampled, are off by 130 grey levels.
//! - Samplings other than those that [`frame`] names. Y 1x1 with Cb and Cr 2x2, in one scan, is off by 100 grey levels.
//!
//! The tests write such files, and hold every sampling that a file can say against the picture that it is of.

use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use super::{DecodeError, DecodeLimits, Decoded, Format, Orientation};

#[cfg(test)]
mod encoder;
mod frame;
mod tables;
#[cfg(test)]
mod tests;

use frame::Frame;

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
        refuse_other(marker)?;
        let segment = segment_at(file, &mut at)?;
        if matches!(marker, 0xc0..=0xc2) {
            return frame::size(segment, limits);
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
    /// Not progressive.
    sequential: bool,
}

impl<'a> Survey<'a> {
    fn of(file: &'a [u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let (mut frame, mut orientation, mut scans) = (None, None, 0);
        let mut at = 2; // after SOI
        loop {
            let marker = marker_at(file, &mut at)?;
            match marker {
                0xd9 => break,
                0x01 | 0xd0..=0xd7 => continue, // TEM, RSTn: bare markers
                0x00 | 0xd8 => return Err(MALFORMED),
                _ => refuse_other(marker)?,
            }
            let segment = segment_at(file, &mut at)?;
            match marker {
                // A second frame header would escape the checks of the first.
                0xc0..=0xc2 if frame.is_some() => return Err(MALFORMED),
                0xc0..=0xc2 => frame = Some(Frame::of(marker, segment, limits)?),
                0xda => {
                    scans += 1;
                    if scans > limits.max_scans {
                        return Err(DecodeError::Scans { most: limits.max_scans });
                    }
                    frame.as_mut().ok_or(MALFORMED)?.add_scan(segment)?;
                    skip_entropy_coded(file, &mut at)?;
                }
                0xe1 if orientation.is_none() => {
                    orientation = segment.strip_prefix(b"Exif\0\0").map(Orientation::from_tiff);
                }
                _ => {}
            }
        }
        let frame = frame.ok_or(MALFORMED)?;
        frame.check_scans()?;
        let orientation = orientation.unwrap_or(Orientation::UPRIGHT);
        let image = file.get(..at).ok_or(MALFORMED)?;
        Ok(Self { width: frame.width, height: frame.height, orientation, image, sequential: frame.sequential })
    }

    /// The image with a run of one-bits before EOI. No Huffman code is all ones, so a decoder that still wants blocks there fails
    /// instead of filling the rest with grey; one that has them all never reads the run (a scan ends in one-bits anyway).
    ///
    /// A sequential one begins with the standard Huffman tables: frames of Motion JPEG leave out all or some, and tables of the file's own
    /// replace them.
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
        let tables = if self.sequential { tables::standard() } else { vec![] };
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

/// Kinds of JPEG that are known and not read.
fn refuse_other(marker: u8) -> Result<(), DecodeError> {
    Err(unsupported(match marker {
        0xc3 | 0xc7 | 0xcb | 0xcf => "a lossless picture",
        0xc5 | 0xc6 | 0xcd | 0xce | 0xde => "a hierarchical picture",
        0xc9 | 0xca | 0xcc => "an arithmetic-coded picture",
        0xf7 => "a JPEG-LS picture",
        _ => return Ok(()),
    }))
}

fn unsupported(found: &'static str) -> DecodeError {
    DecodeError::Unsupported {
        format: Format::Jpeg,
        found,
        expected: "8-bit grey or RGB, baseline in one scan, or progressive",
    }
}
