//! Golden faces: drawn, nobody's, the same on every machine, and what the reference executor makes of them. A device
//! that agrees with it may serve; one that no longer does may not.

use vultus_engine::{
    candle,
    executor::{ExecuteError, Executor, run},
    image::Pixels,
    input::{Input, InputSize},
    parity::cosine,
    precision::Precision,
};

use super::{bundle::Bundle, role::Role, set::ModelSet};

/// A face to draw: shades of skin, hair and background, and how far apart and how large its features are.
#[derive(Clone, Copy)]
struct Drawn {
    skin: [f32; 3],
    hair: [f32; 3],
    background: [f32; 3],
    /// Half of the distance between the eyes, in widths of the head.
    eyes: f32,
    /// Half width of the mouth, in widths of the head.
    mouth: f32,
    /// Multiplies all.
    light: f32,
}

const ONE: Drawn = Drawn {
    skin: [224.0, 180.0, 150.0],
    hair: [60.0, 42.0, 30.0],
    background: [120.0, 140.0, 160.0],
    eyes: 0.40,
    mouth: 0.34,
    light: 1.0,
};
/// The same face in less light.
const ONE_DIMMED: Drawn = Drawn { light: 0.8, ..ONE };
const ANOTHER: Drawn = Drawn {
    skin: [140.0, 96.0, 70.0],
    hair: [20.0, 18.0, 18.0],
    background: [205.0, 200.0, 190.0],
    eyes: 0.50,
    mouth: 0.46,
    light: 1.0,
};

/// One drawn face at the size of one network, and what that network gives for it.
pub struct Golden {
    pub role: Role,
    pub image: Pixels,
    expected: Vec<f32>,
    /// The most that a value may differ.
    tolerance: f32,
}

/// `Debug` shows no values.
impl std::fmt::Debug for Golden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Golden({}, {} values)", self.role.as_str(), self.expected.len())
    }
}

/// Why an executor's templates are not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum SelfTestError {
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    #[error(
        "{}: golden faces differ from the reference by {tolerances:.1} times what the card's agreement explains; expected a card \
         that `vultus model calibrate` wrote for these weights", precision.as_str()
    )]
    Differs { precision: Precision, tolerances: f32 },
}

impl Golden {
    /// For every network, by the reference executor: one face for those that find and place, three for the one that
    /// embeds (a face, the same dimmed, another), in this order.
    ///
    /// # Errors
    /// When the reference executor does not run.
    pub fn of(set: &ModelSet) -> Result<Vec<Self>, ExecuteError> {
        let mut golden = Vec::new();
        for role in Role::ALL {
            let drawn = Self::of_network(set.bundle(role), set.card().precision)?;
            golden.extend(drawn.into_iter().map(|golden| Self { role, ..golden }));
        }
        Ok(golden)
    }

    /// The same for one network; `precision` is that of the one that embeds.
    ///
    /// # Errors
    /// When the reference executor does not run.
    pub fn of_network(bundle: &Bundle, precision: Precision) -> Result<Vec<Self>, ExecuteError> {
        let (role, input) = (bundle.contract().role, &bundle.contract().input);
        let Input { width, height, .. } = *input;
        let share = if role == Role::Embed { share_of(bundle, precision) } else { SHARE_OF_F32 };
        let images = Self::images(role, InputSize { width, height });
        let outputs = candle::reference(bundle.graph(), bundle.weights(), input, &images.iter().collect::<Vec<_>>())?;
        let golden = images.into_iter().zip(outputs).map(|(image, expected)| {
            let largest = expected.iter().fold(1e-3_f32, |largest, v| largest.max(v.abs()));
            Self { role, image, expected, tolerance: share * largest }
        });
        Ok(golden.collect())
    }

