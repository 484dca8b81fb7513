use proptest::prelude::*;

use super::{
    super::{
        DecodeLimits, Source, decode, most_pixel_bytes,
        tests::{LOSSLESS_JP2, decoded, lossless_webp, smooth},
    },
    *,
};

pub fn element(tag: u16, inside: &[u8]) -> Vec<u8> {
    let tag = tag.to_be_bytes();
    let tag = if tag[0] == 0 { &tag[1..] } else { &tag[..] };
    let length = inside.len().to_be_bytes();
    let length = match inside.len() {
        0..=0x7f => length[7..].to_vec(),
        0x80..=0xff => [&[0x81], &length[7..]].concat(),
        0x100..=0xffff => [&[0x82], &length[6..]].concat(),
        _ => [&[0x83], &length[5..]].concat(),
    };
    [tag, &length, inside].concat()
}

/// A record of 2005 with a face for each image, with this many feature points.
pub fn face_record(images: &[&[u8]], points: u16, format: u8) -> Vec<u8> {
    let face = |image: &&[u8]| {
        let length = 20 + 8 * usize::from(points) + 12 + image.len();
        let person = [0; 14];
        let information = [1, format, 1, 0x9e, 2, 0x14, 1, 2, 0, 0, 0, 0];
        let points_of = [1; 8].repeat(usize::from(points));
        [&(length as u32).to_be_bytes(), points.to_be_bytes().as_slice(), &person, &points_of, &information, image]
            .concat()
    };
    let faces: Vec<u8> = images.iter().flat_map(face).collect();
    let length = (14 + faces.len()) as u32;
    let count = images.len() as u16;
    [b"FAC\x00010\0", length.to_be_bytes().as_slice(), &count.to_be_bytes(), &faces].concat()
}

/// A record of 2019: version, then one representation with an id before its image and the image's metadata behind it.
pub fn tagged_record(image: &[u8]) -> Vec<u8> {
    let two_d = [element(0x80, image), element(0xa1, &element(0xa0, &element(0x80, &[3])))].concat();
    let image_representation = element(0xa1, &element(0xa0, &element(0xa0, &two_d)));
    let representation = element(0x30, &[element(0x80, &[0]), image_representation, element(0xa4, &[])].concat());
    let version = element(0xa0, &[element(0x80, &[3]), element(0x81, &[0x07, 0xe3])].concat());
    element(0xa1, &element(0x65, &[version, element(0xa1, &representation)].concat()))
}

/// A data group 2 with a template for each record.
pub fn dg2(records: &[Vec<u8>], data: u16) -> Vec<u8> {
    let header = element(0xa1, &[element(0x81, &[2]), element(0x87, &[1, 1]), element(0x88, &[0, 8])].concat());
    let template = |record: &Vec<u8>| element(0x7f60, &[header.clone(), element(data, record)].concat());
    let templates: Vec<u8> = records.iter().flat_map(template).collect();
    element(0x75, &element(0x7f61, &[element(0x02, &[records.len() as u8]), templates].concat()))
}

const IMAGE: &[u8] = &[0xff, 0xd8, 0xff, 0xe0, 7, 8, 9];

fn every_kind() -> Vec<Vec<u8>> {
    vec![dg2(&[face_record(&[IMAGE], 3, 0)], 0x5f2e), dg2(&[tagged_record(IMAGE)], 0x7f2e)]
}

#[test]
fn the_portrait_is_found_in_both_records() {
    for file in every_kind() {
        assert_eq!(portrait(&file), Ok(IMAGE));
    }
    let large = vec![5; 70_000];
    assert_eq!(portrait(&dg2(&[face_record(&[&large], 0, 1)], 0x5f2e)), Ok(&large[..]));
    assert_eq!(portrait(&dg2(&[tagged_record(&large)], 0x7f2e)), Ok(&large[..]));
    assert_eq!(portrait(&dg2(&[tagged_record(IMAGE)], 0x5f2e)), Ok(IMAGE), "some issuers tag it so");
}

#[test]
fn outer_tags_may_be_off() {
    let record = face_record(&[IMAGE], 0, 0);
    let template = element(0x7f60, &[element(0xa1, &[]), element(0x5f2e, &record)].concat());
    for file in [element(0x7f61, &template), template, element(0x5f2e, &record), record] {
        assert_eq!(portrait(&file), Ok(IMAGE));
    }
    let tagged = tagged_record(IMAGE);
    for file in [element(0x7f2e, &tagged), tagged.clone(), open(&tagged).unwrap().1.to_vec()] {
        assert_eq!(portrait(&file), Ok(IMAGE));
    }
}

#[test]
fn the_first_of_several_faces_is_taken() {
    let other = [1; 50];
    assert_eq!(portrait(&face_record(&[IMAGE, &other], 1, 0)), Ok(IMAGE));
    let [first, second] = [IMAGE, &other].map(|image| face_record(&[image], 0, 0));
    assert_eq!(portrait(&dg2(&[first, second], 0x5f2e)), Ok(IMAGE));
}

