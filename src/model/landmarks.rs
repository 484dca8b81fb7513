//! What the landmark network's numbers mean.

use vultus_engine::image::Point;

use crate::domain::Landmarks68;

/// Side of the square input, pixels.
pub const INPUT_SIDE: u32 = 112;
/// Values that the network gives for an image.
pub const OUTPUTS: usize = 136;

/// The 68 points, relative to a box of `width` x `height` (any unit): 0 to 1 lies inside, points may lie outside. The box
/// was scaled to fit the square input and centred in it, black around. `None` unless there are 136 finite `outputs`.
pub fn landmarks(outputs: &[f32], width: f32, height: f32) -> Option<Landmarks68> {
    if outputs.len() != OUTPUTS || !outputs.iter().all(|v| v.is_finite()) || !(width > 0.0 && height > 0.0) {
        return None;
    }
    // The box's sides, of the input's.
    let (width, height) = (width / width.max(height), height / width.max(height));
    let point = |i: usize| Point {
        x: (outputs[2 * i] - (1.0 - width) / 2.0) / width,
        y: (outputs[2 * i + 1] - (1.0 - height) / 2.0) / height,
    };
    Some(Landmarks68(std::array::from_fn(point)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_leave_the_padding_behind() {
        let mut outputs = [0.5; OUTPUTS];
        (outputs[0], outputs[1]) = (0.25, 0.0);
        let points = landmarks(&outputs, 50.0, 100.0).unwrap();
        assert_eq!(points.0[0], Point { x: 0.0, y: 0.0 });
        assert_eq!(points.0[1], Point { x: 0.5, y: 0.5 });
        let points = landmarks(&outputs, 100.0, 100.0).unwrap();
        assert_eq!(points.0[0], Point { x: 0.25, y: 0.0 });
    }

    #[test]
    fn nonsense_is_no_landmarks() {
        assert_eq!(landmarks(&[0.0; 135], 1.0, 1.0), None);
        assert_eq!(landmarks(&[f32::NAN; 136], 1.0, 1.0), None);
        assert_eq!(landmarks(&[0.0; 136], 0.0, 1.0), None);
    }
}
