//! What the markers of a code stream say (ISO/IEC 15444-1, Annex A), from SOC to EOC: its size, and what decoding it will cost.
//!
//! A few bytes can ask for millions of small parts, or for thirty passes over every sample: so both are counted here.

use std::borrow::Cow;

use super::{DecodeError, DecodeLimits, MALFORMED, TRUNCATED, unsupported};

/// What a sample costs beside its bit planes, in bit planes.
const PLANES_OF_A_SAMPLE: u64 = 6;
const MOST_TILES: u64 = 64;
/// Of all tiles together.
const MOST_TILE_PARTS: u64 = 1024;
const MOST_LEVELS: u8 = 10;
const MOST_LAYERS: u16 = 32;
/// Precincts and code blocks of all tiles, components and sub-bands together; and the pieces of code blocks: one a layer, or one a pass
/// where passes end by themselves.
const MOST_BLOCKS: u64 = 32 << 10;
const MOST_PIECES: u64 = 256 << 10;
/// Of a code block, over 32 bit planes.
const MOST_PASSES: u64 = 94;

/// A code stream that may be decoded.
pub(super) struct CodeStream<'a> {
    pub width: u32,
    pub height: u32,
    /// 1 or 3.
    pub components: usize,
    /// Chroma has fewer samples.
    pub subsampled: bool,
    /// SOC through EOC, without what follows. Every tile-part says its length: the decoder would take EOC into one that does not.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> CodeStream<'a> {
    pub(super) fn of(bytes: &'a [u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let mut rest = Reader(bytes.strip_prefix(&[0xff, 0x4f]).ok_or(MALFORMED)?);
        if rest.marker()? != 0x51 {
            return Err(MALFORMED);
        }
        let size = Size::read(rest.segment()?, limits)?;
        let (mut styles, mut planes, mut shifts) = (Styles::default(), Planes::default(), vec![0; size.sampling.len()]);
        loop {
            let marker = rest.marker()?;
            if marker == 0x90 {
                break;
            }
            let mut segment = Reader(rest.segment()?);
            match marker {
                0x52 => styles.read_default(segment)?,
                0x53 => {
                    let own = component(&mut styles.own, segment.byte()?, &size)?;
                    *own = Some(Style::read(segment)?);
                }
                0x5c => planes.default = Some(Exponents::read(segment)?),
                0x5d => {
                    let own = component(&mut planes.own, segment.byte()?, &size)?;
                    *own = Some(Exponents::read(segment)?);
                }
                0x5e => {
                    let shift = shifts.get_mut(usize::from(segment.byte()?)).ok_or(MALFORMED)?;
                    let [0, most_shift] = *segment.0 else { return Err(MALFORMED) };
                    *shift = most_shift;
                }
                0x55 | 0x63 | 0x64 => {} // tile-part lengths, component registration, comments
                other => return Err(refusal(other)),
            }
        }
        size.check_cost(&styles, &planes, &shifts, limits.max_sample_planes)?;
        let parts = tile_parts(bytes, bytes.len() - rest.0.len(), size.tiles())?;
        let subsampled = size.sampling.iter().any(|s| *s != (1, 1));
        let mut bytes = Cow::Borrowed(bytes.get(..parts.end).ok_or(TRUNCATED)?);
        if let Some((at, length)) = parts.unsaid {
            bytes.to_mut().get_mut(at..at + 4).ok_or(MALFORMED)?.copy_from_slice(&length.to_be_bytes());
        }
        let Size { width, height, .. } = size;
        Ok(Self { width, height, components: size.sampling.len(), subsampled, bytes })
    }
}

struct TileParts {
    /// Behind EOC.
    end: usize,
    /// Where the last one should have said its length, and the length.
    unsaid: Option<(usize, u32)>,
}

