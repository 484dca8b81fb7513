//! Tags of one or two bytes and definite lengths, as DER and Doc 9303 write them.

use super::{DecodeError, MALFORMED, TRUNCATED};

/// Tag, and what is in it.
pub(super) type Element<'a> = (u16, &'a [u8]);

/// The element that `bytes` begin with; what follows is left alone.
pub(super) fn open(bytes: &[u8]) -> Result<Element<'_>, DecodeError> {
    next(bytes).map(|(element, _)| element)
}

/// The first of the elements in `inside` that has one of these tags.
pub(super) fn find<'a>(inside: &'a [u8], tags: &[u16]) -> Result<Option<Element<'a>>, DecodeError> {
    let mut rest = inside;
    while !rest.is_empty() {
        let (element, after) = next(rest)?; // two bytes at least
        if tags.contains(&element.0) {
            return Ok(Some(element));
        }
        rest = after;
    }
    Ok(None)
}

/// The first element, and what follows it.
pub(super) fn next(bytes: &[u8]) -> Result<(Element<'_>, &[u8]), DecodeError> {
    const MORE: u8 = 0x1f;
    let (tag, rest) = match *bytes {
        [first, second, ref rest @ ..] if first & MORE == MORE => {
            if second & 0x80 != 0 {
                return Err(MALFORMED); // a third byte
            }
            (u16::from_be_bytes([first, second]), rest)
        }
        [first, ref rest @ ..] if first & MORE != MORE => (u16::from(first), rest),
        _ => return Err(TRUNCATED),
    };
    let (length, rest) = match *rest {
        [short @ 0..=0x7f, ref rest @ ..] => (usize::from(short), rest),
        [0x81, a, ref rest @ ..] => (usize::from(a), rest),
        [0x82, a, b, ref rest @ ..] => (usize::from(u16::from_be_bytes([a, b])), rest),
        [0x83, a, b, c, ref rest @ ..] => (u32::from_be_bytes([0, a, b, c]) as usize, rest),
        [0x84, a, b, c, d, ref rest @ ..] => (u32::from_be_bytes([a, b, c, d]) as usize, rest),
        [0x80 | 0x85.., ..] => return Err(MALFORMED), // indefinite, or more than a chip holds
        _ => return Err(TRUNCATED),
    };
    let (inside, after) = rest.split_at_checked(length).ok_or(TRUNCATED)?;
    Ok(((tag, inside), after))
}
