//! EXIF orientation: read the one tag, turn the pixels.

use zeroize::Zeroizing;

/// EXIF tag 0x0112, 1 to 8: how the stored rows and columns lie on the upright image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orientation(u8);

impl Orientation {
    pub(super) const UPRIGHT: Self = Self(1);

    const TAG: u16 = 0x0112;
    // TIFF's types of whole numbers, without and with a sign. The standard says SHORT; some writers write others.
    const BYTES: [u16; 2] = [1, 6];
    const SHORTS: [u16; 2] = [3, 8];
    const LONGS: [u16; 2] = [4, 9];

    /// From a TIFF block (what follows `Exif\0\0` in JPEG). Upright where the tag is absent or makes no sense: viewers do so too.
    pub(super) fn from_tiff(tiff: &[u8]) -> Self {
        Self::find(tiff).filter(|o| (1..=8).contains(&o.0)).unwrap_or(Self::UPRIGHT)
    }

    fn find(tiff: &[u8]) -> Option<Self> {
        let little = match tiff.first_chunk()? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        let u16_at = |at: usize| {
            let two = *tiff.get(at..)?.first_chunk()?;
            Some(if little { u16::from_le_bytes(two) } else { u16::from_be_bytes(two) })
        };
        let u32_at = |at: usize| {
            let four = *tiff.get(at..)?.first_chunk()?;
            Some(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
        };
        let directory = usize::try_from(u32_at(4)?).ok()?;
        let entries = usize::from(u16_at(directory)?);
        (0..entries).find_map(|i| {
            let entry = directory + 2 + 12 * i;
            let is_one = u16_at(entry)? == Self::TAG && u32_at(entry + 4)? == 1;
            // Less than 0 is more than 8 here.
            let value = match u16_at(entry + 2)? {
                kind if Self::BYTES.contains(&kind) => u32::from(*tiff.get(entry + 8)?),
                kind if Self::SHORTS.contains(&kind) => u32::from(u16_at(entry + 8)?),
                kind if Self::LONGS.contains(&kind) => u32_at(entry + 8)?,
                _ => return None,
            };
            is_one.then(|| u8::try_from(value).ok().map(Self))?
        })
    }

    /// `rgb8` is `height * width * 3` bytes as stored; gives width, height and bytes of the upright image.
    pub(super) fn upright(self, width: u32, height: u32, rgb8: Vec<u8>) -> (u32, u32, Vec<u8>) {
        // Where upright pixel (x, y) lies in the stored image.
        let (w, h) = (width as usize, height as usize);
        let stored: fn(usize, usize, usize, usize) -> (usize, usize) = match self.0 {
            2 => |x, y, w, _| (w - 1 - x, y),
            3 => |x, y, w, h| (w - 1 - x, h - 1 - y),
            4 => |x, y, _, h| (x, h - 1 - y),
            5 => |x, y, _, _| (y, x),
            6 => |x, y, _, h| (y, h - 1 - x),
            7 => |x, y, w, h| (w - 1 - y, h - 1 - x),
            8 => |x, y, w, _| (w - 1 - y, x),
            _ => return (width, height, rgb8),
        };
        let (up_w, up_h) = if self.0 >= 5 { (h, w) } else { (w, h) };
        let rgb8 = Zeroizing::new(rgb8);
        let mut out = Vec::with_capacity(rgb8.len());
        for y in 0..up_h {
            for x in 0..up_w {
                let (sx, sy) = stored(x, y, w, h);
                let at = (sy * w + sx) * 3;
                out.extend_from_slice(rgb8.get(at..at + 3).unwrap_or(&[0; 3]));
            }
        }
        if self.0 >= 5 { (height, width, out) } else { (width, height, out) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiff(little: bool, orientation: u16) -> Vec<u8> {
        let two = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let four = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let mut t = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        t.extend(four(8));
        t.extend(two(2)); // entries
        for (tag, value) in [(0x0100, 640), (0x0112, orientation)] {
            t.extend([two(tag), two(3)].concat());
            t.extend(four(1));
            t.extend([two(value), two(0)].concat());
        }
        t
    }

    #[test]
    fn the_tag_is_found_in_both_byte_orders() {
        for little in [true, false] {
            for value in 1..=8 {
                assert_eq!(Orientation::from_tiff(&tiff(little, value)), Orientation(value as u8));
            }
            for nonsense in [0, 9, 256, 65535] {
                assert_eq!(Orientation::from_tiff(&tiff(little, nonsense)), Orientation::UPRIGHT);
            }
        }
    }

    /// The second entry with another type, count and value.
    fn entry(little: bool, kind: u16, count: u32, value: &[u8]) -> Orientation {
        let mut block = tiff(little, 1);
        block[24..26].copy_from_slice(&if little { kind.to_le_bytes() } else { kind.to_be_bytes() });
        block[26..30].copy_from_slice(&if little { count.to_le_bytes() } else { count.to_be_bytes() });
        block[30..34].fill(0);
        block[30..30 + value.len()].copy_from_slice(value);
        Orientation::from_tiff(&block)
    }

    #[test]
    fn the_tag_is_read_in_every_type_of_whole_numbers() {
        for little in [true, false] {
            let of = |kind: u16, count: u32, value: u32| {
                let wide = if little { value.to_le_bytes() } else { value.to_be_bytes() };
                let size = match kind {
                    1 | 6 => 1,
                    3 | 8 => 2,
                    _ => 4,
                };
                entry(little, kind, count, if little { &wide[..size] } else { &wide[4 - size..] })
            };
            for kind in [1, 3, 4, 6, 8, 9] {
                for value in 1..=8 {
                    assert_eq!(of(kind, 1, value), Orientation(value as u8), "type {kind}");
                    for count in [0, 2, u32::MAX] {
                        assert_eq!(of(kind, count, value), Orientation::UPRIGHT, "type {kind}, {count} values");
                    }
                }
                for nonsense in [0, 9, 255, u32::MAX] {
                    assert_eq!(of(kind, 1, nonsense), Orientation::UPRIGHT, "type {kind}");
                }
            }
            assert_eq!(of(4, 1, 6 << 16), Orientation::UPRIGHT);
            // Text, fractions, bytes of no type, floating point.
            for kind in [2, 5, 7, 10, 11, 12] {
                assert_eq!(of(kind, 1, 6), Orientation::UPRIGHT, "type {kind}");
            }
        }
    }

    #[test]
    fn a_damaged_block_is_upright() {
        let whole = tiff(true, 6);
        for length in 0..whole.len() - 4 {
            assert_eq!(Orientation::from_tiff(&whole[..length]), Orientation::UPRIGHT, "{length} bytes");
        }
        let mut far = whole;
        far[4..8].fill(0xff);
        assert_eq!(Orientation::from_tiff(&far), Orientation::UPRIGHT);
    }

    /// 3x2 pixels named a to f, as a viewer shows them.
    #[test]
    fn each_orientation_turns_as_viewers_do() {
        let stored: Vec<u8> = b"abcdef".iter().flat_map(|p| [*p; 3]).collect();
        let shown = [
            (1, (3, 2), "abcdef"),
            (2, (3, 2), "cbafed"),
            (3, (3, 2), "fedcba"),
            (4, (3, 2), "defabc"),
            (5, (2, 3), "adbecf"),
            (6, (2, 3), "daebfc"),
            (7, (2, 3), "fcebda"),
            (8, (2, 3), "cfbead"),
        ];
        for (tag, size, expected) in shown {
            let (width, height, rgb8) = Orientation(tag).upright(3, 2, stored.clone());
            let names: String = rgb8.chunks(3).map(|p| p[0] as char).collect();
            assert_eq!(((width, height), names.as_str()), (size, expected), "orientation {tag}");
        }
    }
}
