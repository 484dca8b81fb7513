use ::png::{BitDepth, ColorType};
use jpeg_encoder::{ColorType as JpegColour, Encoder as JpegEncoder, SamplingFactor};

use super::*;

pub(super) const LOSSY_WEBP: &[u8] = include_bytes!("../../../tests/fixtures/lossy.webp");
pub(super) const LOSSY_ALPHA_WEBP: &[u8] = include_bytes!("../../../tests/fixtures/lossy_alpha.webp");
/// By libjpeg: ten scans with refinements, 4:2:0, the picture of the others.
pub(super) const REFINED_JPEG: &[u8] = include_bytes!("../../../tests/fixtures/progressive.jpg");
pub(super) const LOSSLESS_JP2: &[u8] = include_bytes!("../../../tests/fixtures/lossless.jp2");
pub(super) const LOSSY_J2K: &[u8] = include_bytes!("../../../tests/fixtures/lossy.j2k");
pub(super) const TILED_JP2: &[u8] = include_bytes!("../../../tests/fixtures/tiled.jp2");
pub(super) const GREY_J2K: &[u8] = include_bytes!("../../../tests/fixtures/grey.j2k");
const ANIMATED_WEBP: &[u8] = include_bytes!("../../../tests/fixtures/animated.webp");
const ANIMATED_PNG: &[u8] = include_bytes!("../../../tests/fixtures/animated.png");

/// A smooth picture: decoders of lossy formats come close to it.
pub(super) fn smooth(width: u32, height: u32) -> Vec<u8> {
    let ramp = |v: u32, most: u32| (v * 200 / most.max(1) + 20) as u8;
    let pixel = |x, y| [ramp(x, width), ramp(y, height), ramp(x + y, width + height)];
    (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect()
}

pub(super) fn jpeg(rgb8: &[u8], width: u16, height: u16, set: impl FnOnce(&mut JpegEncoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = JpegEncoder::new(&mut file, 95);
    set(&mut encoder);
    encoder.encode(rgb8, width, height, JpegColour::Rgb).unwrap();
    file
}

pub(super) fn png(samples: &[u8], width: u32, height: u32, colour: ColorType, depth: BitDepth) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, width, height);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == ColorType::Indexed {
        encoder.set_palette(vec![10, 20, 30, 200, 210, 220]);
    }
    encoder.write_header().unwrap().write_image_data(samples).unwrap();
    file
}

pub(super) fn lossless_webp(rgb8: &[u8], width: u32, height: u32) -> Vec<u8> {
    let mut file = Vec::new();
    image_webp::WebPEncoder::new(&mut file).encode(rgb8, width, height, image_webp::ColorType::Rgb8).unwrap();
    file
}

pub(super) fn decoded(file: &[u8]) -> Result<Pixels, DecodeError> {
    decode(Source::Encoded(file), &DecodeLimits::default())
}

pub(super) fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

/// One small file of each kind.
pub(super) fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let (w, h) = (40, 24);
    let rgb8 = smooth(w, h);
    let rgba: Vec<u8> = rgb8.chunks(3).flat_map(|p| [p[0], p[1], p[2], 128]).collect();
    let eight = BitDepth::Eight;
    vec![
        ("baseline jpeg", jpeg(&rgb8, 40, 24, |_| {})),
        ("subsampled jpeg", jpeg(&rgb8, 40, 24, |e| e.set_sampling_factor(SamplingFactor::R_4_2_0))),
        ("progressive jpeg", jpeg(&rgb8, 40, 24, |e| e.set_progressive(true))),
        ("refined jpeg", REFINED_JPEG.to_vec()),
        ("jpeg with restarts", jpeg(&rgb8, 40, 24, |e| e.set_restart_interval(2))),
        ("rgb png", png(&rgb8, w, h, ColorType::Rgb, eight)),
        ("rgba png", png(&rgba, w, h, ColorType::Rgba, eight)),
        ("palette png", png(&[0b0101_0101; 24 * 5], w, h, ColorType::Indexed, BitDepth::One)),
        ("lossless webp", lossless_webp(&rgb8, w, h)),
        ("lossy webp", LOSSY_WEBP.to_vec()),
        ("lossy webp with alpha", LOSSY_ALPHA_WEBP.to_vec()),
        ("lossless jp2", LOSSLESS_JP2.to_vec()),
        ("layered j2k", LOSSY_J2K.to_vec()),
        ("tiled jp2", TILED_JP2.to_vec()),
        ("grey j2k", GREY_J2K.to_vec()),
    ]
}

