//! The transforms of Winograd's convolutions: polynomials are multiplied at a few points instead of coefficient by
//! coefficient. M outputs of a kernel of 3 take N = M + 2 products in place of 3 M, and their squares in two
//! dimensions.
//!
//! Points: 0 and infinity, 1 and -1 for M = 2; 0, infinity, ±A and ±2A for M = 4. A = 11/16 rounds a third as much
//! as the customary 1: its powers stay near one.

use crate::cpu::{kernels::Vector, layout::Line};

const A: f64 = 11.0 / 16.0;
const B: f64 = 2.0 * A;

/// One dimension of a transform: d are N inputs, m are N products, y are M outputs.
pub trait Scheme<const N: usize, const M: usize> {
    /// Pairs of rows between the first and the last.
    const PAIRS: usize;
    /// The kernel's values at the points.
    fn kernel(g: [f64; 3]) -> [f64; N];
    /// The input's value at 0.
    fn first<V: Vector>(d: [V; N]) -> V;
    /// At the k-th point and at its negative.
    fn pair<V: Vector>(k: usize, d: [V; N]) -> [V; 2];
    /// At infinity.
    fn last<V: Vector>(d: [V; N]) -> V;
    fn output<V: Vector>(m: [V; N]) -> [V; M];
}

/// Two outputs of four inputs.
pub struct Two;
/// Four outputs of six inputs.
pub struct Four;

impl Scheme<4, 2> for Two {
    const PAIRS: usize = 1;

    fn kernel([a, b, c]: [f64; 3]) -> [f64; 4] {
        [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c]
    }

    #[inline(always)]
    fn first<V: Vector>(d: [V; 4]) -> V {
        d[0].sub(d[2])
    }

    #[inline(always)]
    fn pair<V: Vector>(_: usize, d: [V; 4]) -> [V; 2] {
        [d[2].add(d[1]), d[2].sub(d[1])]
    }

    #[inline(always)]
    fn last<V: Vector>(d: [V; 4]) -> V {
        d[3].sub(d[1])
    }

    #[inline(always)]
    fn output<V: Vector>(m: [V; 4]) -> [V; 2] {
        [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).add(m[3])]
    }
}

impl Scheme<6, 4> for Four {
    const PAIRS: usize = 2;

    fn kernel(g: [f64; 3]) -> [f64; 6] {
        let at = |x: f64, scale: f64| (g[0] + x * (g[1] + x * g[2])) / scale;
        let (a2, b2) = (A * A, B * B);
        let (a, b) = (2.0 * a2 * (a2 - b2), 2.0 * b2 * (b2 - a2));
        [g[0] / (a2 * b2), at(A, a), at(-A, a), at(B, b), at(-B, b), g[2]]
    }

    #[inline(always)]
    fn first<V: Vector>(d: [V; 6]) -> V {
        d[4].plus((A * A * B * B) as f32, d[0]).minus((A * A + B * B) as f32, d[2])
    }

    #[inline(always)]
    fn pair<V: Vector>(k: usize, d: [V; 6]) -> [V; 2] {
        let (point, other) = if k == 0 { (A, B * B) } else { (B, A * A) };
        let (even, odd) = (d[4].minus(other as f32, d[2]), d[3].minus(other as f32, d[1]));
        [even.plus(point as f32, odd), even.minus(point as f32, odd)]
    }

    #[inline(always)]
    fn last<V: Vector>(d: [V; 6]) -> V {
        d[5].plus((A * A * B * B) as f32, d[1]).minus((A * A + B * B) as f32, d[3])
    }

    #[inline(always)]
    fn output<V: Vector>(m: [V; 6]) -> [V; 4] {
        let (a, b) = (A as f32, B as f32);
        let (even, odd) = ([m[1].add(m[2]), m[3].add(m[4])], [m[1].sub(m[2]), m[3].sub(m[4])]);
        [
            m[0].add(even[0]).add(even[1]),
            odd[0].times(a).plus(b, odd[1]),
            even[0].times(a * a).plus(b * b, even[1]),
            m[5].plus(a * a * a, odd[0]).plus(b * b * b, odd[1]),
        ]
    }
}

