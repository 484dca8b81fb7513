use super::{
    super::tests::{GREY_J2K, LOSSLESS_JP2, LOSSY_J2K, TILED_JP2, decoded, mean_difference, smooth},
    *,
};

const ALPHA_JP2: &[u8] = include_bytes!("../../../../tests/fixtures/alpha.jp2");

fn place(file: &[u8], what: &[u8]) -> usize {
    file.windows(what.len()).position(|w| w == what).unwrap()
}

/// The file with other bytes somewhere behind a marker or a box's name.
fn with(file: &[u8], what: &[u8], behind: usize, bytes: &[u8]) -> Vec<u8> {
    let mut changed = file.to_vec();
    let at = place(file, what) + what.len() + behind;
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    changed
}

#[test]
fn files_of_every_kind_are_read() {
    let rgb8 = smooth(40, 24);
    assert!(decoded(LOSSLESS_JP2).unwrap().rgb8() == rgb8);
    assert!(decoded(TILED_JP2).unwrap().rgb8() == rgb8);
    assert!(mean_difference(decoded(LOSSY_J2K).unwrap().rgb8(), &rgb8) < 4.0);
    let luma = |p: &[u8]| [(0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2])) as u8; 3];
    let grey: Vec<u8> = rgb8.chunks(3).flat_map(luma).collect();
    assert!(mean_difference(decoded(GREY_J2K).unwrap().rgb8(), &grey) < 1.0);
    // What follows the end is nobody's.
    assert!(decoded(&[LOSSY_J2K, &[0; 9]].concat()).is_ok());
    let code_stream = &LOSSLESS_JP2[place(LOSSLESS_JP2, &CODE_STREAM_SIGNATURE)..];
    assert!(decoded(code_stream).unwrap().rgb8() == rgb8);
}

#[test]
fn sycc_becomes_rgb() {
    let ycc = decoded(&with(LOSSLESS_JP2, b"colr", 3, &[0, 0, 0, 18])).unwrap();
    let mut expected = smooth(40, 24);
    to_rgb(&mut expected);
    assert!(ycc.rgb8() == expected);
    let mut pixels = [128, 128, 128, 76, 85, 255, 255, 0, 255];
    to_rgb(&mut pixels);
    assert_eq!(pixels, [128, 128, 128, 254, 0, 0, 255, 208, 28], "grey, red, beyond");
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let siz: &[u8] = &[0xff, 0x51];
    let cases = [
        ("alpha", ALPHA_JP2.to_vec()),
        ("more than 8 bits", with(LOSSY_J2K, siz, 38, &[11])),
        ("with a sign", with(LOSSY_J2K, siz, 38, &[0x87])),
        ("high-throughput", with(LOSSY_J2K, siz, 2, &[0x40])),
        ("origin", with(LOSSY_J2K, siz, 12, &[0, 0, 0, 1])),
        ("sampling", with(LOSSY_J2K, siz, 39, &[2])),
        ("two sizes", with(LOSSY_J2K, siz, 42, &[2])),
        ("colour space", with(LOSSLESS_JP2, b"colr", 3, &[0, 0, 0, 14])),
        ("palette", LOSSLESS_JP2.to_vec()),
        ("progression", LOSSY_J2K.to_vec()),
    ];
    for (name, mut file) in cases {
        match name {
            "alpha" => {}
            "palette" => {
                let colr = place(&file, b"colr");
                file[colr..colr + 4].copy_from_slice(b"pclr");
            }
            "progression" => {
                let comment = place(&file, &[0xff, 0x64]);
                file[comment + 1] = 0x5f;
            }
            _ => {}
        }
        let error = decoded(&file).unwrap_err();
        let said = error.to_string();
        if name == "alpha" {
            assert!(said.contains("channels other than 1 and 3") || said.contains("alpha"), "{said}");
        } else {
            assert!(said.contains(name), "{name}: {said}");
        }
        assert_eq!(error.reason(), "image_unsupported", "{said}");
    }
}

