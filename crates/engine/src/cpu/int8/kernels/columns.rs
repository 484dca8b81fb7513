//! A matrix that threads write at the same time: each has some columns of some rows.

#![allow(unsafe_code)]

use std::marker::PhantomData;

/// Some columns of some rows of a matrix that is borrowed exclusively; no two overlap.
#[derive(Debug)]
pub struct Columns<'a, T> {
    start: *mut T,
    rows: usize,
    width: usize,
    /// From row to row.
    pitch: usize,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: it is an exclusive borrow of its elements, which no other has.
unsafe impl<T: Send> Send for Columns<'_, T> {}

impl<'a, T> Columns<'a, T> {
    /// All columns of all whole rows.
    ///
    /// # Panics
    /// When rows are empty.
    pub fn new(matrix: &'a mut [T], pitch: usize) -> Self {
        assert!(pitch > 0);
        Self { start: matrix.as_mut_ptr(), rows: matrix.len() / pitch, width: pitch, pitch, of: PhantomData }
    }

    /// Those before row `at`, and the others.
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        let at = at.min(self.rows);
        // SAFETY: inside of the matrix, or one past its end: `at` is at most the number of rows, all of which are
        // `pitch` apart; with no row after it, nothing is read there.
        let start = if at < self.rows { unsafe { self.start.add(at * self.pitch) } } else { self.start };
        (Self { rows: at, ..self }, Self { start, rows: self.rows - at, ..self })
    }

    /// Those before column `at`, and the others.
    pub fn split_columns(self, at: usize) -> (Self, Self) {
        let at = at.min(self.width);
        // SAFETY: inside of the first row, or one past its end.
        let start = if self.rows > 0 { unsafe { self.start.add(at) } } else { self.start };
        (Self { width: at, ..self }, Self { start, width: self.width - at, ..self })
    }

    /// # Panics
    /// When there is no such row.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: the row is one of these, `width` elements of it are, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.pitch), self.width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_one_owner() {
        let mut matrix = vec![0; 7 * 5];
        let (top, bottom) = Columns::new(&mut matrix, 5).split_rows(3);
        let ((a, b), (c, d)) = (top.split_columns(2), bottom.split_columns(4));
        for (name, mut part) in (1..).zip([a, b, c, d]) {
            for row in 0..part.rows {
                part.row(row).iter_mut().for_each(|element| *element += name);
            }
        }
        let expected = |at: usize| match (at / 5 < 3, at % 5) {
            (true, column) => 1 + usize::from(column >= 2),
            (false, column) => 3 + usize::from(column >= 4),
        };
        assert!((0..35).all(|at| matrix[at] == expected(at)), "{matrix:?}");
    }
}
