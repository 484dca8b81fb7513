use jpeg_encoder::{Encoder as JpegEncoder, SamplingFactor};

use super::super::{
    DecodeError, Format,
    tests::{decoded, jpeg},
};

/// A picture in which a block in the wrong place shows.
fn busy(width: u32, height: u32) -> Vec<u8> {
    let pixel = |x: u32, y: u32| [(x * 7 + y) % 128 + 30, (y * 5) % 128 + 60, ((x ^ y) * 3) % 128 + 20];
    (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y).map(|v| v as u8))).collect()
}

const SAMPLINGS: [SamplingFactor; 8] = [
    SamplingFactor::R_4_4_4,
    SamplingFactor::R_4_4_0,
    SamplingFactor::R_4_4_1,
    SamplingFactor::R_4_2_2,
    SamplingFactor::R_4_2_1,
    SamplingFactor::R_4_2_0,
    SamplingFactor::R_4_1_1,
    SamplingFactor::R_4_1_0,
];

/// The same coefficients, in scans by spectral selection, one after another, and in one scan: one picture, or a refusal by name.
#[test]
fn colours_in_scans_of_their_own_are_right_or_refused() {
    let (mut right, mut refused) = (0, 0);
    for (width, height) in [(67, 45), (64, 48), (33, 17), (16, 40), (100, 31), (16, 16)] {
        let rgb8 = busy(width, height);
        for sampling in SAMPLINGS {
            let of = |set: fn(&mut JpegEncoder<&mut Vec<u8>>)| {
                jpeg(&rgb8, width as u16, height as u16, |e| {
                    e.set_sampling_factor(sampling);
                    set(e);
                })
            };
            // The encoder writes a progressive file for every sampling; libjpeg gives these pixels for it, up to rounding.
            let expected = decoded(&of(|e| e.set_progressive(true))).unwrap();
            for file in [of(|_| {}), of(|e| e.set_optimized_huffman_tables(true))] {
                for order in orders(&file) {
                    match decoded(&order) {
                        Ok(pixels) => {
                            assert!(pixels == expected, "{sampling:?} {width}x{height}");
                            right += 1;
                        }
                        Err(error) => {
                            let text = error.to_string();
                            assert!(text.contains("scans of their own"), "{sampling:?} {width}x{height}: {text}");
                            refused += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(right > 50 && refused > 50, "{right} {refused}");
}

/// A file with its scans in every order.
fn orders(file: &[u8]) -> Vec<Vec<u8>> {
    let starts: Vec<usize> = (0..file.len() - 1).filter(|i| file[*i..*i + 2] == [0xff, 0xda]).collect();
    let [first, second, third] = starts[..] else { return vec![file.to_vec()] };
    let (head, end) = (&file[..first], file.len() - 2);
    let scans = [&file[first..second], &file[second..third], &file[third..end]];
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    orders.map(|order| [head, &order.map(|i| scans[i]).concat(), &[0xff, 0xd9]].concat()).to_vec()
}

/// A file's segments of one kind, cut out.
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

#[test]
fn a_frame_of_motion_jpeg_gets_the_standard_tables() {
    let rgb8 = busy(67, 45);
    for sampling in [SamplingFactor::R_4_4_4, SamplingFactor::R_4_2_2, SamplingFactor::R_4_2_0] {
        let whole = jpeg(&rgb8, 67, 45, |e| e.set_sampling_factor(sampling));
        let frame = without(&whole, 0xc4);
        assert!(frame.len() < whole.len() - 400, "there were tables");
        assert!(decoded(&frame).unwrap() == decoded(&whole).unwrap());
        // Without APP0, which says JFIF or AVI1.
        assert!(decoded(&without(&frame, 0xe0)).unwrap() == decoded(&whole).unwrap());
    }
    // Progressive scans have no standard tables.
    let progressive = without(&jpeg(&rgb8, 67, 45, |e| e.set_progressive(true)), 0xc4);
    assert_eq!(decoded(&progressive), Err(DecodeError::Malformed { format: Format::Jpeg }));
}
