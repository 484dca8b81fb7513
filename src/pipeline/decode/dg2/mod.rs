//! Where the portrait is in an ID chip's data group 2 (ICAO Doc 9303-10): templates of CBEFF (ISO/IEC 7816-11) around a record of
//! ISO/IEC 19794-5:2005 or 39794-5:2019.
//!
//! One path is walked, of a depth that the formats fix; siblings are passed over by their lengths, and what they hold is not read. Of
//! several faces the first is taken: an issuer puts the portrait that it printed there. A template without a face is passed over.
//! Signatures are none of its business.

mod tlv;

#[cfg(test)]
pub(super) mod tests;

use super::{DecodeError, Format};
use tlv::{find, next, open};

const TRUNCATED: DecodeError = DecodeError::Truncated { format: Format::Dg2 };
const MALFORMED: DecodeError = DecodeError::Malformed { format: Format::Dg2 };

/// How every record of ISO/IEC 19794-5 begins.
const FACE_RECORD: [u8; 4] = *b"FAC\0";

/// Tags, with the classes and forms that Doc 9303 gives them.
mod tag {
    pub const DG2: u16 = 0x75;
    /// Biometric information templates, how many, and one of them.
    pub const TEMPLATES: u16 = 0x7f61;
    pub const COUNT: u16 = 0x02;
    pub const TEMPLATE: u16 = 0x7f60;
    /// The data of a template: a record as it is, or one in tags of its own.
    pub const RECORD: u16 = 0x5f2e;
    pub const TAGGED_RECORD: u16 = 0x7f2e;
    /// FaceImageDataBlock of ISO/IEC 39794-5: `[APPLICATION 5]`.
    pub const FACE_IMAGE_DATA: u16 = 0x65;
    pub const SEQUENCE: u16 = 0x30;
    /// `[0]` and `[1]` around others, and `[0]` around bytes.
    pub const INTO_0: u16 = 0xa0;
    pub const INTO_1: u16 = 0xa1;
    pub const BYTES_0: u16 = 0x80;
}

/// The file of the portrait: in a whole DG2, or in what is left of it when its outer tags were taken off.
pub(super) fn portrait(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    if bytes.starts_with(&FACE_RECORD) {
        return in_face_record(bytes);
    }
    let (mut at, mut inside) = open(bytes)?;
    if at == tag::DG2 {
        (at, inside) = (tag::TEMPLATES, find(inside, &[tag::TEMPLATES])?.ok_or(NOTHING)?.1);
    }
    match at {
        tag::TEMPLATES => in_templates(inside),
        tag::TEMPLATE => in_template(inside),
        tag::RECORD | tag::TAGGED_RECORD => in_record(inside),
        tag::INTO_1 | tag::FACE_IMAGE_DATA => in_tagged_record(bytes),
        _ => Err(MALFORMED),
    }
}

/// In the first template with a face. Doc 9303 puts their number before them: with another one, something is missing or was added.
fn in_templates(inside: &[u8]) -> Result<&[u8], DecodeError> {
    let (mut rest, mut said, mut count, mut portrait) = (inside, None, 0, Err(NOTHING));
    while !rest.is_empty() {
        let ((at, inside), after) = next(rest)?;
        match at {
            tag::COUNT => said = Some(inside),
            tag::TEMPLATE => {
                count += 1;
                if portrait == Err(NOTHING) {
                    portrait = in_template(inside);
                }
            }
            _ => {}
        }
        rest = after;
    }
    match said {
        Some([said]) if usize::from(*said) == count => portrait,
        None => portrait,
        Some(_) => Err(unsupported("another number of biometric templates than it says")),
    }
}

fn in_template(inside: &[u8]) -> Result<&[u8], DecodeError> {
    in_record(find(inside, &[tag::RECORD, tag::TAGGED_RECORD])?.ok_or(NOTHING)?.1)
}

fn in_record(record: &[u8]) -> Result<&[u8], DecodeError> {
    if record.starts_with(&FACE_RECORD) { in_face_record(record) } else { in_tagged_record(record) }
}

const NOTHING: DecodeError = unsupported("no portrait");

pub(super) const fn unsupported(found: &'static str) -> DecodeError {
    let expected = "a JPEG or JPEG 2000 portrait in a record of ISO/IEC 19794-5:2005 or 39794-5:2019";
    DecodeError::Unsupported { format: Format::Dg2, found, expected }
}

/// ISO/IEC 19794-5:2005. Numbers are big-endian:
///
/// - the record: `FAC`, its version, its length (4 bytes), faces (2);
/// - a face: its length (4), feature points (2), 14 bytes on the person; 8 bytes a feature point; 12 bytes on the image, of which the
///   second names the format; the image, to the end of the face.
fn in_face_record(record: &[u8]) -> Result<&[u8], DecodeError> {
    const FACE: usize = 4 + 2 + 4 + 2;
    let [_, _, _, _, v3, v2, v1, v0, l3, l2, l1, l0, f1, f0, ..] = *record else { return Err(TRUNCATED) };
    match &[v3, v2, v1, v0] {
        b"010\0" => {}
        b"030\0" => return Err(unsupported("a record of ISO/IEC 19794-5:2011")),
        _ => return Err(unsupported("a record of another version")),
    }
    if [f1, f0] == [0, 0] {
        return Err(NOTHING);
    }
    let record = record.get(..u32::from_be_bytes([l3, l2, l1, l0]) as usize).ok_or(TRUNCATED)?;
    let rest = record.get(FACE + 2..).ok_or(MALFORMED)?;
    let (length, _) = rest.split_first_chunk().ok_or(MALFORMED)?;
    let face = rest.get(..u32::from_be_bytes(*length) as usize).ok_or(MALFORMED)?;
    let points = face.get(4..).and_then(|rest| rest.first_chunk()).ok_or(MALFORMED)?;
    let image_information = 20 + 8 * usize::from(u16::from_be_bytes(*points));
    let information = face.get(image_information..).and_then(|rest| rest.first_chunk::<12>()).ok_or(MALFORMED)?;
    if information[1] > 1 {
        return Err(unsupported("an image of a format that the standard does not have"));
    }
    face.get(image_information + 12..).filter(|image| !image.is_empty()).ok_or(MALFORMED)
}

/// ISO/IEC 39794-5:2019 in DER: FaceImageDataBlock, its representationBlocks `[1]`, the first of them; there imageRepresentation `[1]`,
/// base `[0]`, imageRepresentation2DBlock `[0]`, representationData2D `[0]`. Doc 9303 has the whole in `[1]`.
fn in_tagged_record(record: &[u8]) -> Result<&[u8], DecodeError> {
    let (mut at, mut inside) = open(record)?;
    if at == tag::INTO_1 {
        (at, inside) = open(inside)?;
    }
    if at != tag::FACE_IMAGE_DATA {
        return Err(MALFORMED);
    }
    let path = [
        (tag::INTO_1, MALFORMED),
        (tag::SEQUENCE, NOTHING),
        (tag::INTO_1, MALFORMED),
        (tag::INTO_0, unsupported("an image in an extension")),
        (tag::INTO_0, unsupported("a face in three dimensions")),
        (tag::BYTES_0, MALFORMED),
    ];
    for (tag, missing) in path {
        inside = find(inside, &[tag])?.ok_or(missing)?.1;
    }
    Ok(inside)
}
