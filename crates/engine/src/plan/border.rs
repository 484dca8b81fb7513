//! A bias that differs at the edges: what remains of a batch norm that was folded into the convolution after it.
//!
//! The convolution pads with zeros after the batch norm, so the batch norm's shift reaches an output pixel only through
//! those places of the kernel that lie inside of the image. Which these are depends on the row's and the column's class.

use std::ops::Range;

use super::Convolution;
use crate::graph::Shape;

/// The bias of the output pixel (r, c) is `values[(row_class[r] * column_classes + column_class[c]) * out ..][..out]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Border {
    /// Row class x column class x channels out.
    pub values: Vec<f32>,
    /// Of each row of the output.
    pub row_class: Vec<u8>,
    /// Of each column of the output.
    pub column_class: Vec<u8>,
    pub column_classes: usize,
}

impl Border {
    /// What `shift`, added to every channel of the input `x` before the padding, adds to `c`'s bias. `None` where it
    /// is the same everywhere: then it was added to the bias itself.
    pub fn absorb(c: &mut Convolution, shift: &[f32], x: Shape, out: Shape) {
        let window = c.window;
        let rows = Classes::new(out.height, window.stride, c.padding.top, window.height, x.height);
        let columns = Classes::new(out.width, window.stride, c.padding.left, window.width, x.width);
        let channels = c.bias.len();
        let uniform = |ranges: &[Range<usize>], kernel: usize| ranges.iter().all(|range| *range == (0..kernel));
        let whole = sums(c, shift, 0..window.height, 0..window.width);
        if c.border.is_none() && uniform(&rows.ranges, window.height) && uniform(&columns.ranges, window.width) {
            c.bias.iter_mut().zip(whole).for_each(|(bias, sum)| *bias = (f64::from(*bias) + sum) as f32);
            return;
        }
        let mut border = c.border.take().unwrap_or_else(|| Self {
            values: c.bias.repeat(rows.ranges.len() * columns.ranges.len()),
            row_class: rows.of.clone(),
            column_class: columns.of.clone(),
            column_classes: columns.ranges.len(),
        });
        let places = rows.ranges.iter().flat_map(|row| columns.ranges.iter().map(move |column| (row, column)));
        for (values, (row, column)) in border.values.chunks_exact_mut(channels).zip(places) {
            let sums = sums(c, shift, row.clone(), column.clone());
            values.iter_mut().zip(sums).for_each(|(value, sum)| *value = (f64::from(*value) + sum) as f32);
        }
        // What holds away from the edges, for whoever wants one number.
        c.bias.iter_mut().zip(whole).for_each(|(bias, sum)| *bias = (f64::from(*bias) + sum) as f32);
        c.border = Some(border);
    }
}

/// For each channel out: the weights in these rows and columns of the kernel, times the shift of their channel.
fn sums(c: &Convolution, shift: &[f32], rows: Range<usize>, columns: Range<usize>) -> Vec<f64> {
    let (outs, area) = (c.bias.len(), c.window.height * c.window.width);
    let (group_in, group_out) = (shift.len() / c.groups, outs / c.groups);
    let filters = c.weight.chunks_exact(group_in * area).enumerate();
    filters
        .map(|(o, filter)| {
            let shifts = shift.iter().skip(o / group_out * group_in);
            let planes = filter.chunks_exact(area).zip(shifts);
            planes
                .map(|(plane, &shift)| {
                    let lines = plane.chunks_exact(c.window.width).take(rows.end).skip(rows.start);
                    let inside = lines.flat_map(|line| line.iter().take(columns.end).skip(columns.start));
                    inside.map(|&w| f64::from(w)).sum::<f64>() * f64::from(shift)
                })
                .sum()
        })
        .collect()
}

/// Along one direction: which part of the kernel lies inside of the image, and which outputs have the same.
struct Classes {
    ranges: Vec<Range<usize>>,
    /// Of each output.
    of: Vec<u8>,
}

impl Classes {
    fn new(outputs: usize, stride: usize, padding: usize, kernel: usize, size: usize) -> Self {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        let mut of = Vec::with_capacity(outputs);
        for start in (0..outputs).map(|output| output * stride) {
            let range = inside(start, padding, kernel, size);
            let class = ranges.iter().position(|known| *known == range).unwrap_or_else(|| {
                ranges.push(range);
                ranges.len() - 1
            });
            // A kernel of at most 64 places has at most 128 ways to overlap an edge.
            of.push(u8::try_from(class).unwrap_or(u8::MAX));
        }
        Self { ranges, of }
    }
}

/// The places of a kernel that lie inside of `size`, when it starts at `start` of the padded image.
fn inside(start: usize, padding: usize, kernel: usize, size: usize) -> Range<usize> {
    let from = padding.saturating_sub(start).min(kernel);
    from..(size + padding).saturating_sub(start).clamp(from, kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_places_have_three_classes() {
        let classes = Classes::new(5, 1, 1, 3, 5);
        assert_eq!(classes.ranges, [1..3, 0..3, 0..2]);
        assert_eq!(classes.of, [0, 1, 1, 1, 2]);
        // With a stride of 2 over 4 the last window ends at the edge.
        assert_eq!(Classes::new(2, 2, 1, 3, 4).of, [0, 1]);
        // A narrow image lies inside of both edges.
        assert_eq!(Classes::new(1, 1, 1, 3, 1).ranges.first(), Some(&(1..2)));
    }
}
