//! Matrix products into memory that the caller owns: the `gemm` crate behind a checked function. On one thread; sums in
//! f32, with AVX-512 or AVX2 where the machine has it.

#![allow(unsafe_code)]

/// `c = a b` for row-major `a` (rows x inner), `b` (inner x columns) and `c` (rows x columns).
///
/// How an element is summed does not depend on the other rows, as long as `rows` is at least [`least_rows`].
///
/// # Panics
/// When a slice's length is not that of its matrix: a mistake of the program, never of its input.
pub fn product(rows: usize, inner: usize, columns: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    let fits = |len: usize, height: usize, width: usize| height.checked_mul(width) == Some(len);
    assert!(fits(a.len(), rows, inner) && fits(b.len(), inner, columns) && fits(c.len(), rows, columns));
    if c.is_empty() {
        return;
    }
    // SAFETY: with strides (1, width) the function reads a and b and writes c at row * width + column alone, for rows and
    // columns below the sizes given; the assertion says that these lie inside of the slices. c is borrowed exclusively.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            c.as_mut_ptr(),
            1,
            columns as isize,
            false,
            a.as_ptr(),
            1,
            inner as isize,
            b.as_ptr(),
            1,
            columns as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The crate takes other paths, which round differently, for a product of one row and for one whose rows and columns are
/// both at most 64.
pub fn least_rows(columns: usize) -> usize {
    if columns <= 64 { 65 } else { 2 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) >> 16) as f32 / 65536.0 - 0.5).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_definition(rows in 0usize..20, inner in 0usize..70, columns in 0usize..40, seed: u32) {
            let (a, b) = (values(rows * inner, seed), values(inner * columns, !seed));
            let mut c = vec![f32::NAN; rows * columns];
            product(rows, inner, columns, &a, &b, &mut c);
            for (at, c) in c.iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let sum: f64 = (0..inner).map(|i| f64::from(a[row * inner + i]) * f64::from(b[i * columns + column])).sum();
                prop_assert!((f64::from(*c) - sum).abs() < 1e-4);
            }
        }

        #[test]
        fn a_row_does_not_depend_on_the_others(columns in 1usize..130, inner in 1usize..1500, more in 0usize..200, seed: u32) {
            let least = least_rows(columns);
            let (a, b) = (values((least + more) * inner, seed), values(inner * columns, !seed));
            let run = |rows: usize| {
                let mut c = vec![0.0; rows * columns];
                product(rows, inner, columns, &a[..rows * inner], &b, &mut c);
                c
            };
            prop_assert!(run(least)[..] == run(least + more)[..least * columns]);
        }
    }
}
