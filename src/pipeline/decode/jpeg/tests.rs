use jpeg_encoder::{Encoder as JpegEncoder, SamplingFactor};

use super::{
    super::{
        DecodeError, DecodeLimits, Format, Source, decode,
        tests::{REFINED_JPEG, decoded, jpeg, mean_difference, smooth},
    },
    encoder::{Picture, Scan},
    tables::{TABLES, segment},
};

const Y: &[usize] = &[0];
const CB: &[usize] = &[1];
const CR: &[usize] = &[2];
const CHROMA: &[usize] = &[1, 2];
const ALL: &[usize] = &[0, 1, 2];

const fn dc(components: &[usize], bits: (u8, u8)) -> Scan<'_> {
    Scan { components, spectrum: (0, 0), bits }
}

const fn ac(components: &[usize]) -> Scan<'_> {
    Scan { components, spectrum: (1, 63), bits: (0, 0) }
}

/// The scans of sequential pictures, of which the decoder gives the first alone right.
fn sequential() -> Vec<Vec<Scan<'static>>> {
    let orders: [&[&[usize]]; 7] =
        [&[ALL], &[Y, CB, CR], &[CR, CB, Y], &[CB, Y, CR], &[Y, CHROMA], &[CHROMA, Y], &[&[0, 1], CR]];
    orders.map(|order| order.iter().map(|components| Scan::whole(components)).collect()).to_vec()
}

fn progressive() -> Vec<Vec<Scan<'static>>> {
    vec![
        vec![dc(ALL, (0, 0)), ac(Y), ac(CB), ac(CR)],
        vec![dc(Y, (0, 0)), dc(CR, (0, 0)), ac(CR), dc(CB, (0, 0)), ac(CB), ac(Y)],
        vec![dc(ALL, (0, 1)), ac(Y), ac(CB), ac(CR), dc(ALL, (1, 0))],
        vec![dc(CHROMA, (0, 0)), dc(Y, (0, 1)), ac(Y), dc(Y, (1, 0)), ac(CB), ac(CR)],
    ]
}

/// Ramps across and down: a block in the wrong place shows.
fn ramp(component: usize, x: f64, y: f64) -> f64 {
    [60.0 + 0.9 * x + 1.1 * y, 90.0 + 0.7 * x - 0.3 * y, 100.0 - 0.2 * x + 0.9 * y][component]
}

/// Few bits below: the next scan's marker stands close behind.
fn flat_below(component: usize, _x: f64, y: f64) -> f64 {
    let y = y.min(24.0);
    [60.0 + 2.0 * y, 90.0 + 1.5 * y, 150.0 - 1.5 * y][component]
}

/// The most by which a value of the decoded picture is off.
fn most_off(picture: &Picture, rgb8: &[u8]) -> u8 {
    let pixel = |at: usize| {
        let (x, y) = ((at % picture.width) as f64, (at / picture.width) as f64);
        let [luma, cb, cr] =
            [0, 1, 2].map(|i| if i < picture.sampling.len() { (picture.value)(i, x, y) } else { 128.0 });
        let (cb, cr) = (cb - 128.0, cr - 128.0);
        [luma + 1.402 * cr, luma - 0.344_136 * cb - 0.714_136 * cr, luma + 1.772 * cb].map(|v| v.round() as u8)
    };
    let expected = (0..picture.width * picture.height).flat_map(pixel);
    assert_eq!(rgb8.len(), picture.width * picture.height * 3);
    rgb8.iter().zip(expected).map(|(a, b)| a.abs_diff(b)).max().unwrap()
}