/// A data group 2 of each kind.
pub(super) fn chips() -> Vec<(&'static str, Vec<u8>)> {
    use dg2::tests::{dg2, face_record, tagged_record};
    let jpeg = jpeg(&smooth(40, 24), 40, 24, |_| {});
    vec![
        ("dg2 of 2005", dg2(&[face_record(&[LOSSLESS_JP2], 2, 1)], 0x5f2e)),
        ("dg2 of 2005 with a jpeg", dg2(&[face_record(&[&jpeg], 0, 0)], 0x5f2e)),
        ("dg2 of 2019", dg2(&[tagged_record(LOSSY_J2K)], 0x7f2e)),
    ]
}

#[test]
fn jpegs_of_every_kind_come_close_to_the_picture() {
    let rgb8 = smooth(67, 45); // no multiple of a block
    type Set = fn(&mut JpegEncoder<&mut Vec<u8>>);
    let kinds: [(&str, Set); 5] = [
        ("baseline", |_| {}),
        ("4:2:0", |e| e.set_sampling_factor(SamplingFactor::R_4_2_0)),
        ("progressive", |e| e.set_progressive(true)),
        ("progressive in many scans", |e| e.set_progressive_scans(8)),
        ("restarts", |e| e.set_restart_interval(3)),
    ];
    for (kind, set) in kinds {
        let image = decoded(&jpeg(&rgb8, 67, 45, set)).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!((image.width(), image.height()), (67, 45), "{kind}");
        assert!(mean_difference(image.rgb8(), &rgb8) < 3.0, "{kind}");
    }
    let grey: Vec<u8> = rgb8.chunks(3).map(|p| p[0]).collect();
    let mut file = Vec::new();
    JpegEncoder::new(&mut file, 95).encode(&grey, 67, 45, JpegColour::Luma).unwrap();
    let expected: Vec<u8> = grey.iter().flat_map(|v| [*v; 3]).collect();
    assert!(mean_difference(decoded(&file).unwrap().rgb8(), &expected) < 2.0);
}

#[test]
fn jpegs_of_other_kinds_are_refused_by_name() {
    for colour in [JpegColour::Cmyk, JpegColour::CmykAsYcck] {
        let mut file = Vec::new();
        JpegEncoder::new(&mut file, 90).encode(&[128; 32 * 32 * 4], 32, 32, colour).unwrap();
        let error = decoded(&file).unwrap_err();
        assert_eq!(error.reason(), "image_unsupported");
        assert!(error.to_string().contains("CMYK"), "{error}");
    }
    let file = jpeg(&smooth(32, 32), 32, 32, |_| {});
    let sof = file.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    let kinds = [
        ("lossless", &[0xc3, 0xc7, 0xcb, 0xcf][..]),
        ("hierarchical", &[0xc5, 0xc6, 0xcd, 0xce, 0xde]),
        ("arithmetic", &[0xc9, 0xca, 0xcc]),
        ("JPEG-LS", &[0xf7]),
    ];
    for (name, markers) in kinds {
        for marker in markers {
            let mut changed = file.clone();
            changed[sof + 1] = *marker;
            let error = decoded(&changed).unwrap_err();
            assert_eq!(error.reason(), "image_unsupported");
            assert!(error.to_string().contains(name), "{marker:#x}: {error}");
            assert_eq!(check(Source::Encoded(&changed), &DecodeLimits::default()), Err(error));
        }
    }
    let mut deep = file;
    deep[sof + 4] = 12;
    assert_eq!(decoded(&deep).unwrap_err().reason(), "image_unsupported");
}