/// The chain of tile-parts, `at` behind its first marker. Every tile has a part, and none has parameters of
/// its own, which would escape the checks of the main header.
fn tile_parts(bytes: &[u8], mut at: usize, tiles: u64) -> Result<TileParts, DecodeError> {
    let (mut seen, mut count, mut unsaid) = (0u64, 0, None);
    loop {
        count += 1;
        if count > MOST_TILE_PARTS {
            return Err(DecodeError::Parts { what: "tile-parts", most: MOST_TILE_PARTS });
        }
        let mut rest = Reader(bytes.get(at..).ok_or(TRUNCATED)?);
        let [i1, i0, l3, l2, l1, l0, _, _] = *rest.segment()? else { return Err(MALFORMED) };
        let index = u64::from(u16::from_be_bytes([i1, i0]));
        if index >= tiles {
            return Err(MALFORMED);
        }
        seen |= 1 << index; // at most 64
        let (start, length) = (at - 2, u32::from_be_bytes([l3, l2, l1, l0]) as usize);
        loop {
            match rest.marker()? {
                0x93 => break,
                0x58 | 0x64 => drop(rest.segment()?), // packet lengths, comments
                0x52 | 0x53 | 0x5c | 0x5d | 0x5e => return Err(unsupported("a tile with parameters of its own")),
                other => return Err(refusal(other)),
            }
        }
        let data = bytes.len() - rest.0.len();
        let end = match length {
            // The last one, up to EOC. Packets hold no such bytes: none above 0x8f comes behind 0xff but in markers of their own.
            0 => {
                let end = data + rest.0.windows(2).position(|w| w == [0xff, 0xd9]).ok_or(TRUNCATED)?;
                unsaid = Some((start + 6, (end - start) as u32)); // a file is shorter than 4 GiB
                end
            }
            _ => start.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(TRUNCATED)?,
        };
        if end < data {
            return Err(MALFORMED);
        }
        at = end + 2;
        match bytes.get(end..at).ok_or(TRUNCATED)? {
            [0xff, 0xd9] if seen.count_ones() as u64 == tiles => return Ok(TileParts { end: at, unsaid }),
            [0xff, 0xd9] => return Err(TRUNCATED),
            [0xff, 0x90] => {}
            _ => return Err(MALFORMED),
        }
    }
}

fn refusal(marker: u8) -> DecodeError {
    match marker {
        0x50 | 0x59 => unsupported("a high-throughput code stream"),
        0x5f => unsupported("a change of progression"),
        0x57 | 0x60 | 0x61 => unsupported("packed packet headers"),
        _ => MALFORMED,
    }
}

/// What a segment says of one component, in place of the default.
fn component<'a, T>(own: &'a mut Vec<Option<T>>, index: u8, size: &Size) -> Result<&'a mut Option<T>, DecodeError> {
    own.resize_with(size.sampling.len(), || None);
    own.get_mut(usize::from(index)).ok_or(MALFORMED)
}

/// SIZ.
struct Size {
    width: u32,
    height: u32,
    tile: (u32, u32),
    /// Of each component: pixels to a sample, across and down.
    sampling: Vec<(u32, u32)>,
}

impl Size {
    fn read(segment: &[u8], limits: &DecodeLimits) -> Result<Self, DecodeError> {
        let (capabilities, rest) = segment.split_first_chunk::<2>().ok_or(MALFORMED)?;
        let (numbers, rest) = rest.split_first_chunk::<32>().ok_or(MALFORMED)?;
        let numbers = numbers.as_chunks::<4>().0.iter().map(|n| u32::from_be_bytes(*n)).collect::<Vec<_>>();
        let [width, height, x, y, tile_width, tile_height, tile_x, tile_y] = *numbers else { return Err(MALFORMED) };
        let (count, components) = rest.split_first_chunk::<2>().ok_or(MALFORMED)?;
        let (components, []) = components.as_chunks::<3>() else { return Err(MALFORMED) };
        if usize::from(u16::from_be_bytes(*count)) != components.len() || tile_width == 0 || tile_height == 0 {
            return Err(MALFORMED);
        }
        if capabilities[0] & 0x40 != 0 {
            return Err(unsupported("a high-throughput code stream"));
        }
        if [x, y, tile_x, tile_y].iter().any(|offset| *offset != 0) {
            return Err(unsupported("a picture away from its origin"));
        }
        limits.check_size(width, height)?;
        if !matches!(components.len(), 1 | 3) {
            return Err(unsupported("a number of channels other than 1 and 3"));
        }
        let mut sampling = Vec::with_capacity(components.len());
        for [depth, across, down] in components {
            match depth {
                0..=7 => {}
                8..=37 => return Err(unsupported("samples of more than 8 bits")),
                _ => return Err(unsupported("samples with a sign")),
            }
            match (sampling.len(), across, down) {
                (0, 1, 1) | (1.., 1..=2, 1..=2) => sampling.push((u32::from(*across), u32::from(*down))),
                _ => return Err(unsupported("channels of another sampling than 4:4:4, 4:2:2, 4:4:0 or 4:2:0")),
            }
        }
        if sampling.get(1) != sampling.get(2) {
            return Err(unsupported("chroma channels of two sizes"));
        }
        let size = Self { width, height, tile: (tile_width, tile_height), sampling };
        if size.tiles() > MOST_TILES {
            return Err(DecodeError::Parts { what: "tiles", most: MOST_TILES });
        }
        Ok(size)
    }

