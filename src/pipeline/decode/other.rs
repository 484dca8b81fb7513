//! Formats that are known and not read: named, so that a front end knows what to change.

use super::DecodeError;

/// Why bytes of no format that is read are refused.
pub(super) fn refusal(file: &[u8]) -> DecodeError {
    name(file).map_or(DecodeError::Format, |name| DecodeError::Other { name })
}

/// With its article.
fn name(file: &[u8]) -> Option<&'static str> {
    match file {
        // ISO base media: a box of type `ftyp`, whose length may take 8 bytes more.
        [0, 0, 0, 1, b'f', b't', b'y', b'p', l7, l6, l5, l4, l3, l2, l1, l0, brands @ ..] => {
            name_by_brands(brands, u64::from_be_bytes([*l7, *l6, *l5, *l4, *l3, *l2, *l1, *l0]).saturating_sub(16))
        }
        [l3, l2, l1, l0, b'f', b't', b'y', b'p', brands @ ..] => {
            name_by_brands(brands, u64::from(u32::from_be_bytes([*l3, *l2, *l1, *l0]).saturating_sub(8)))
        }
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some("a TIFF"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("a GIF"),
        // Behind the file's length two reserved words, which are 0.
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some("a BMP"),
        [0xff, 0x0a, ..] | [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] => Some("a JPEG XL"),
        _ => is_pdf(file).then_some("a PDF"),
    }
}

/// The major brand, its version, and the brands that the file is compatible with. `mif1` and its like say no more than that there are
/// pictures: which, the other brands say.
fn name_by_brands(payload: &[u8], length: u64) -> Option<&'static str> {
    const MOST: u64 = 1024; // writers list a handful
    let length = usize::try_from(length.min(MOST)).ok()?;
    let (brands, _) = payload.get(..length).unwrap_or(payload).as_chunks::<4>();
    let is_any = |of: &[&[u8; 4]]| brands.iter().enumerate().any(|(place, brand)| place != 1 && of.contains(&brand));
    if is_any(&[b"avif", b"avis"]) {
        Some("an AVIF")
    } else if is_any(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1", b"miaf"]) {
        Some("a HEIC")
    } else {
        None
    }
}

/// A header within the first 1024 bytes will do for readers of PDF; here white space alone may come before it.
fn is_pdf(file: &[u8]) -> bool {
    file.get(..1024).unwrap_or(file).trim_ascii_start().starts_with(b"%PDF-")
}

#[cfg(test)]
mod tests {
    use super::{super::tests::decoded, *};

    #[test]
    fn formats_that_are_known_are_refused_by_name() {
        let late_pdf = [&[b' '; 1019], &b"%PDF-1.7"[..]].concat();
        let files: [(&str, &[u8]); 19] = [
            ("a HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
            ("a HEIC", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"),
            ("a HEIC", b"\0\0\0\x18ftypmif2\0\0\0\0mif2miaf"),
            ("an AVIF", b"\0\0\0\x1cftypavif\0\0\0\0mif1avif"),
            ("an AVIF", b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf"),
            ("an AVIF", b"\0\0\0\x1cftypmiaf\0\0\0\0mif1miafavif"),
            ("an AVIF", b"\0\0\0\x01ftyp\0\0\0\0\0\0\0\x20avif\0\0\0\0avif"),
            ("a HEIC", b"\0\0\0\x01ftyp\0\0\0\0\0\0\0\x20mif1\0\0\0\0heic"),
            // What follows the box is none of its brands, nor is its version.
            ("a HEIC", b"\0\0\0\x14ftypmif1avifheicavif"),
            ("a TIFF", b"II*\0\x08\0\0\0"),
            ("a TIFF", b"MM\0*\0\0\0\x08"),
            ("a BMP", b"BM\x36\x10\0\0\0\0\0\0\x36\0\0\0"),
            ("a PDF", b"%PDF-1.7\n"),
            ("a PDF", b"\r\n\t %PDF-1.7\n"),
            ("a PDF", &late_pdf),
            ("a GIF", b"GIF89a\x10\0\x10\0"),
            ("a JPEG XL", b"\xff\x0a\0\0"),
            ("a JPEG XL", b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a"),
            ("an AVIF", b"\0\0\0\x1cftypavis\0\0\0\0"),
        ];
        for (name, file) in files {
            let error = decoded(file).unwrap_err();
            assert_eq!(error, DecodeError::Other { name });
            let text = format!("the image is {name} file; expected JPEG, PNG, WebP or JPEG 2000");
            assert_eq!((error.to_string(), error.reason()), (text, "image_unsupported"));
        }
        for file in [
            &[&[b' '; 1020], &b"%PDF-1.7"[..]].concat(),
            &b"x%PDF-1.7"[..],
            b"\0\0\0\x18ftypisom\0\0\0\0mp42isom",
            b"\0\0\0\x08ftyp",
            b"\0\0\0\x01ftyp\0\0\0\0\0\0\0\x02avif",
        ] {
            assert_eq!(decoded(file).unwrap_err(), DecodeError::Format);
        }
        assert_eq!(decoded(b"no image at all").unwrap_err(), DecodeError::Format);
    }
}
