//! Does it look like a face all over? The directions of its edges, weighed as learned from faces that were covered by program.
//!
//! Fine detail alone says little of a cover that has texture: a mask with pleats has as much as a mouth. But it lies in other directions at
//! other places. The face is turned upright and cut into cells; each cell's edges are counted by direction, and a weight for each count says
//! how much that speaks for a cover. The weights are those of a logistic regression (`cover_weights.rs`; tests/intake/learn.rs makes it).

use vultus_engine::image::Pixels;

use super::{
    cover_weights::{BIAS, CELLS, DIRECTIONS, WEIGHT_UNIT, WEIGHTS},
    luminance,
    near::{Near, REACH},
};
use crate::domain::UprightFace;

/// Pixels of a cell.
const CELL: usize = 8;
/// Pixels between the eyes.
const INTER_EYE: f32 = 36.0;
/// The square of all cells, from the forehead to the chin and from ear to ear, in inter-eye distances: half its side, with a pixel around
/// for the differences, and how far its middle lies below the eyes.
const HALF: f32 = ((CELLS * CELL) as f32 / 2.0 + 0.5) / INTER_EYE;
const MIDDLE: f32 = 16.0 / INTER_EYE;
const _: () = assert!(MIDDLE + HALF < REACH + 1e-4, "what is near is scaled so far alone");
/// Of edges that noise makes.
const NOISE: f32 = 20.0;

/// Edges of one cell by direction, from upright on.
type Edges = [f32; DIRECTIONS];

/// How surely nothing covers the face, 0 to 1.
pub(super) fn uncovered(near: &Near) -> f32 {
    let cells = cells(near);
    let weighed = cells.iter().flatten().zip(WEIGHTS.iter().flatten()).map(|(edge, weight)| edge * f32::from(*weight));
    let covered = BIAS + WEIGHT_UNIT * weighed.sum::<f32>();
    1.0 / (1.0 + covered.exp())
}

/// What face occlusion prevention weighs: how strong the edges of each direction are, 0 to 1, in the cells row by row, as many down as across.
/// `None` where the face lies outside of the image. Public for what learns the weights: tests/intake/learn.rs.
pub fn edges(pixels: &Pixels, face: &UprightFace) -> Option<Vec<Edges>> {
    Some(cells(&Near::of(pixels, face)?))
}

fn cells(near: &Near) -> Vec<Edges> {
    let part = near.upright([-HALF, MIDDLE - HALF, HALF, MIDDLE + HALF], INTER_EYE);
    let grey: Vec<f32> = part.rgb8().chunks_exact(3).map(luminance).collect();
    let rows: Vec<&[f32]> = grey.chunks_exact(part.width() as usize).collect();
    let mut cells = vec![[0.0; DIRECTIONS]; CELLS * CELLS];
    let mut edges = [(0.0, 0, 0.0); CELLS * CELL];
    for (y, three) in rows.windows(3).enumerate() {
        let sides = three[1].windows(3).zip(three[0].iter().skip(1).zip(three[2].iter().skip(1)));
        // In a pass of their own, of which the compiler makes vectors.
        for (edge, (side, (up, down))) in edges.iter_mut().zip(sides) {
            let (across, along) = (side[2] - side[0], down - up);
            let turn = half_turns(across, along) * DIRECTIONS as f32;
            let whole = turn as i32;
            *edge = ((across * across + along * along).sqrt(), whole, turn - whole as f32);
        }
        let Some(cells) = cells.get_mut(y / CELL * CELLS..(y / CELL + 1) * CELLS) else { continue };
        for (cell, edges) in cells.iter_mut().zip(edges.chunks_exact(CELL)) {
            // A direction and its opposite are one edge. Its strength goes to the two nearest directions.
            for &(strength, whole, share) in edges {
                cell[whole as usize % DIRECTIONS] += strength * (1.0 - share);
                cell[(whole as usize + 1) % DIRECTIONS] += strength * share;
            }
        }
    }
    // Over the contrast around, so that light and blur have little say.
    let energy: Vec<f32> = cells.iter().map(|cell| cell.iter().map(|v| v * v).sum()).collect();
    let near = |at: usize| at.saturating_sub(1)..=at + 1;
    for (at, cell) in cells.iter_mut().enumerate() {
        let around = near(at / CELLS).flat_map(|y| near(at % CELLS).map(move |x| (y, x)));
        let inside = around.filter(|(y, x)| *y < CELLS && *x < CELLS).map(|(y, x)| energy[y * CELLS + x]);
        let (sum, count) = inside.fold((0.0, 0.0), |(sum, count), energy| (sum + energy, count + 1.0));
        let contrast = (sum / count + NOISE).sqrt();
        cell.iter_mut().for_each(|v| *v = (*v / contrast).min(1.0));
    }
    cells
}