/// Pictures of this sampling in these scans: right, or refused in these words.
fn is_right(sampling: &[(usize, usize)], progressive: bool, scans: &[Scan]) -> Result<(), String> {
    let mut answers = Vec::new();
    for (value, (width, height), restart) in [
        (ramp as fn(usize, f64, f64) -> f64, (67, 45), 0),
        (ramp, (67, 45), 7),
        (flat_below, (16, 40), 0),
        (flat_below, (16, 90), 3),
        (ramp, (33, 50), 1),
    ] {
        let picture = Picture { width, height, sampling: sampling.to_vec(), restart, progressive, value };
        answers.push(match decoded(&picture.encoded(scans)) {
            Ok(pixels) => {
                let off = most_off(&picture, pixels.rgb8());
                assert!(off <= 8, "{sampling:?} {width}x{height}: off by {off}");
                Ok(())
            }
            Err(error) => {
                assert_eq!(error.reason(), "image_unsupported", "{sampling:?} {width}x{height}: {error}");
                Err(error.to_string())
            }
        });
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{sampling:?}: {answers:?}");
    answers.remove(0)
}

fn factors() -> impl Iterator<Item = (usize, usize)> + Clone {
    (1..=4).flat_map(|across| (1..=4).map(move |down| (across, down)))
}

/// A scan of several components holds ten blocks at most (ITU-T T.81, B.2.3).
fn is_legal(sampling: &[(usize, usize)], scans: &[Scan]) -> bool {
    let blocks = |scan: &Scan| scan.components.iter().map(|i| sampling[*i].0 * sampling[*i].1).sum::<usize>();
    scans.iter().all(|scan| scan.components.len() == 1 || blocks(scan) <= 10)
}

#[test]
fn every_sampling_is_right_or_refused_by_name() {
    let mut read = Vec::new();
    for (luma, chroma) in factors().flat_map(|luma| factors().map(move |chroma| (luma, chroma))) {
        let sampling = [luma, chroma, chroma];
        for (progressive, scans) in [(false, sequential()), (true, progressive())] {
            for scans in scans.iter().filter(|scans| is_legal(&sampling, scans)) {
                match is_right(&sampling, progressive, scans) {
                    Ok(()) => read.push((luma, chroma)),
                    Err(text) if !progressive && scans.len() > 1 && text.contains("in several scans") => {}
                    Err(text) => assert!(text.contains("of a sampling that is not read"), "{sampling:?}: {text}"),
                }
            }
        }
    }
    read.dedup();
    let expected = [
        ((1, 1), vec![(1, 1)]),
        ((1, 2), vec![(1, 1), (1, 2)]),
        ((1, 4), vec![(1, 1)]),
        ((2, 1), vec![(1, 1), (2, 1)]),
        ((2, 2), vec![(1, 1), (1, 2), (2, 1), (2, 2)]),
        ((2, 4), vec![(1, 1), (2, 1)]),
        ((4, 1), vec![(1, 1)]),
        ((4, 2), vec![(1, 1), (1, 2)]),
        ((4, 4), vec![(1, 1)]),
    ];
    let expected: Vec<_> = expected.iter().flat_map(|(l, all)| all.iter().map(move |c| (*l, *c))).collect();
    assert_eq!(read, expected);
}

#[test]
fn chroma_of_two_samplings_is_right_or_refused_by_name() {
    let mut right = 0;
    for (luma, cb, cr) in factors().flat_map(|l| factors().flat_map(move |b| factors().map(move |r| (l, b, r)))) {
        let sampling = [luma, cb, cr];
        if cb == cr || [luma, cb, cr].iter().any(|(across, down)| [across, down].contains(&&3)) {
            continue;
        }
        for (progressive, scans) in [(false, &sequential()[0]), (true, &progressive()[0])] {
            if is_legal(&sampling, scans) {
                right += usize::from(is_right(&sampling, progressive, scans).is_ok());
            }
        }
    }
    assert!(right > 20, "{right}");
}

#[test]
fn grey_is_right_whatever_its_sampling() {
    for sampling in factors() {
        for (progressive, scans) in [(false, vec![Scan::whole(Y)]), (true, vec![dc(Y, (0, 1)), ac(Y), dc(Y, (1, 0))])] {
            match is_right(&[sampling], progressive, &scans) {
                Ok(()) => assert!(sampling.0 != 3 && sampling.1 != 3),
                Err(text) => assert!([sampling.0, sampling.1].contains(&3) && text.contains("sampling"), "{text}"),
            }
        }
    }
}

/// A file's segments of one kind, cut out: those before the first scan.
fn without(file: &[u8], marker: u8) -> Vec<u8> {
    let (mut out, mut at) = (file[..2].to_vec(), 2);
    while file[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
        if file[at + 1] != marker {
            out.extend_from_slice(&file[at..end]);
        }
        at = end;
    }
    [&out, &file[at..]].concat()
}

/// A file without its scan of this number.
fn without_scan(file: &[u8], number: usize) -> Vec<u8> {
    let starts: Vec<usize> = (0..file.len() - 1).filter(|i| file[*i..*i + 2] == [0xff, 0xda]).collect();
    let entropy_coded = &file[starts[number] + 2..];
    let is_marker = |w: &[u8]| w[0] == 0xff && !matches!(w[1], 0 | 0xd0..=0xd7);
    let end = starts[number] + 2 + entropy_coded.windows(2).position(is_marker).unwrap();
    [&file[..starts[number]], &file[end..]].concat()
}

#[test]
fn a_file_that_lacks_a_scan_is_refused() {
    let value = ramp;
    for (progressive, all) in [(false, sequential()), (true, progressive())] {
        for scans in all.iter().filter(|scans| scans.len() > 1) {
            let sampling = vec![(2, 2), (1, 1), (1, 1)];
            let picture = Picture { width: 67, height: 45, sampling, restart: 0, progressive, value };
            for missing in 0..scans.len() {
                let mut rest = scans.clone();
                rest.remove(missing);
                let error = decoded(&picture.encoded(&rest)).unwrap_err();
                // A refinement of what never came is refused where it stands.
                let refines = rest.iter().any(|scan| scan.bits.0 > 0) && scans[missing].bits == (0, 1);
                let expected =
                    if refines { DecodeError::Malformed { format: Format::Jpeg } } else { DecodeError::ScansMissing };
                assert_eq!(error, expected, "{missing} of {} scans", scans.len());
            }
        }
    }
    assert_eq!(DecodeError::ScansMissing.reason(), "image_truncated");
}

#[test]
fn a_refined_picture_needs_every_scan() {
    let pixels = decoded(REFINED_JPEG).unwrap();
    assert!(mean_difference(pixels.rgb8(), &smooth(40, 24)) < 4.0);
    for missing in 0..10 {
        let error = decoded(&without_scan(REFINED_JPEG, missing)).unwrap_err();
        assert!(["image_truncated", "image_malformed"].contains(&error.reason()), "{missing}: {error}");
    }
    for last in 1..10 {
        let first = (last..10).rev().fold(REFINED_JPEG.to_vec(), |file, number| without_scan(&file, number));
        assert_eq!(decoded(&first), Err(DecodeError::ScansMissing), "the first {last} scans");
    }
}

#[test]
fn a_scan_that_comes_twice_or_goes_backwards_is_refused() {
    for (progressive, scans) in [(false, &sequential()[0]), (true, &progressive()[2])] {
        let sampling = vec![(1, 1); 3];
        let picture = Picture { width: 33, height: 17, sampling, restart: 0, progressive, value: ramp };
        assert!(decoded(&picture.encoded(scans)).is_ok());
        let backwards = Scan { components: Y, spectrum: (5, 4), bits: (0, 0) };
        for more in scans.iter().chain([&backwards]) {
            let twice = [&scans[..], &[*more]].concat();
            assert_eq!(decoded(&picture.encoded(&twice)), Err(DecodeError::Malformed { format: Format::Jpeg }));
        }
    }
}

#[test]
fn a_jpeg_of_many_scans_is_refused() {
    let limits = DecodeLimits { max_scans: 9, ..DecodeLimits::default() };
    let file = jpeg(&smooth(32, 32), 32, 32, |e| e.set_progressive_scans(6));
    assert_eq!(decode(Source::Encoded(&file), &limits).unwrap_err(), DecodeError::Scans { most: 9 });
    assert!(decoded(&file).is_ok());
}

#[test]
fn a_frame_of_motion_jpeg_gets_the_standard_tables_that_it_lacks() {
    let rgb8 = smooth(67, 45);
    for sampling in [SamplingFactor::R_4_4_4, SamplingFactor::R_4_2_2, SamplingFactor::R_4_2_0] {
        let whole = jpeg(&rgb8, 67, 45, |e| e.set_sampling_factor(sampling));
        let frame = without(&whole, 0xc4);
        assert!(frame.len() < whole.len() - 400, "there were tables");
        // Some, or none.
        for some in 0_usize..16 {
            let kept: Vec<_> = (0..4).filter(|i| some >> i & 1 == 1).map(|i| TABLES[i]).collect();
            let with_some = [&frame[..2], &segment(&kept), &frame[2..]].concat();
            assert!(decoded(&with_some).unwrap() == decoded(&whole).unwrap(), "tables {some:04b}");
        }
        // Without APP0, which says JFIF or AVI1.
        assert!(decoded(&without(&frame, 0xe0)).unwrap() == decoded(&whole).unwrap());
    }
    // Progressive scans have no standard tables.
    let progressive = without(&jpeg(&rgb8, 67, 45, |e| JpegEncoder::set_progressive(e, true)), 0xc4);
    assert_eq!(decoded(&progressive), Err(DecodeError::Malformed { format: Format::Jpeg }));
}
