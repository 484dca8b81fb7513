//! A small encoder for tests: any sampling, and any order of scans, which the encoders at hand do not write.

use super::tables::{TABLES, standard};

/// Three components, each a plane of its own.
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// Factors of each component, across and down.
    pub sampling: Vec<(usize, usize)>,
    /// MCUs between two restarts, or 0.
    pub restart: u16,
    pub progressive: bool,
    /// A component's value at a pixel.
    pub value: fn(component: usize, x: f64, y: f64) -> f64,
}

/// A scan's header.
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    pub components: &'a [usize],
    /// First and last coefficient.
    pub spectrum: (u8, u8),
    /// Lowest bit before, or 0; lowest bit of this scan.
    pub bits: (u8, u8),
}

impl<'a> Scan<'a> {
    pub const fn whole(components: &'a [usize]) -> Self {
        Self { components, spectrum: (0, 63), bits: (0, 0) }
    }
}

impl Picture {
    pub fn encoded(&self, scans: &[Scan]) -> Vec<u8> {
        let mut file = vec![0xff, 0xd8];
        file.extend([0xff, 0xdb, 0, 67, 0]);
        file.extend([1; 64]);
        file.extend(standard());
        file.extend([0xff, if self.progressive { 0xc2 } else { 0xc0 }, 0, 8 + 3 * self.sampling.len() as u8, 8]);
        file.extend((self.height as u16).to_be_bytes());
        file.extend((self.width as u16).to_be_bytes());
        file.push(self.sampling.len() as u8);
        for (id, (across, down)) in (1..).zip(&self.sampling) {
            file.extend([id, (across << 4 | down) as u8, 0]);
        }
        if self.restart > 0 {
            file.extend([0xff, 0xdd, 0, 4]);
            file.extend(self.restart.to_be_bytes());
        }
        let planes: Vec<_> = (0..self.sampling.len()).map(|i| self.coefficients(i)).collect();
        for scan in scans {
            file.extend([0xff, 0xda, 0, 6 + 2 * scan.components.len() as u8, scan.components.len() as u8]);
            file.extend(scan.components.iter().flat_map(|i| [*i as u8 + 1, if *i == 0 { 0 } else { 0x11 }]));
            file.extend([scan.spectrum.0, scan.spectrum.1, scan.bits.0 << 4 | scan.bits.1]);
            self.entropy_coded(&mut file, scan, &planes);
        }
        file.extend([0xff, 0xd9]);
        file
    }

    fn most(&self) -> (usize, usize) {
        let most = |of: fn(&(usize, usize)) -> usize| self.sampling.iter().map(of).max().unwrap_or(1);
        (most(|s| s.0), most(|s| s.1))
    }