#[test]
fn pngs_of_every_kind_are_exact() {
    let (w, h) = (33, 17);
    let n = (w * h) as usize;
    let rgb8 = smooth(w, h);
    let value = |i: usize| (i * 7 % 256) as u8;
    let check = |kind: &str, samples: &[u8], colour, depth, expected: Vec<u8>| {
        let image = decoded(&png(samples, w, h, colour, depth)).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert!(image.rgb8() == expected, "{kind}");
    };
    check("rgb", &rgb8, ColorType::Rgb, BitDepth::Eight, rgb8.clone());
    let deep: Vec<u8> = rgb8.iter().flat_map(|v| [*v, 99]).collect();
    check("rgb of 16 bits", &deep, ColorType::Rgb, BitDepth::Sixteen, rgb8.clone());
    let grey: Vec<u8> = (0..n).map(value).collect();
    let as_rgb: Vec<u8> = grey.iter().flat_map(|v| [*v; 3]).collect();
    check("grey", &grey, ColorType::Grayscale, BitDepth::Eight, as_rgb.clone());
    let opaque: Vec<u8> = grey.iter().flat_map(|v| [*v, 255]).collect();
    check("grey and alpha", &opaque, ColorType::GrayscaleAlpha, BitDepth::Eight, as_rgb);
    let clear: Vec<u8> = rgb8.chunks(3).flat_map(|p| [p[0], p[1], p[2], 0]).collect();
    check("transparent", &clear, ColorType::Rgba, BitDepth::Eight, vec![255; n * 3]);
    let half = [0, 0, 0, 128].repeat(n);
    check("half transparent", &half, ColorType::Rgba, BitDepth::Eight, vec![127; n * 3]);
    let clear = [0, 0, 0, 0, 0, 0, 0, 0].repeat(n);
    check("transparent of 16 bits", &clear, ColorType::Rgba, BitDepth::Sixteen, vec![255; n * 3]);
    let row = w.div_ceil(8) as usize;
    let second = [200, 210, 220].repeat(n);
    check("palette", &vec![0xff; row * h as usize], ColorType::Indexed, BitDepth::One, second);
    check("one bit", &vec![0xff; row * h as usize], ColorType::Grayscale, BitDepth::One, vec![255; n * 3]);
}

#[test]
fn a_palette_of_broken_entries_is_refused() {
    let mut file = png(&[0; 24 * 5], 40, 24, ColorType::Indexed, BitDepth::One);
    let plte = file.windows(4).position(|w| w == b"PLTE").unwrap();
    file[plte - 1] = 4; // of 6 bytes; the next two and the old checksum go
    file.drain(plte + 8..plte + 14);
    let mut crc = flate2::Crc::new();
    crc.update(&file[plte..plte + 8]);
    file.splice(plte + 8..plte + 8, crc.sum().to_be_bytes());
    assert_eq!(decoded(&file).unwrap_err(), DecodeError::Malformed { format: Format::Png });
}

#[test]
fn webps_of_every_kind_are_read() {
    let rgb8 = smooth(33, 17);
    assert!(decoded(&lossless_webp(&rgb8, 33, 17)).unwrap().rgb8() == rgb8);
    let lossy = decoded(LOSSY_WEBP).unwrap();
    assert_eq!((lossy.width(), lossy.height()), (32, 24));
    let alpha = decoded(LOSSY_ALPHA_WEBP).unwrap();
    assert_eq!(alpha.rgb8()[..3], [255; 3], "its corner is transparent");
    let centre = (12 * 32 + 16) * 3;
    assert!(alpha.rgb8()[centre..centre + 3].iter().any(|v| *v < 200), "its middle is not");
}

#[test]
fn animations_are_refused() {
    for file in [ANIMATED_WEBP, ANIMATED_PNG] {
        let error = decoded(file).unwrap_err();
        assert_eq!(error.reason(), "image_unsupported", "{error}");
        assert!(error.to_string().contains("animation"), "{error}");
    }
}

#[test]
fn every_truncation_is_refused() {
    for (kind, file) in corpus() {
        assert!(decoded(&file).is_ok(), "{kind}");
        for length in 0..file.len() {
            // Without the padding byte that may end a WebP file nothing is lost.
            assert!(decoded(&file[..length]).is_err(), "{kind}: {length} of {} bytes", file.len());
        }
    }
    for (kind, file) in chips() {
        let limits = DecodeLimits::default();
        assert!(decode(Source::Chip(&file), &limits).is_ok(), "{kind}");
        for length in 0..file.len() {
            assert!(
                decode(Source::Chip(&file[..length]), &limits).is_err(),
                "{kind}: {length} of {} bytes",
                file.len()
            );
        }
    }
}

/// What a cut-off upload looks like after a tool "repaired" it: decoders for viewing fill the rest with grey.
#[test]
fn a_jpeg_that_ends_early_but_properly_is_refused() {
    for (kind, file) in corpus().into_iter().filter(|(kind, _)| kind.contains("jpeg")) {
        let scan = file.windows(2).position(|w| w == [0xff, 0xda]).unwrap() + 14;
        for keep in [scan + 2, (scan + file.len()) / 2, scan + (file.len() - scan) * 3 / 4] {
            let closed = [&file[..keep], &[0xff, 0xd9]].concat();
            assert!(decoded(&closed).is_err(), "{kind}: {keep} of {} bytes", file.len());
        }
    }
}