    fn tiles(&self) -> u64 {
        u64::from(self.width.div_ceil(self.tile.0)) * u64::from(self.height.div_ceil(self.tile.1))
    }

    /// Counts precincts, code blocks and bit planes, all tiles taken for whole ones: an upper bound.
    fn check_cost(&self, styles: &Styles, planes: &Planes, shifts: &[u8], most_planes: u64) -> Result<(), DecodeError> {
        let (mut blocks, mut pieces, mut sample_planes) = (0u64, 0u64, 0u64);
        let cut = u64::from(self.tiles() > 1); // a tile may begin within a precinct or a block
        for (index, ((across, down), shift)) in self.sampling.iter().zip(shifts).enumerate() {
            let style = own_or(&styles.own, index, styles.default.as_ref())?;
            let exponents = own_or(&planes.own, index, planes.default.as_ref())?;
            let width = u64::from(self.tile.0.min(self.width).div_ceil(*across));
            let height = u64::from(self.tile.1.min(self.height).div_ceil(*down));
            for resolution in 0..=style.levels {
                let halved = |side: u64, times: u8| side.div_ceil(1 << times);
                let (precinct_x, precinct_y) = style.precinct(resolution);
                let from_top = style.levels - resolution;
                let (w, h) = (halved(width, from_top), halved(height, from_top));
                let precincts = (halved(w, precinct_x) + cut) * (halved(h, precinct_y) + cut);
                // Above the lowest, a resolution is three sub-bands of half its size.
                let (bands, split) = if resolution == 0 { (1, 0) } else { (3, 1) };
                let block = |exponent: u8, precinct: u8| exponent.min(precinct.saturating_sub(split));
                let (band_w, band_h) = (halved(w, split), halved(h, split));
                let in_band = (halved(band_w, block(style.block.0, precinct_x)) + cut)
                    * (halved(band_h, block(style.block.1, precinct_y)) + cut);
                blocks += bands * (precincts + in_band);
                let in_block = if style.ends_passes { MOST_PASSES } else { 0 };
                pieces += bands * in_band * in_block.max(u64::from(styles.layers));
                for band in 0..bands {
                    let most = exponents.bit_planes(resolution, band)? + u64::from(*shift) + PLANES_OF_A_SAMPLE;
                    sample_planes += band_w * band_h * most;
                }
            }
        }
        for (what, count, most) in [
            ("code blocks", blocks, MOST_BLOCKS),
            ("pieces of code blocks", pieces, MOST_PIECES),
            ("bits in its samples; a colour picture of 640x850 pixels has fewer", sample_planes, most_planes),
        ] {
            if count * self.tiles() > most {
                return Err(DecodeError::Parts { what, most });
            }
        }
        Ok(())
    }
}

fn own_or<'a, T>(own: &'a [Option<T>], index: usize, default: Option<&'a T>) -> Result<&'a T, DecodeError> {
    own.get(index).and_then(Option::as_ref).or(default).ok_or(MALFORMED)
}