/// The angle of (x, y) as a share of half a turn, 0 to 1, a direction and its opposite being one; within 1e-5. (Abramowitz and Stegun
/// 4.4.49 for the angle of the flatter half; the library's takes six times as long, for places that no count of edges shows.)
fn half_turns(x: f32, y: f32) -> f32 {
    let (wide, tall) = (x.abs(), y.abs());
    let r = wide.min(tall) / wide.max(tall).max(f32::MIN_POSITIVE);
    let square = r * r;
    let near =
        0.999_866 + square * (-0.330_299_5 + square * (0.180_141 + square * (-0.085_133 + square * 0.020_835_1)));
    let flat = r * near / std::f32::consts::PI;
    let angle = if tall > wide { 0.5 - flat } else { flat };
    if (x < 0.0) != (y < 0.0) && angle > 0.0 { 1.0 - angle } else { angle }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::FiveLandmarks;
    use vultus_engine::image::{Point, Similarity};

    #[test]
    fn angles_are_the_librarys() {
        for step in 0..4000 {
            let (sin, cos) = (step as f32 * 0.001_571).sin_cos();
            let exact = (3.0 * sin).atan2(3.0 * cos).rem_euclid(std::f32::consts::PI) / std::f32::consts::PI;
            let apart = (half_turns(3.0 * cos, 3.0 * sin) - exact).abs();
            assert!(apart.min(1.0 - apart) < 1e-5, "{step}: {apart}"); // all the way round is where it began
        }
        assert_eq!(half_turns(0.0, 0.0), 0.0);
    }

    const SIDE: u32 = 150;

    fn face() -> UprightFace {
        let points = [(50.0, 50.0), (100.0, 50.0), (75.0, 80.0), (55.0, 105.0), (95.0, 105.0)];
        FiveLandmarks::from_points(points.map(|(x, y)| Point { x, y })).upright().unwrap()
    }

    fn image(shade: impl Fn(f32, f32) -> f32) -> Pixels {
        let pixel = |i: u32| [shade((i % SIDE) as f32, (i / SIDE) as f32).clamp(0.0, 255.0) as u8; 3];
        Pixels::new(SIDE, SIDE, (0..SIDE * SIDE).flat_map(pixel).collect()).unwrap()
    }

    /// The direction with the most edges of a cell between the eyes.
    fn strongest(image: &Pixels, face: &UprightFace) -> usize {
        let cell = edges(image, face).unwrap()[3 * CELLS + 6];
        (0..DIRECTIONS).max_by(|a, b| cell[*a].total_cmp(&cell[*b])).unwrap()
    }

    #[test]
    fn edges_are_counted_by_direction() {
        let wave = |v: f32| 120.0 + 60.0 * (v * 0.5).sin();
        assert_eq!(strongest(&image(|x, _| wave(x)), &face()), 0);
        assert_eq!(strongest(&image(|_, y| wave(y)), &face()), DIRECTIONS / 2);
        assert_eq!(strongest(&image(|x, y| wave(x + y)), &face()), DIRECTIONS / 4);
        assert_eq!(strongest(&image(|x, y| wave(x - y)), &face()), 3 * DIRECTIONS / 4);
    }

    #[test]
    fn light_and_roll_change_little() {
        let waves = |x: f32, y: f32| 60.0 * (x * 0.4).sin() * (y * 0.25).cos() + 20.0 * (x * 0.1 + y * 0.3).sin();
        let seen = edges(&image(|x, y| 120.0 + waves(x, y)), &face()).unwrap();
        let apart = |other: &[Edges]| {
            let differences = seen.iter().flatten().zip(other.iter().flatten()).map(|(a, b)| (a - b).abs());
            differences.sum::<f32>() / seen.iter().flatten().sum::<f32>()
        };
        let dim = edges(&image(|x, y| 60.0 + 0.5 * waves(x, y)), &face()).unwrap();
        assert!(apart(&dim) < 0.1, "{}", apart(&dim));
        // A face that leans, as does its image, about the middle.
        let (sin, cos) = 0.2_f32.sin_cos();
        let place =
            Similarity { a: cos, b: -sin, dx: 75.0 - cos * 75.0 - sin * 75.0, dy: 75.0 + sin * 75.0 - cos * 75.0 };
        let leaning = image(|x, y| 120.0 + waves(x, y)).warped(SIDE, SIDE, &place);
        let points = [(50.0, 50.0), (100.0, 50.0), (75.0, 80.0), (55.0, 105.0), (95.0, 105.0)].map(|(x, y)| {
            let (x, y) = (x - 75.0, y - 75.0);
            Point { x: 75.0 + cos * x - sin * y, y: 75.0 + sin * x + cos * y }
        });
        let leaning = edges(&leaning, &FiveLandmarks::from_points(points).upright().unwrap()).unwrap();
        let inner = |cells: &[Edges]| cells.iter().skip(3 * CELLS + 4).take(4).flatten().copied().collect::<Vec<_>>();
        let differences: f32 = inner(&seen).iter().zip(inner(&leaning)).map(|(a, b)| (a - b).abs()).sum();
        assert!(differences / inner(&seen).iter().sum::<f32>() < 0.3, "{differences}");
    }

    #[test]
    fn what_lies_outside_is_no_face() {
        let away = FiveLandmarks::from_points(
            [(950.0, 50.0), (1000.0, 50.0), (975.0, 80.0), (955.0, 105.0), (995.0, 105.0)].map(|(x, y)| Point { x, y }),
        );
        assert!(edges(&image(|_, _| 9.0), &away.upright().unwrap()).is_none());
    }
}