#[test]
fn templates_without_a_face_are_passed_over() {
    let none = face_record(&[], 0, 0);
    let empty = element(0x65, &element(0xa1, &[]));
    let (of_2005, of_2019) = (face_record(&[IMAGE], 0, 0), tagged_record(IMAGE));
    for file in [
        dg2(&[none.clone(), of_2005.clone()], 0x5f2e),
        dg2(&[empty, of_2019], 0x7f2e),
        dg2(&[none.clone(), none.clone(), of_2005.clone()], 0x5f2e),
    ] {
        assert_eq!(portrait(&file), Ok(IMAGE));
    }
    let bare = element(0x7f60, &element(0xa1, &[]));
    let full = element(0x7f60, &element(0x5f2e, &of_2005));
    assert_eq!(portrait(&element(0x7f61, &[bare, full].concat())), Ok(IMAGE));
    assert_eq!(portrait(&dg2(&[none.clone(), none], 0x5f2e)), Err(NOTHING));
    // A damaged one is not: the portrait may have been in it.
    let mut damaged = of_2005.clone();
    damaged[14..18].fill(0xff);
    assert_eq!(portrait(&dg2(&[damaged, of_2005], 0x5f2e)), Err(MALFORMED));
}

#[test]
fn the_number_of_templates_is_what_it_says() {
    let records = [face_record(&[IMAGE], 0, 0), face_record(&[&[1; 50]], 0, 0)];
    for number in 0..=2 {
        let file = dg2(&records[..number], 0x5f2e);
        let at = file.windows(3).position(|w| w == [2, 1, number as u8]).unwrap();
        for said in [0, 1, 2, 3, 255] {
            let mut changed = file.clone();
            changed[at + 2] = said;
            let error = match portrait(&changed) {
                Ok(_) if said == number as u8 => continue,
                Ok(_) => panic!("{said} for {number}"),
                Err(error) => error.to_string(),
            };
            let expected =
                if said == 0 && number == 0 { "no portrait" } else { "another number of biometric templates" };
            assert!(error.contains(expected), "{said} for {number}: {error}");
        }
    }
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let said = |file: &[u8]| portrait(file).unwrap_err().to_string();
    assert!(said(&dg2(&[], 0x5f2e)).contains("no portrait"));
    assert!(said(&face_record(&[], 0, 0)).contains("no portrait"));
    assert!(said(&face_record(&[IMAGE], 0, 2)).contains("format"));
    let mut later = face_record(&[IMAGE], 0, 0);
    later[4..8].copy_from_slice(b"030\0");
    assert!(said(&later).contains("19794-5:2011"));
    let solid = element(0x65, &element(0xa1, &element(0x30, &element(0xa1, &element(0xa0, &element(0xa1, &[]))))));
    assert!(said(&solid).contains("three dimensions"));
    for other in [&b"\xff\xd8\xff\xe0"[..], b"\x89PNG\r\n\x1a\n", &element(0x61, &[]), &element(0x75, &[])] {
        let error = portrait(other).unwrap_err();
        assert!(error.to_string().starts_with("the DG2 file"), "{error}");
    }
}

#[test]
fn every_truncation_is_refused() {
    for file in every_kind() {
        for length in 0..file.len() {
            assert!(portrait(&file[..length]).is_err(), "{length} of {} bytes", file.len());
        }
    }
}

/// Whatever a byte becomes, the portrait lies within the file: a slice cannot do otherwise, and nothing panics.
#[test]
fn every_byte_may_be_any_other() {
    for file in every_kind() {
        for at in 0..file.len() {
            for value in 0..=255 {
                let mut changed = file.clone();
                changed[at] = value;
                let _ = portrait(&changed);
            }
        }
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let record = face_record(&[IMAGE], 0, 0);
    let with = |at: usize, value: u32| {
        let mut changed = record.clone();
        changed[at..at + 4].copy_from_slice(&value.to_be_bytes());
        changed
    };
    for (at, value) in [(8, 0), (8, 17), (8, u32::MAX), (14, 0), (14, 3), (14, 31), (14, 32), (14, u32::MAX)] {
        assert!(portrait(&with(at, value)).is_err(), "{value} at {at}");
    }
    for file in
        [&[0x75, 0x80, 0, 0][..], &[0x75, 0x85, 0, 0, 0, 0, 0], &[0x75, 0x84, 255, 255, 255, 255], &[0x7f, 0xff, 1, 0]]
    {
        assert!(portrait(file).is_err());
    }
}

#[test]
fn a_chip_holds_jpeg_or_jpeg_2000() {
    let chip = |image: &[u8]| {
        let file = dg2(&[tagged_record(image)], 0x7f2e);
        let stated = most_pixel_bytes(Source::Chip(&file), &DecodeLimits::default());
        decode(Source::Chip(&file), &DecodeLimits::default()).map(|pixels| (pixels, stated))
    };
    let (pixels, stated) = chip(LOSSLESS_JP2).unwrap();
    assert_eq!((pixels.rgb8(), stated), (&smooth(40, 24)[..], 40 * 24 * 3));
    let error = chip(&lossless_webp(&smooth(40, 24), 40, 24)).unwrap_err();
    assert!(error.to_string().contains("neither JPEG nor JPEG 2000"), "{error}");
    let file = dg2(&[tagged_record(LOSSLESS_JP2)], 0x7f2e);
    assert_eq!(decoded(&file).unwrap_err(), DecodeError::Format, "a DG2 is no image file");
}

proptest! {
    #[test]
    fn any_bytes_end_in_a_portrait_or_a_refusal(bytes: Vec<u8>) {
        let _ = portrait(&bytes);
        let _ = portrait(&element(0x75, &bytes));
        let _ = in_face_record(&[b"FAC\x00010\0", &bytes[..]].concat());
        let _ = in_tagged_record(&element(0x65, &element(0xa1, &element(0x30, &bytes))));
    }
}