    /// Of whole MCUs of all components.
    fn mcus(&self) -> (usize, usize) {
        let (across, down) = self.most();
        (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down))
    }

    /// Blocks of a component, row by row, each in zigzag order.
    fn coefficients(&self, component: usize) -> Vec<Vec<[i32; 64]>> {
        let ((across, down), (most_across, most_down)) = (self.sampling[component], self.most());
        let place = |at: usize, factor: usize, most: usize, side: usize| {
            ((at as f64 + 0.5) * most as f64 / factor as f64 - 0.5).clamp(0.0, side as f64 - 1.0)
        };
        let sample = |x: usize, y: usize| {
            let (x, y) = (place(x, across, most_across, self.width), place(y, down, most_down, self.height));
            (self.value)(component, x, y).round().clamp(0.0, 255.0) - 128.0
        };
        let (wide, high) = (self.mcus().0 * across, self.mcus().1 * down);
        let block = |bx: usize, by: usize| transformed(|x, y| sample(bx * 8 + x, by * 8 + y));
        (0..high).map(|by| (0..wide).map(|bx| block(bx, by)).collect()).collect()
    }

    fn entropy_coded(&self, file: &mut Vec<u8>, scan: &Scan, planes: &[Vec<Vec<[i32; 64]>>]) {
        let (most, mut bits, mut before) = (self.most(), Bits::default(), [0; 4]);
        let alone = (scan.components.len() == 1).then(|| {
            let (across, down) = self.sampling[scan.components[0]];
            ((self.width * across).div_ceil(8 * most.0), (self.height * down).div_ceil(8 * most.1))
        });
        let (mcus_x, mcus_y) = alone.unwrap_or(self.mcus());
        for mcu in 0..mcus_x * mcus_y {
            if self.restart > 0 && mcu > 0 && mcu % usize::from(self.restart) == 0 {
                bits.end(file);
                file.extend([0xff, 0xd0 | ((mcu / usize::from(self.restart) - 1) % 8) as u8]);
                before = [0; 4];
            }
            for i in scan.components {
                let (across, down) = if alone.is_some() { (1, 1) } else { self.sampling[*i] };
                for (y, x) in (0..down).flat_map(|y| (0..across).map(move |x| (y, x))) {
                    let block = &planes[*i][mcu / mcus_x * down + y][mcu % mcus_x * across + x];
                    bits.block(block, scan, usize::from(*i > 0), &mut before[*i]);
                }
            }
        }
        bits.end(file);
    }
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for place in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> place & 1) as u8) << (7 - self.used % 8);
            }
            self.used += 1;
        }
    }

    /// Ones to the byte's end, and a zero behind each byte of ones.
    fn end(&mut self, file: &mut Vec<u8>) {
        self.push(0x7f, self.used.wrapping_neg() % 8);
        file.extend(self.bytes.iter().flat_map(|b| [Some(*b), (*b == 0xff).then_some(0)]).flatten());
        *self = Self::default();
    }

    /// The standard tables have a code for every symbol of a picture of 8 bits.
    fn code(&mut self, table: usize, symbol: u8) {
        let (mut code, mut values) = (0, TABLES[table].values.iter());
        for (length, count) in (1..).zip(TABLES[table].lengths) {
            for _ in 0..count {
                if values.next() == Some(&symbol) {
                    return self.push(code, length);
                }
                code += 1;
            }
            code <<= 1;
        }
    }

    fn value(&mut self, value: i32, size: u32) {
        self.push((if value < 0 { value - 1 } else { value }) as u32 & ((1 << size) - 1), size);
    }

    /// `chroma`: 0 or 1. Refinements are of DC alone.
    fn block(&mut self, block: &[i32; 64], scan: &Scan, chroma: usize, before: &mut i32) {
        let size = |value: i32| u32::BITS - value.unsigned_abs().leading_zeros();
        let low = scan.bits.1;
        if scan.spectrum.0 == 0 {
            let dc = block[0] >> low;
            if scan.bits.0 > 0 {
                return self.push(dc as u32 & 1, 1);
            }
            let difference = dc - std::mem::replace(before, dc);
            self.code(chroma, size(difference) as u8);
            self.value(difference, size(difference));
        }
        let mut zeros = 0;
        let (first, last) = (usize::from(scan.spectrum.0.max(1)), usize::from(scan.spectrum.1));
        for coefficient in block.iter().take(last + 1).skip(first) {
            let value = coefficient / (1 << low);
            if value == 0 {
                zeros += 1;
                continue;
            }
            (0..zeros / 16).for_each(|_| self.code(2 + chroma, 0xf0));
            self.code(2 + chroma, (zeros % 16) << 4 | size(value) as u8);
            self.value(value, size(value));
            zeros = 0;
        }
        if zeros > 0 {
            self.code(2 + chroma, 0);
        }
    }
}

/// The coefficients of 8 x 8 samples, in zigzag order.
fn transformed(sample: impl Fn(usize, usize) -> f64) -> [i32; 64] {
    let all: [usize; 8] = std::array::from_fn(|i| i);
    let basis = all.map(|u| {
        let scale = if u == 0 { 0.125_f64.sqrt() } else { 0.5 };
        all.map(|x| scale * ((2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0).cos())
    });
    let samples = all.map(|y| all.map(|x| sample(x, y)));
    let rows = samples.map(|row| all.map(|u| (0..8).map(|x| row[x] * basis[u][x]).sum::<f64>()));
    let at = |u: usize, v: usize| (0..8).map(|y| rows[y][u] * basis[v][y]).sum::<f64>().round() as i32;
    let mut out = [0; 64];
    let (mut u, mut v) = (0, 0);
    for coefficient in &mut out {
        *coefficient = at(u, v);
        // Diagonals, up and down in turn.
        match (u + v) % 2 {
            0 if u == 7 => v += 1,
            0 if v == 0 => u += 1,
            0 => (u, v) = (u + 1, v - 1),
            _ if v == 7 => u += 1,
            _ if u == 0 => v += 1,
            _ => (u, v) = (u - 1, v + 1),
        }
    }
    out
}
