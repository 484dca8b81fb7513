//! JP2's chain of boxes (ISO/IEC 15444-1, Annex I): where the code stream is, and what its colours mean.

use super::{Colour, JP2_SIGNATURE, MALFORMED, TRUNCATED, unsupported};
use crate::pipeline::decode::DecodeError;

pub(super) struct Jp2<'a> {
    pub width: u32,
    pub height: u32,
    pub colour: Colour,
    pub code_stream: &'a [u8],
}

struct Header {
    width: u32,
    height: u32,
    colour: Colour,
}

/// What a viewer may do without is passed over; what changes the picture is read or refused. Boxes behind the first code stream are
/// not looked at.
pub(super) fn read(file: &[u8]) -> Result<Jp2<'_>, DecodeError> {
    let mut rest = file.strip_prefix(&JP2_SIGNATURE).ok_or(MALFORMED)?;
    let mut header: Option<Header> = None;
    while !rest.is_empty() {
        let (name, payload, after) = next(rest)?;
        match &name {
            b"jp2h" if header.is_some() => return Err(MALFORMED),
            b"jp2h" => header = Some(read_header(payload)?),
            b"jp2c" => {
                let Header { width, height, colour } = header.ok_or(MALFORMED)?;
                return Ok(Jp2 { width, height, colour, code_stream: payload });
            }
            _ => {}
        }
        rest = after;
    }
    Err(TRUNCATED)
}

fn read_header(mut rest: &[u8]) -> Result<Header, DecodeError> {
    let (mut size, mut colour, mut no_colour) = (None, None, MALFORMED);
    while !rest.is_empty() {
        let (name, payload, after) = next(rest)?;
        match &name {
            b"ihdr" => {
                let [h3, h2, h1, h0, w3, w2, w1, w0, ..] = *payload else { return Err(MALFORMED) };
                size = Some((u32::from_be_bytes([w3, w2, w1, w0]), u32::from_be_bytes([h3, h2, h1, h0])));
            }
            // Of several the first counts that is of a method of Part 1; readers of JP2 pass over the others.
            b"colr" if colour.is_none() => match payload {
                [1 | 2, ..] => colour = Some(read_colour(payload)?),
                _ => no_colour = unsupported(OTHER_COLOUR),
            },
            b"pclr" => return Err(unsupported("a palette")),
            b"cdef" => check_channels(payload)?,
            _ => {}
        }
        rest = after;
    }
    let (width, height) = size.ok_or(MALFORMED)?;
    Ok(Header { width, height, colour: colour.ok_or(no_colour)? })
}

const OTHER_COLOUR: &str = "a colour space other than sRGB, sYCC and grey";

/// The enumerated colour spaces of Part 1, or a profile, which is not applied.
fn read_colour(payload: &[u8]) -> Result<Colour, DecodeError> {
    match *payload {
        [1, _, _, 0, 0, 0, 16 | 17, ..] => Ok(Colour::Rgb),
        [1, _, _, 0, 0, 0, 18, ..] => Ok(Colour::Ycc),
        [2, _, _, ref profile @ ..] => match profile.get(16..20) {
            Some(b"RGB " | b"GRAY") => Ok(Colour::Rgb),
            Some(_) => Err(unsupported(OTHER_COLOUR)),
            None => Err(MALFORMED),
        },
        [_, _, _, ..] => Err(unsupported(OTHER_COLOUR)),
        _ => Err(MALFORMED),
    }
}

/// Each channel is a colour, in its place: a count, then number, type and association of each.
fn check_channels(payload: &[u8]) -> Result<(), DecodeError> {
    let (_, channels) = payload.split_first_chunk::<2>().ok_or(MALFORMED)?;
    let (channels, []) = channels.as_chunks::<6>() else { return Err(MALFORMED) };
    for (place, [n1, n0, t1, t0, a1, a0]) in channels.iter().copied().enumerate() {
        let [number, kind, of] = [[n1, n0], [t1, t0], [a1, a0]].map(u16::from_be_bytes);
        if kind != 0 {
            return Err(unsupported("alpha"));
        }
        if usize::from(number) != place || usize::from(of) != place + 1 {
            return Err(unsupported("channels in another order"));
        }
    }
    Ok(())
}

/// Name, payload, and what follows.
type Box<'a> = ([u8; 4], &'a [u8], &'a [u8]);

/// The box at the start of `bytes`.
fn next(bytes: &[u8]) -> Result<Box<'_>, DecodeError> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(TRUNCATED)?;
    let (name, rest) = rest.split_first_chunk::<4>().ok_or(TRUNCATED)?;
    let (length, header, rest) = match u32::from_be_bytes(*length) {
        0 => return Ok((*name, rest, &[])), // to the end
        1 => {
            let (long, rest) = rest.split_first_chunk::<8>().ok_or(TRUNCATED)?;
            (u64::from_be_bytes(*long), 16, rest)
        }
        short => (u64::from(short), 8, rest),
    };
    let length = usize::try_from(length.checked_sub(header).ok_or(MALFORMED)?).map_err(|_| TRUNCATED)?;
    let (payload, after) = rest.split_at_checked(length).ok_or(TRUNCATED)?;
    Ok((*name, payload, after))
}
