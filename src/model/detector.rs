//! What the tiny face detector's numbers mean.
//!
//! A grid of cells; in each, five anchors (boxes of customary sizes) with five numbers: offset of the centre in the
//! cell (x, y), logarithm of the size relative to the anchor's (width, height), and the logit of "a face is here".

use vultus_engine::image::Rect;

/// Side of the square input, pixels.
pub const INPUT_SIDE: u32 = 416;
/// The same where it looks first: see `pipeline::locate`.
pub const SMALL_SIDE: u32 = 160;
/// Side of a cell of the grid, pixels of the input.
const CELL_SIDE: u32 = 32;

const PER_ANCHOR: usize = 5;
/// Width and height, in cells.
const ANCHORS: [(f32, f32); 5] = [
    (1.603_231, 2.094_468),
    (6.041_143, 7.080_126),
    (2.882_459, 3.518_061),
    (4.266_906, 5.178_857),
    (9.041_765, 10.663_08),
];
/// Boxes that share more of their union are one face.
const MAX_OVERLAP: f32 = 0.4;

/// A face that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Relative to the square input: 0 to 1 lies inside. May reach beyond.
    pub rect: Rect,
    /// 0 to 1.
    pub score: f32,
}

/// Values that the network gives for an image of `side` pixels a side.
pub const fn outputs(side: u32) -> usize {
    let cells = (side / CELL_SIDE) as usize;
    ANCHORS.len() * PER_ANCHOR * cells * cells
}

/// Faces with more than `least_score` (0 to 1), best first, each once. `outputs`: 25 x cells x cells values in the order channel
/// (anchor, number), row, column, as [`super::Executor::run`] gives them; where they are no such grid, there is no face.
pub fn detections(outputs: &[f32], least_score: f32) -> Vec<Detection> {
    let grid = (outputs.len() / (ANCHORS.len() * PER_ANCHOR)).isqrt();
    let cells = grid * grid;
    if cells == 0 || outputs.len() != ANCHORS.len() * PER_ANCHOR * cells {
        return vec![];
    }
    let mut found = Vec::new();
    for (anchor, numbers) in ANCHORS.iter().zip(outputs.chunks_exact(PER_ANCHOR * cells)) {
        for cell in 0..cells {
            let [x, y, width, height, logit] = std::array::from_fn(|i| numbers[i * cells + cell]);
            let score = sigmoid(logit);
            if score > least_score {
                let cells = grid as f32;
                let centre_x = ((cell % grid) as f32 + sigmoid(x)) / cells;
                let centre_y = ((cell / grid) as f32 + sigmoid(y)) / cells;
                let (width, height) = (width.exp() * anchor.0 / cells, height.exp() * anchor.1 / cells);
                let rect = Rect { x: centre_x - width / 2.0, y: centre_y - height / 2.0, width, height };
                // An exponential may overflow; such a box is nowhere.
                if width.is_finite() && height.is_finite() {
                    found.push(Detection { rect, score });
                }
            }
        }
    }
    suppress(found)
}

/// Keeps the best of boxes that overlap, best first.
fn suppress(mut found: Vec<Detection>) -> Vec<Detection> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Detection> = Vec::new();
    for detection in found {
        if kept.iter().all(|other| overlap(&other.rect, &detection.rect) <= MAX_OVERLAP) {
            kept.push(detection);
        }
    }
    kept
}

/// Intersection over union.
fn overlap(a: &Rect, b: &Rect) -> f32 {
    let width = (a.x + a.width).min(b.x + b.width) - a.x.max(b.x);
    let height = (a.y + a.height).min(b.y + b.height) - a.y.max(b.y);
    let shared = width.max(0.0) * height.max(0.0);
    shared / (a.width * a.height + b.width * b.height - shared).max(f32::MIN_POSITIVE)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing anywhere in a grid of so many cells a side, then the given ones.
    fn seen(grid: usize, cells: &[(usize, usize, usize, f32)]) -> Vec<f32> {
        let mut values = vec![0.0; outputs(grid as u32 * CELL_SIDE)];
        let at = |anchor: usize, number: usize, row: usize, column: usize| {
            ((anchor * PER_ANCHOR + number) * grid + row) * grid + column
        };
        for anchor in 0..ANCHORS.len() {
            for cell in 0..grid * grid {
                values[at(anchor, 4, cell / grid, cell % grid)] = -20.0;
            }
        }
        for &(anchor, row, column, logit) in cells {
            values[at(anchor, 4, row, column)] = logit;
        }
        values
    }

    #[test]
    fn a_cell_with_a_face_is_a_box_around_its_centre() {
        for grid in [7, 13] {
            let found = detections(&seen(grid, &[(2, 6, 3, 2.0)]), 0.5);
            assert_eq!(found.len(), 1);
            let (Detection { rect, score }, cells) = (found[0], grid as f32);
            assert!((score - 0.880_797).abs() < 1e-5);
            assert!((rect.x + rect.width / 2.0 - 3.5 / cells).abs() < 1e-6);
            assert!((rect.y + rect.height / 2.0 - 6.5 / cells).abs() < 1e-6);
            assert!((rect.width - 2.882_459 / cells).abs() < 1e-6 && (rect.height - 3.518_061 / cells).abs() < 1e-6);
        }
    }

    #[test]
    fn one_face_is_found_once_and_two_twice() {
        let found = detections(&seen(13, &[(3, 6, 6, 1.0), (3, 6, 7, 3.0), (0, 1, 1, 2.0)]), 0.5);
        let scores: Vec<f32> = found.iter().map(|d| d.score).collect();
        assert_eq!(scores, [sigmoid(3.0), sigmoid(2.0)]);
    }

    #[test]
    fn nonsense_is_no_face() {
        assert!(detections(&[], 0.5).is_empty());
        assert!(detections(&[f32::NAN; outputs(INPUT_SIDE)], 0.5).is_empty());
        assert!(detections(&[1000.0; outputs(INPUT_SIDE)], 0.5).is_empty());
        assert!(detections(&[1.0; outputs(INPUT_SIDE) - 25], 0.5).is_empty(), "no square");
    }
}
