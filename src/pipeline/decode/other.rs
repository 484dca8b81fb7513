//! Formats that are known and not read: named, so that a front end knows what to change.

use super::DecodeError;

/// Why bytes of no format that is read are refused.
pub(super) fn refusal(file: &[u8]) -> DecodeError {
    name(file).map_or(DecodeError::Format, |name| DecodeError::Other { name })
}

fn name(file: &[u8]) -> Option<&'static str> {
    match file {
        // ISO base media: a box of type `ftyp`, then its major brand.
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand.first_chunk::<4>()? {
            b"avif" | b"avis" => Some("AVIF"),
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => Some("HEIC"),
            _ => None,
        },
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some("TIFF"),
        [b'%', b'P', b'D', b'F', b'-', ..] => Some("PDF"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("GIF"),
        // Behind the file's length two reserved words, which are 0.
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some("BMP"),
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => Some("JPEG XL"),
        _ => None,
    }
}
