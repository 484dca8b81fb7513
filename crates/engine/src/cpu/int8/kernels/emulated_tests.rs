//! The tile unit in plain memory, as Intel's manual describes it.

#![allow(unsafe_code)]

use super::{
    Panel,
    sum_amx::{is_exact, sum},
};
use crate::cpu::kernels::tiles::{Shapes, Tiles};

/// Eight registers of 16 rows of 64 bytes.
pub struct Emulated {
    shapes: Option<Shapes>,
    registers: [[[u8; 64]; 16]; 8],
}

impl Emulated {
    pub fn new() -> Self {
        Self { shapes: None, registers: [[[0; 64]; 16]; 8] }
    }

    fn shape(&self, register: u8) -> (usize, usize) {
        let (rows, bytes) = self.shapes.expect("configured before").of(register);
        assert!((1..=16).contains(&rows) && (4..=64).contains(&bytes), "register {register} has no shape");
        (rows, bytes)
    }
}

impl Tiles for Emulated {
    unsafe fn configure(&mut self, shapes: &Shapes) {
        *self = Self { shapes: Some(*shapes), ..Self::new() };
    }

    unsafe fn load<const REGISTER: u8>(&mut self, from: *const u8, stride: isize) {
        let (rows, bytes) = self.shape(REGISTER);
        let register = &mut self.registers[usize::from(REGISTER)];
        *register = [[0; 64]; 16];
        for (at, row) in register.iter_mut().take(rows).enumerate() {
            // SAFETY: the caller's promise.
            let from = unsafe { std::slice::from_raw_parts(from.offset(at as isize * stride), bytes) };
            row[..bytes].copy_from_slice(from);
        }
    }

    unsafe fn multiply<const SUMS: u8, const CODES: u8, const WEIGHTS: u8>(&mut self) {
        let [(m, n), codes, weights] = [SUMS, CODES, WEIGHTS].map(|register| self.shape(register));
        assert_eq!((codes.0, weights.1, codes.1), (m, n, 4 * weights.0), "#UD: the shapes do not fit");
        let bytes = codes.1;
        let [codes, weights] = [CODES, WEIGHTS].map(|register| self.registers[usize::from(register)]);
        for (sums, codes) in self.registers[usize::from(SUMS)].iter_mut().zip(codes).take(m) {
            for (at, sum) in sums.as_chunks_mut::<4>().0.iter_mut().take(n / 4).enumerate() {
                let product = |k: usize| i32::from(codes[k]) * i32::from(weights[k / 4][4 * at + k % 4].cast_signed());
                let more: i32 = (0..bytes).map(product).sum();
                *sum = i32::from_le_bytes(*sum).wrapping_add(more).to_le_bytes();
            }
        }
    }

    unsafe fn store<const REGISTER: u8>(&mut self, to: *mut i32, stride: isize) {
        let (rows, bytes) = self.shape(REGISTER);
        for (at, row) in self.registers[usize::from(REGISTER)].iter().take(rows).enumerate() {
            // SAFETY: the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to.cast::<u8>().offset(at as isize * stride), bytes) }
        }
    }

    unsafe fn release(&mut self) {
        *self = Self::new();
    }
}

/// The sums of a panel on emulated tiles.
pub fn sum_on_tiles(panel: &Panel, x: &[u8], places: &[usize], sums: &mut [i32]) {
    // SAFETY: no instruction of the tile unit is used; the caller checked the arguments.
    unsafe { sum(&mut Emulated::new(), panel, x, places, sums) }
}

#[test]
fn sums_on_tiles_are_exact() {
    // SAFETY: as above.
    assert!(unsafe { is_exact(&mut Emulated::new()) });
}

/// The self-test tells a unit that is wrong in one register, in one row, in the sign of a factor, or not at all wiped.
#[test]
fn the_self_test_tells_a_wrong_unit() {
    struct Wrong(Emulated, u8);
    impl Tiles for Wrong {
        unsafe fn configure(&mut self, shapes: &Shapes) {
            let registers = self.0.registers;
            // SAFETY: as above; so for all.
            unsafe { self.0.configure(shapes) };
            if self.1 == 0 {
                self.0.registers = registers;
            }
        }
        unsafe fn load<const REGISTER: u8>(&mut self, from: *const u8, stride: isize) {
            unsafe { self.0.load::<REGISTER>(from, stride) };
            match self.1 {
                1 if REGISTER == 5 => self.0.registers[5][15][63] = 1,
                // Wrong only where a full tile is loaded from where it lies.
                5 if REGISTER == 5 && stride == 64 && self.0.shape(5) == (16, 64) => self.0.registers[5][9][40] ^= 1,
                2 if REGISTER == 7 => self.0.registers[7][0][0] ^= 128,
                _ => {}
            }
        }
        unsafe fn multiply<const SUMS: u8, const CODES: u8, const WEIGHTS: u8>(&mut self) {
            if self.1 == 3 {
                self.0.registers[usize::from(CODES)].iter_mut().flatten().for_each(|code| *code &= 127);
            }
            unsafe { self.0.multiply::<SUMS, CODES, WEIGHTS>() }
        }
        unsafe fn store<const REGISTER: u8>(&mut self, to: *mut i32, stride: isize) {
            unsafe { self.0.store::<REGISTER>(to, if self.1 == 4 && REGISTER == 3 { stride - 4 } else { stride }) }
        }
        unsafe fn release(&mut self) {
            if self.1 != 0 {
                unsafe { self.0.release() }
            }
        }
    }
    for fault in 0..6 {
        assert!(!unsafe { is_exact(&mut Wrong(Emulated::new(), fault)) }, "fault {fault}");
    }
    assert!(unsafe { is_exact(&mut Wrong(Emulated::new(), 6)) });
}
