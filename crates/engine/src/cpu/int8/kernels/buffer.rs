//! Memory for bytes, halves and floats alike, aligned to what one load of AVX-512 reads.

#![allow(unsafe_code)]

use zeroize::Zeroize;

#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Block([u64; 8]);

impl Block {
    const ZERO: Self = Self([0; 8]);

    /// So many that the bytes have room; what is left is zero.
    pub fn of(bytes: &[u8]) -> Vec<Self> {
        let mut blocks = vec![Self::ZERO; bytes.len().div_ceil(size_of::<Self>())];
        let mut rest = [0; 8];
        let (words, last) = bytes.as_chunks::<8>();
        rest[..last.len()].copy_from_slice(last);
        let places = blocks.iter_mut().flat_map(|block| &mut block.0);
        places.zip(words.iter().chain([&rest])).for_each(|(place, bytes)| *place = u64::from_le_bytes(*bytes));
        blocks
    }

    pub fn bytes(&self) -> &[i8; 64] {
        // SAFETY: 64 bytes without padding; any bits are a number.
        unsafe { &*self.0.as_ptr().cast() }
    }
}

/// A slot of activations; wiped when it is dropped, because they tell of a face.
#[derive(Debug, Default)]
pub struct Buffer(Vec<Block>);

macro_rules! views {
    ($($read:ident, $write:ident: $of:ty;)*) => {
        $(pub fn $read(&self) -> &[$of] {
            let len = self.0.len() * size_of::<Block>() / size_of::<$of>();
            // SAFETY: a block is 64 bytes without padding, any bits are a number, and it is aligned more strictly.
            unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), len) }
        }

        pub fn $write(&mut self) -> &mut [$of] {
            let len = self.0.len() * size_of::<Block>() / size_of::<$of>();
            // SAFETY: as above; the borrow is exclusive and passes over.
            unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
        })*
    };
}

impl Buffer {
    /// Has so many bytes at least.
    pub fn grow(&mut self, bytes: usize) {
        let blocks = bytes.div_ceil(size_of::<Block>());
        if blocks > self.0.len() {
            // What is moved would stay behind in freed memory.
            self.wipe();
            self.0 = vec![Block::ZERO; blocks];
        }
    }

    views! {
        bytes, bytes_mut: u8;
        words, words_mut: i16;
        halves, halves_mut: u16;
        wholes, wholes_mut: i32;
        floats, floats_mut: f32;
    }

    fn wipe(&mut self) {
        self.0.iter_mut().for_each(|block| block.0.zeroize());
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_bytes_in_their_order() {
        let bytes: Vec<u8> = (0..100).collect();
        let buffer = Buffer(Block::of(&bytes));
        assert_eq!(buffer.0.len(), 2);
        for (at, byte) in buffer.bytes().iter().enumerate() {
            assert_eq!(*byte, bytes.get(at).copied().unwrap_or(0), "{at}");
        }
        assert_eq!((buffer.halves()[1], buffer.0[1].bytes()[1]), (0x302, 65));
    }
}