    /// The golden faces of a role, drawn for a network of that size.
    pub fn images(role: Role, size: InputSize) -> Vec<Pixels> {
        let (faces, head) = match role {
            Role::DetectSmall | Role::Detect => (vec![ONE], 0.25),
            Role::Landmark => (vec![ONE], 0.75),
            Role::Embed => (vec![ONE, ONE_DIMMED, ANOTHER], 0.75),
        };
        faces.iter().map(|face| face.draw(size, head)).collect()
    }

    /// Runs the face network's golden faces on an executor, alone.
    ///
    /// # Errors
    /// [`SelfTestError`] where an executor does not run, or differs from the reference by more than its precision
    /// explains.
    pub fn self_test(set: &ModelSet, executor: &mut dyn Executor) -> Result<(), SelfTestError> {
        let precision = set.card().precision;
        let golden = Self::of_network(set.bundle(Role::Embed), precision)?;
        let held = Held::of(&golden, |image| run(executor, Role::Embed.network(), &[image]))?;
        match held.tolerances {
            tolerances if tolerances > 1.0 => Err(SelfTestError::Differs { precision, tolerances }),
            _ => Ok(()),
        }
    }

    /// The greatest difference from what is expected, in tolerances: at most 1 is right. Infinite for outputs of
    /// another shape.
    pub fn deviation(&self, values: &[f32]) -> f32 {
        if values.len() != self.expected.len() {
            return f32::INFINITY;
        }
        let differences = values.iter().zip(&self.expected).map(|(got, expected)| (got - expected).abs());
        let greatest =
            differences.fold(0.0, |greatest: f32, d| if d.is_nan() { f32::INFINITY } else { greatest.max(d) });
        greatest / self.tolerance
    }
}

/// How outputs for golden faces compare with the reference's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Held {
    pub faces: usize,
    pub least_cosine: f64,
    /// The greatest deviation: see [`Golden::deviation`].
    pub tolerances: f32,
}

impl Held {
    /// Of what `run` gives for each face, alone.
    pub fn of(
        golden: &[Golden],
        mut run: impl FnMut(&Pixels) -> Result<Vec<Vec<f32>>, ExecuteError>,
    ) -> Result<Self, ExecuteError> {
        let mut held = Self { faces: golden.len(), least_cosine: 1.0, tolerances: 0.0 };
        for golden in golden {
            let values = run(&golden.image)?.pop().unwrap_or_default();
            held.least_cosine = held.least_cosine.min(cosine(&values, &golden.expected));
            held.tolerances = held.tolerances.max(golden.deviation(&values));
        }
        Ok(held)
    }
}

/// What rounding may do in f32, as a share of the largest value: other orders of sums than the reference's make 1e-6.
const SHARE_OF_F32: f32 = 1e-3;
/// The most for any precision: outputs that differ so much have a cosine of about 0.995.
const MOST: f32 = 0.1;
/// In differences that the measured cosine says. Of the default model's golden faces the greatest are 0.8 of one in
/// bf16 and 0.6 in int8.
const DIFFERENCES: f32 = 3.0;

/// What rounding may do in the face network's precision, as a share of the largest value: a few times what it did where
/// the card's agreement was measured. A cosine c says a difference of `sqrt(2 (1 - c))`, of the output's length, and
/// about so of its largest value.
fn share_of(bundle: &Bundle, precision: Precision) -> f32 {
    if precision == Precision::F32 {
        return SHARE_OF_F32;
    }
    let agreement = bundle.contract().class(precision).and_then(|class| class.agreement);
    agreement.map_or(MOST, |cosine| (DIFFERENCES * (2.0 * (1.0 - cosine)).max(0.0).sqrt()).clamp(SHARE_OF_F32, MOST))
}