#[test]
fn sizes_are_checked_before_anything_is_allocated() {
    let (w, h) = (40u32, 24u32);
    let rgb8 = smooth(w, h);
    for (bad_w, bad_h) in [(20_000u32, 20_000u32), (1, 1), (15, 100), (5000, 16), (3000, 3000), (0, 24)] {
        let reason = |file: &[u8]| decoded(file).unwrap_err().reason();
        let size = ["image_side", "image_area"];

        let mut file = jpeg(&rgb8, 40, 24, |_| {});
        let sof = file.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
        file[sof + 5..sof + 7].copy_from_slice(&(bad_h as u16).to_be_bytes());
        file[sof + 7..sof + 9].copy_from_slice(&(bad_w as u16).to_be_bytes());
        assert!(size.contains(&reason(&file)), "jpeg of {bad_w}x{bad_h}");

        let mut file = png(&rgb8, w, h, ColorType::Rgb, BitDepth::Eight);
        file[16..20].copy_from_slice(&bad_w.to_be_bytes());
        file[20..24].copy_from_slice(&bad_h.to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&file[12..29]);
        file[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        let expected: &[&str] = if bad_w == 0 { &["image_malformed"] } else { &size };
        assert!(expected.contains(&reason(&file)), "png of {bad_w}x{bad_h}");

        let mut file = LOSSY_WEBP.to_vec(); // RIFF header, chunk header, tag, start code, then the size
        file[26..28].copy_from_slice(&(bad_w as u16 & 0x3fff).to_le_bytes());
        file[28..30].copy_from_slice(&(bad_h as u16 & 0x3fff).to_le_bytes());
        assert!(size.contains(&reason(&file)), "webp of {bad_w}x{bad_h}");
    }
}

#[test]
fn the_header_says_how_much_room_pixels_take() {
    let limits = DecodeLimits::default();
    for (kind, file) in corpus() {
        let decoded = decoded(&file).unwrap();
        assert_eq!(most_pixel_bytes(Source::Encoded(&file), &limits), decoded.rgb8().len() as u64, "{kind}");
    }
    assert_eq!(most_pixel_bytes(Source::Encoded(b"GIF89a"), &limits), limits.max_pixels * 3, "nothing is known");
    assert_eq!(most_pixel_bytes(Source::Rgb8 { rgb8: &[0; 7], width: 9, height: 9 }, &limits), 7);
}

#[test]
fn a_webp_whose_canvas_and_picture_disagree_is_refused() {
    let mut file = LOSSY_ALPHA_WEBP.to_vec();
    let vp8 = file.windows(4).position(|w| w == b"VP8 ").unwrap();
    file[vp8 + 14..vp8 + 18].copy_from_slice(&[0xff, 0x0f, 0xff, 0x03]); // 4095 x 1023
    assert_eq!(decoded(&file).unwrap_err(), DecodeError::Malformed { format: Format::WebP });
}

#[test]
fn other_files_are_refused() {
    let reason = |file: &[u8]| decoded(file).unwrap_err().reason();
    assert_eq!(reason(b""), "image_empty");
    assert_eq!(reason(b"a face, I promise"), "image_format");
    assert_eq!(reason(b"GIF89a\x10\0\x10\0\0\0\0;"), "image_unsupported");
    assert_eq!(reason(b"BM"), "image_format");
    assert_eq!(reason(&[0xff, 0xd8, 0xff]), "image_truncated");
    assert_eq!(reason(&vec![0; (2 << 20) + 1]), "image_bytes");
}

#[test]
fn exif_orientation_turns_the_picture_upright() {
    // A block of 16 px is red at the top left of the stored picture; where does a viewer see it?
    let (w, h) = (48, 32);
    let stored: Vec<u8> =
        (0..w * h).flat_map(|i| if i % w < 16 && i / w < 16 { [250, 20, 20] } else { [20, 20, 20] }).collect();
    let corner = [
        "top left",
        "top right",
        "bottom right",
        "bottom left",
        "top left",
        "top right",
        "bottom right",
        "bottom left",
    ];
    for (tag, corner) in (1..).zip(corner) {
        let tiff = [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".as_slice(), &[tag, 0, 0]].concat();
        let in_jpeg = jpeg(&stored, 48, 32, |e| e.add_exif_metadata(&tiff).unwrap());
        let mut in_webp = Vec::new();
        let mut encoder = image_webp::WebPEncoder::new(&mut in_webp);
        encoder.set_exif_metadata(tiff.clone());
        encoder.encode(&stored, w, h, image_webp::ColorType::Rgb8).unwrap();
        let mut in_png = Vec::new();
        let mut info = ::png::Info::with_size(w, h);
        info.color_type = ColorType::Rgb;
        info.exif_metadata = Some(tiff.into());
        let encoder = ::png::Encoder::with_info(&mut in_png, info).unwrap();
        encoder.write_header().unwrap().write_image_data(&stored).unwrap();

        for (format, file) in [("jpeg", in_jpeg), ("webp", in_webp), ("png", in_png)] {
            let image = decoded(&file).unwrap();
            let (up_w, up_h) = if tag >= 5 { (h, w) } else { (w, h) };
            assert_eq!((image.width(), image.height()), (up_w, up_h), "{format} {tag}");
            let red = |x: u32, y: u32| image.rgb8()[((y * up_w + x) * 3) as usize] > 150;
            let (right, bottom) = (up_w - 8, up_h - 8);
            let seen = [
                ("top left", 8, 8),
                ("top right", right, 8),
                ("bottom left", 8, bottom),
                ("bottom right", right, bottom),
            ];
            let seen: Vec<_> = seen.iter().filter(|(_, x, y)| red(*x, *y)).map(|(name, ..)| *name).collect();
            assert_eq!(seen, [corner], "{format} {tag}");
        }
    }
}

#[test]
fn raw_pixels_have_the_length_that_their_size_says() {
    let limits = DecodeLimits::default();
    let raw = |rgb8: &[u8], width, height| decode(Source::Rgb8 { rgb8, width, height }, &limits);
    assert_eq!(raw(&[7; 16 * 20 * 3], 16, 20).unwrap().rgb8(), [7; 16 * 20 * 3]);
    assert_eq!(raw(&[7; 16 * 20 * 3 - 1], 16, 20).unwrap_err().reason(), "image_raw_length");
    assert_eq!(raw(&[7; 16 * 20 * 4], 16, 20).unwrap_err().reason(), "image_raw_length");
    assert_eq!(raw(&[], u32::MAX, u32::MAX).unwrap_err().reason(), "image_side");
    assert_eq!(raw(&[], 0, 0).unwrap_err().reason(), "image_side");
}

#[test]
fn what_is_empty_says_what_was_expected() {
    let said = |source| decode(source, &DecodeLimits::default()).unwrap_err().to_string();
    assert!(said(Source::Encoded(&[])).contains("JPEG, PNG, WebP or JPEG 2000"));
    assert!(said(Source::Chip(&[])).contains("EF.DG2"));
}

/// Headers alone never refuse what is decoded, and name its size.
#[test]
fn headers_are_checked_without_decoding() {
    let limits = DecodeLimits::default();
    let of = |source: Source<'_>| check(source, &limits);
    for (kind, file) in corpus() {
        let decoded = decoded(&file).unwrap();
        assert_eq!(of(Source::Encoded(&file)), Ok((decoded.width(), decoded.height())), "{kind}");
    }
    for (kind, file) in chips() {
        assert!(of(Source::Chip(&file)).is_ok(), "{kind}");
        assert!(of(Source::Chip(&file[..file.len() - 1])).is_err(), "{kind}");
    }
    assert_eq!(of(Source::Chip(b"no DG2")).unwrap_err().reason(), "image_truncated");
    assert_eq!(of(Source::Encoded(b"%PDF-")).unwrap_err(), DecodeError::Other { name: "a PDF" });
    assert_eq!(of(Source::Rgb8 { rgb8: &[0; 7], width: 16, height: 16 }).unwrap_err().reason(), "image_raw_length");
}

#[test]
fn nothing_prints_pixels() {
    assert_eq!(format!("{:?}", Source::Chip(&[201; 9])), "Chip(9 bytes)");
    assert_eq!(format!("{:?}", Source::Encoded(&[201; 9])), "Encoded(9 bytes)");
    assert_eq!(format!("{:?}", Source::Rgb8 { rgb8: &[201; 3], width: 1, height: 1 }), "Rgb8(1x1)");
}
