//! What a frame header and the headers of its scans say: whether such a picture is decoded right, and whether all of it is there.

use super::{DecodeError, DecodeLimits, MALFORMED, unsupported};

pub(super) struct Frame {
    pub width: u32,
    pub height: u32,
    /// Not progressive.
    pub sequential: bool,
    components: Vec<Component>,
    /// A sequential picture whose first scan has fewer components than the picture.
    parted: bool,
}

struct Component {
    id: u8,
    /// Of each coefficient, in zigzag order: the lowest bit that a scan has brought. 0 is all of it.
    lowest_bit: [u8; 64],
}

/// No scan has brought the coefficient.
const NOTHING: u8 = u8::MAX;

impl Frame {
    pub(super) fn of(marker: u8, segment: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let (width, height) = size(segment, limits)?;
        let (count, specifications) = segment.get(5..).and_then(<[u8]>::split_first).ok_or(MALFORMED)?;
        let (specifications, _) = specifications.as_chunks::<3>();
        let specifications = specifications.get(..usize::from(*count)).ok_or(MALFORMED)?;
        let factors = |[_, factors, _]: &[u8; 3]| (factors >> 4, factors & 15);
        let (luma, chroma) = specifications.split_first().ok_or(MALFORMED)?;
        let (across, down) = factors(luma);
        let is_luma_read = [across, down].iter().all(|factor| matches!(factor, 1 | 2 | 4));
        if !is_luma_read || !chroma.iter().map(factors).all(|c| is_read(across, c.0) && is_read(down, c.1)) {
            return Err(unsupported("colours of a sampling that is not read"));
        }
        let components = specifications.iter().map(|[id, ..]| Component { id: *id, lowest_bit: [NOTHING; 64] });
        Ok(Self { width, height, sequential: marker != 0xc2, components: components.collect(), parted: false })
    }

    /// Reads a scan's header: which components; first and last coefficient; the lowest bit so far (0 where there is none), and
    /// with this scan.
    pub(super) fn add_scan(&mut self, header: &[u8]) -> Result<(), DecodeError> {
        let (count, rest) = header.split_first().ok_or(MALFORMED)?;
        let (named, rest) = rest.split_at_checked(2 * usize::from(*count)).ok_or(MALFORMED)?;
        let [first, last, bits] = *rest else { return Err(MALFORMED) };
        // A sequential scan brings everything, whatever is written there.
        let (first, last, before, now) =
            if self.sequential { (0, 63, 0, 0) } else { (first, last, bits >> 4, bits & 15) };
        if first > last {
            return Err(MALFORMED);
        }
        let before = match before {
            0 => NOTHING,
            refined if refined == now + 1 => refined,
            _ => return Err(MALFORMED),
        };
        self.parted |= self.sequential && usize::from(*count) < self.components.len();
        for [id, _tables] in named.as_chunks::<2>().0 {
            let component = self.components.iter_mut().find(|c| c.id == *id).ok_or(MALFORMED)?;
            for bit in component.lowest_bit.get_mut(first.into()..=last.into()).ok_or(MALFORMED)? {
                if std::mem::replace(bit, now) != before {
                    return Err(MALFORMED);
                }
            }
        }
        Ok(())
    }

    /// After the last scan.
    pub(super) fn check_scans(&self) -> Result<(), DecodeError> {
        if self.components.iter().any(|c| c.lowest_bit != [0; 64]) {
            return Err(DecodeError::ScansMissing);
        }
        if self.parted {
            return Err(unsupported("a sequential picture in several scans"));
        }
        Ok(())
    }
}

/// Whether chroma with this factor, in one direction, is decoded right beside luma's: as many samples as luma, a half, or a quarter.
fn is_read(luma: u8, chroma: u8) -> bool {
    matches!((luma, chroma), (1, 1) | (2, 1 | 2) | (4, 1))
}

pub(super) fn size(frame: &[u8], limits: &DecodeLimits) -> Result<(u32, u32), DecodeError> {
    let [precision, h1, h0, w1, w0, components, ..] = *frame else { return Err(MALFORMED) };
    let (width, height) = (u32::from(u16::from_be_bytes([w1, w0])), u32::from(u16::from_be_bytes([h1, h0])));
    limits.check_size(width, height)?;
    match (precision, components) {
        (8, 1 | 3) => Ok((width, height)),
        (8, 4) => Err(unsupported("CMYK colours")),
        (8, _) => Err(MALFORMED),
        _ => Err(unsupported("samples of more than 8 bits")),
    }
}