/// COD, and COC by component.
#[derive(Default)]
struct Styles {
    layers: u16,
    default: Option<Style>,
    own: Vec<Option<Style>>,
}

impl Styles {
    fn read_default(&mut self, mut segment: Reader<'_>) -> Result<(), DecodeError> {
        let [flags, _progression, l1, l0, _transform] = segment.take()?;
        self.layers = u16::from_be_bytes([l1, l0]);
        if self.layers > MOST_LAYERS {
            return Err(DecodeError::Parts { what: "quality layers", most: u64::from(MOST_LAYERS) });
        }
        self.default = Some(Style::behind(flags, segment)?);
        Ok(())
    }
}

struct Style {
    levels: u8,
    /// Exponents of a code block's sides.
    block: (u8, u8),
    /// Passes of a code block, or some of them, have their own lengths.
    ends_passes: bool,
    /// Exponents of a precinct's sides, a byte a resolution; empty where there is one precinct of each.
    precincts: Vec<u8>,
}

impl Style {
    fn read(mut segment: Reader<'_>) -> Result<Self, DecodeError> {
        let flags = segment.byte()?;
        Self::behind(flags, segment)
    }

    fn behind(flags: u8, mut segment: Reader<'_>) -> Result<Self, DecodeError> {
        let [levels, across, down, style, _transform] = segment.take()?;
        if levels > MOST_LEVELS {
            return Err(DecodeError::Parts { what: "decomposition levels", most: u64::from(MOST_LEVELS) });
        }
        if across > 8 || down > 8 || across + down > 8 {
            return Err(MALFORMED);
        }
        let precincts = if flags & 1 == 0 { Vec::new() } else { segment.0.to_vec() };
        if flags & 1 != 0 && precincts.len() != usize::from(levels) + 1 {
            return Err(MALFORMED);
        }
        Ok(Self { levels, block: (across + 2, down + 2), ends_passes: style & 0b101 != 0, precincts })
    }

    fn precinct(&self, resolution: u8) -> (u8, u8) {
        self.precincts.get(usize::from(resolution)).map_or((15, 15), |sides| (sides & 15, sides >> 4))
    }
}

/// QCD, and QCC by component.
#[derive(Default)]
struct Planes {
    default: Option<Exponents>,
    own: Vec<Option<Exponents>>,
}

/// The exponents of the quantiser's steps, which with the guard bits say how many bit planes a sub-band has.
struct Exponents {
    guard: u8,
    /// One for all sub-bands, or one each.
    steps: Vec<u8>,
    derived: bool,
}

impl Exponents {
    fn read(mut segment: Reader<'_>) -> Result<Self, DecodeError> {
        let style = segment.byte()?;
        let steps: Vec<u8> = match (style & 31, segment.0) {
            (0, steps) => steps.iter().map(|step| step >> 3).collect(),
            (1, [high, _]) => vec![high >> 3],
            (2, steps) => steps.as_chunks::<2>().0.iter().map(|[high, _]| high >> 3).collect(),
            _ => return Err(MALFORMED),
        };
        Ok(Self { guard: style >> 5, steps, derived: style & 31 == 1 })
    }

    /// E-2; a derived step is the greatest at the lowest resolution.
    fn bit_planes(&self, resolution: u8, band: u64) -> Result<u64, DecodeError> {
        let place =
            if self.derived || resolution == 0 { 0 } else { 1 + (usize::from(resolution) - 1) * 3 + band as usize };
        let step = *self.steps.get(place).ok_or(MALFORMED)?;
        Ok((u64::from(self.guard) + u64::from(step)).saturating_sub(1))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn marker(&mut self) -> Result<u8, DecodeError> {
        match self.take::<2>()? {
            [0xff, marker] => Ok(marker),
            _ => Err(MALFORMED),
        }
    }

    /// The payload of the segment behind its marker.
    fn segment(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::from(u16::from_be_bytes(self.take()?)).checked_sub(2).ok_or(MALFORMED)?;
        let (payload, rest) = self.0.split_at_checked(length).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(payload)
    }
}