impl Drawn {
    /// A head of `share` of the image's height in its middle.
    fn draw(&self, size: InputSize, share: f32) -> Pixels {
        let (width, height) = (size.width as f32, size.height as f32);
        let (cx, cy) = (width / 2.0, height / 2.0);
        let (tall, wide) = (share * height / 2.0, share * height / 2.0 * 0.75);
        let mut rgb8 = Vec::with_capacity(size.width as usize * size.height as usize * 3);
        for y in 0..size.height {
            for x in 0..size.width {
                // In half heads from the middle of the face.
                let (u, v) = ((x as f32 + 0.5 - cx) / wide, (y as f32 + 0.5 - cy) / tall);
                let shade = self.shade(u, v);
                rgb8.extend(shade.map(|c| (c * self.light).clamp(0.0, 255.0) as u8));
            }
        }
        let flat = || Pixels::flat(size.width, size.height, [128; 3]);
        Pixels::new(size.width, size.height, rgb8).unwrap_or_else(|_| flat())
    }

    fn shade(&self, u: f32, v: f32) -> [f32; 3] {
        let inside = |x: f32, y: f32, w: f32, h: f32| ((u - x) / w).powi(2) + ((v - y) / h).powi(2);
        let times = |c: [f32; 3], factor: f32| c.map(|c| c * factor);
        for side in [-1.0, 1.0] {
            let eye = side * self.eyes;
            if inside(eye, -0.12, 0.07, 0.06) < 1.0 {
                return [25.0; 3]; // iris and pupil
            }
            if inside(eye, -0.12, 0.17, 0.075) < 1.0 {
                return [235.0; 3];
            }
            if inside(eye, -0.31, 0.22, 0.04) < 1.0 {
                return self.hair; // brow
            }
            if inside(side * 0.08, 0.27, 0.05, 0.03) < 1.0 {
                return times(self.skin, 0.45); // nostril
            }
        }
        if inside(0.0, 0.53, self.mouth, 0.08) < 1.0 {
            return if (v - 0.53).abs() < 0.012 { [70.0, 25.0, 25.0] } else { [176.0, 84.0, 82.0] };
        }
        let head = inside(0.0, 0.0, 1.0, 1.0);
        if head < 1.0 {
            // Hair above the forehead; the rest is lit from the front, the nose casts a shadow.
            if v < -0.62 - 0.15 * u.abs() {
                return self.hair;
            }
            let nose = if inside(0.06, 0.08, 0.09, 0.24) < 1.0 { 0.88 } else { 1.0 };
            return times(self.skin, nose * (1.05 - 0.35 * head));
        }
        if inside(0.0, -0.12, 1.12, 1.1) < 1.0 && v < 0.3 {
            return self.hair;
        }
        if u.abs() < 0.45 && v > 0.0 {
            return times(self.skin, 0.7); // neck
        }
        if v > 1.15 {
            return [70.0, 80.0, 110.0]; // shoulders
        }
        self.background
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deviation_is_counted_in_tolerances() {
        let golden = Golden {
            role: Role::Embed,
            image: Pixels::flat(1, 1, [0; 3]),
            expected: vec![1.0, -2.0],
            tolerance: 0.002,
        };
        assert_eq!(golden.deviation(&[1.0, -2.0]), 0.0);
        assert!((golden.deviation(&[1.001, -2.0]) - 0.5).abs() < 1e-3);
        assert!(golden.deviation(&[1.0, 2.0]) > 1.0);
        for wrong in [&[1.0][..], &[f32::NAN, -2.0], &[1.0, f32::INFINITY]] {
            assert_eq!(golden.deviation(wrong), f32::INFINITY, "{wrong:?}");
        }
    }

    #[test]
    fn drawn_faces_differ_as_they_should() {
        let size = InputSize { width: 60, height: 60 };
        let [one, dimmed, another] = [ONE, ONE_DIMMED, ANOTHER].map(|face| face.draw(size, 0.75));
        let middle = |face: &Pixels| face.rgb8()[(34 * 60 + 36) * 3];
        assert!(middle(&one) > middle(&dimmed) && middle(&dimmed) > middle(&another));
        assert!(one == ONE.draw(size, 0.75), "the same on every machine and at every time");
    }
}