/// All N x N positions of a tile, each `step` lines after the one before; as bf16 into one half of each line where it
/// says which.
#[inline(always)]
pub fn forward<S: Scheme<N, M>, V: Vector, const N: usize, const M: usize>(
    d: [&[Line; N]; N],
    to: &mut [Line],
    step: usize,
    half: Option<bool>,
) {
    let mut t = [V::splat(0.0); N];
    for (c, t) in t.iter_mut().enumerate() {
        *t = S::first(column(&d, c));
    }
    put_row::<S, V, N, M>(t, to, 0, step, half);
    for k in 0..S::PAIRS {
        let (mut plus, mut minus) = (t, t);
        for (c, (plus, minus)) in plus.iter_mut().zip(&mut minus).enumerate() {
            [*plus, *minus] = S::pair(k, column(&d, c));
        }
        put_row::<S, V, N, M>(plus, to, 2 * k + 1, step, half);
        put_row::<S, V, N, M>(minus, to, 2 * k + 2, step, half);
    }
    for (c, t) in t.iter_mut().enumerate() {
        *t = S::last(column(&d, c));
    }
    put_row::<S, V, N, M>(t, to, N - 1, step, half);
}

#[inline(always)]
fn column<V: Vector, const N: usize>(d: &[&[Line; N]; N], c: usize) -> [V; N] {
    let mut column = [V::splat(0.0); N];
    for (v, row) in column.iter_mut().zip(d) {
        *v = V::load(&row[c]);
    }
    column
}

#[inline(always)]
fn put_row<S: Scheme<N, M>, V: Vector, const N: usize, const M: usize>(
    t: [V; N],
    to: &mut [Line],
    row: usize,
    step: usize,
    half: Option<bool>,
) {
    let to = &mut to[row * N * step..];
    store(S::first(t), &mut to[0], half);
    for k in 0..S::PAIRS {
        let [plus, minus] = S::pair(k, t);
        store(plus, &mut to[(2 * k + 1) * step], half);
        store(minus, &mut to[(2 * k + 2) * step], half);
    }
    store(S::last(t), &mut to[(N - 1) * step], half);
}

#[inline(always)]
fn store<V: Vector>(v: V, to: &mut Line, half: Option<bool>) {
    match half {
        None => v.store(to),
        Some(high) => v.store_half(to, high),
    }
}

/// A tile's outputs from the products at all positions, each `step` lines after the one before.
#[inline(always)]
pub fn backward<S: Scheme<N, M>, V: Vector, const N: usize, const M: usize>(m: &[Line], step: usize) -> [[V; M]; M] {
    let zero = V::splat(0.0);
    let (mut rows, mut outputs) = ([[zero; N]; M], [[zero; M]; M]);
    for c in 0..N {
        let mut column = [zero; N];
        for (r, v) in column.iter_mut().enumerate() {
            *v = V::load(&m[(r * N + c) * step]);
        }
        let y = S::output(column);
        for r in 0..M {
            rows[r][c] = y[r];
        }
    }
    for r in 0..M {
        outputs[r] = S::output(rows[r]);
    }
    outputs
}

/// A kernel of 3 x 3 at all positions.
pub fn kernel<S: Scheme<N, M>, const N: usize, const M: usize>(g: &[f32]) -> [[f32; N]; N] {
    let at = |r: usize, c: usize| f64::from(g[r * 3 + c]);
    // Columns, then rows.
    let columns = [0, 1, 2].map(|c| S::kernel([at(0, c), at(1, c), at(2, c)]));
    let mut positions = [[0.0; N]; N];
    for (r, row) in positions.iter_mut().enumerate() {
        *row = S::kernel(columns.map(|column| column[r])).map(|v| v as f32);
    }
    positions
}