#[test]
fn what_would_cost_too_much_is_refused_before_it_is_decoded() {
    let (siz, cod): (&[u8], &[u8]) = (&[0xff, 0x51], &[0xff, 0x52]);
    let side = |width: u32, height: u32| with(LOSSY_J2K, siz, 4, &[width.to_be_bytes(), height.to_be_bytes()].concat());
    let cases = [
        ("image_side", side(20_000, 20_000)),
        ("image_side", side(0, 24)),
        ("image_side", side(u32::MAX, u32::MAX)),
        ("image_area", side(4096, 1025)),
        ("image_parts", side(1024, 1024)),
        ("image_parts", with(LOSSY_J2K, siz, 20, &[0, 0, 0, 1, 0, 0, 0, 1])),
        ("image_parts", with(LOSSY_J2K, cod, 4, &[0, 33])),
        ("image_parts", with(LOSSY_J2K, cod, 7, &[11])),
        ("image_malformed", with(LOSSY_J2K, cod, 8, &[8, 8])),
    ];
    for (reason, file) in cases {
        assert_eq!(decoded(&file).unwrap_err().reason(), reason);
        assert!(stated_size(&file, &DecodeLimits::default()).is_err());
    }
    // Blocks of 4 x 4 pixels; thirty bit planes.
    let large = [0, 0, 2, 0, 0, 0, 2, 0];
    let large = with(&with(LOSSY_J2K, siz, 4, &large), siz, 20, &large);
    let said = |file: &[u8]| decoded(file).unwrap_err().to_string();
    assert!(said(&with(&large, cod, 8, &[0, 0])).contains("code blocks"));
    // A piece a pass, in blocks of 8 x 8.
    assert!(said(&with(&with(&large, cod, 8, &[1, 1]), cod, 10, &[4])).contains("pieces"));
    let mut deep = large;
    let steps = place(&deep, &[0xff, 0x5c]) + 5;
    let end = steps - 3 + usize::from(deep[steps - 2]);
    deep[steps..end].chunks_mut(2).for_each(|step| step[0] |= 0xf8);
    assert!(said(&deep).contains("640x850"), "{}", said(&deep));
}

#[test]
fn a_size_that_the_container_has_otherwise_is_refused() {
    assert_eq!(decoded(&with(LOSSLESS_JP2, b"ihdr", 0, &[0, 0, 0, 25])).unwrap_err(), MALFORMED);
}

#[test]
fn a_tile_that_is_missing_is_noticed() {
    // The second tile's part says that it is the first's.
    let sot = place(TILED_JP2, &[0xff, 0x90, 0, 10, 0, 1]);
    let mut changed = TILED_JP2.to_vec();
    changed[sot + 5] = 0;
    assert_eq!(decoded(&changed).unwrap_err(), TRUNCATED);
}

/// Psot is 0: legal for the last one.
#[test]
fn the_last_tile_part_may_leave_out_its_length() {
    for file in [LOSSY_J2K, LOSSLESS_JP2, GREY_J2K] {
        let open = with(file, &[0xff, 0x90, 0, 10], 2, &[0; 4]);
        assert!(decoded(&open).unwrap() == decoded(file).unwrap());
        let end = place(&open, &[0xff, 0xd9]);
        for length in place(&open, &[0xff, 0x90])..end + 2 {
            assert!(decoded(&open[..length]).is_err(), "{length} bytes");
        }
    }
    // Of several tiles' parts the first is not the last.
    assert_eq!(decoded(&with(TILED_JP2, &[0xff, 0x90, 0, 10], 2, &[0; 4])).unwrap_err(), TRUNCATED);
    let at = TILED_JP2.windows(4).rposition(|w| w == [0xff, 0x90, 0, 10]).unwrap();
    let mut open = TILED_JP2.to_vec();
    open[at + 6..at + 10].fill(0);
    assert!(decoded(&open).unwrap() == decoded(TILED_JP2).unwrap());
}

/// A file with another `colr` before its own, or in its place.
fn with_colour(other: &[u8], keep: bool) -> Vec<u8> {
    let mut file = LOSSLESS_JP2.to_vec();
    let colr = place(&file, b"colr") - 4;
    let length = u32::from_be_bytes(file[colr..colr + 4].try_into().unwrap()) as usize;
    let new = [&(8 + other.len() as u32).to_be_bytes(), b"colr".as_slice(), other].concat();
    let header = place(&file, b"jp2h") - 4;
    let grown = u32::from_be_bytes(file[header..header + 4].try_into().unwrap()) as usize + new.len();
    let grown = if keep { grown } else { grown - length };
    file.splice(colr..if keep { colr } else { colr + length }, new);
    file[header..header + 4].copy_from_slice(&(grown as u32).to_be_bytes());
    file
}

#[test]
fn a_colour_of_a_method_that_part_1_does_not_have_is_passed_over() {
    let expected = decoded(LOSSLESS_JP2).unwrap();
    for method in [0, 3, 4, 255] {
        assert!(decoded(&with_colour(&[method, 0, 0, 1, 2, 3], true)).unwrap() == expected, "method {method}");
        let error = decoded(&with_colour(&[method, 0, 0, 1, 2, 3], false)).unwrap_err();
        assert!(error.to_string().contains("a colour space other than"), "{error}");
    }
    assert!(decoded(&with_colour(&[1, 0, 0, 0, 0, 0, 16], false)).unwrap() == expected, "the box was built well");
}
