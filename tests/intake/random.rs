//! Faces changed at random: covers of any shape, place and texture to learn from, and other light and pose, which are none. The covers on
//! which the service is measured are those of covers.rs.

use vultus::domain::{FiveLandmarks, UprightFace};
use vultus_engine::image::{Pixels, Point, Region, Similarity};

use super::covers::onto;

/// Random values that follow from a seed.
pub struct Dice(pub u64);

type Range = [f32; 2];

impl Dice {
    /// 0 to 1.
    pub fn share(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    pub fn within(&mut self, [least, most]: Range) -> f32 {
        least + (most - least) * self.share()
    }

    fn falls(&mut self, chance: f32) -> bool {
        self.share() < chance
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[(self.share() * all.len() as f32) as usize % all.len()]
    }
}

#[derive(Clone, Copy)]
enum Form {
    Box,
    Round,
    /// Two round ones, left and right.
    Pair,
    Fingers,
}

/// Where covers may lie: centre and half sides in inter-eye distances from the eyes' middle, turned about the nose by up to so many radians.
struct Shape(Form, Range, Range, Range, Range, f32);

const ANYWHERE: (Range, Range) = ([-0.7, 0.7], [-0.2, 1.5]);
const SHAPES: [Shape; 17] = [
    // Masks, scarves: from the nose down.
    Shape(Form::Box, [0.0, 0.0], [2.1, 2.9], [0.6, 1.6], [2.0, 2.0], 0.1),
    Shape(Form::Box, [0.0, 0.0], [1.3, 1.6], [0.6, 1.4], [0.5, 1.1], 0.1),
    Shape(Form::Round, [0.0, 0.0], [1.0, 1.6], [0.7, 1.5], [0.5, 1.0], 0.1),
    // Bars, glasses, and what hangs down to the eyes.
    Shape(Form::Box, [-0.1, 0.1], [-0.1, 0.15], [0.8, 1.5], [0.18, 0.5], 0.1),
    Shape(Form::Pair, [0.45, 0.55], [-0.05, 0.12], [0.25, 0.48], [0.18, 0.42], 0.05),
    Shape(Form::Pair, [0.45, 0.55], [-0.05, 0.12], [0.25, 0.48], [0.18, 0.42], 0.05),
    Shape(Form::Box, [0.0, 0.0], [-1.4, -1.0], [3.0, 3.0], [1.5, 1.5], 0.1),
    // One eye, the mouth, the nose.
    Shape(Form::Round, [0.4, 0.7], [-0.15, 0.2], [0.3, 0.6], [0.25, 0.7], 0.3),
    Shape(Form::Box, [-0.25, 0.25], [0.85, 1.35], [0.4, 0.9], [0.2, 0.6], 0.3),
    Shape(Form::Round, [-0.1, 0.1], [0.35, 0.8], [0.18, 0.9], [0.15, 0.4], 0.3),
    Shape(Form::Box, [-0.1, 0.1], [0.35, 0.8], [0.18, 0.9], [0.15, 0.4], 0.3),
    // Half of the face, from any side.
    Shape(Form::Box, [5.75, 6.35], [0.45, 0.45], [6.0, 6.0], [6.0, 6.0], 3.2),
    Shape(Form::Box, [5.75, 6.35], [0.45, 0.45], [6.0, 6.0], [6.0, 6.0], 3.2),
    // Strips, spots, pieces, fingers.
    Shape(Form::Box, [0.0, 0.0], [-0.2, 1.3], [0.8, 2.5], [0.12, 0.4], 0.6),
    Shape(Form::Round, ANYWHERE.0, ANYWHERE.1, [0.2, 0.7], [0.2, 0.7], 1.6),
    Shape(Form::Box, ANYWHERE.0, ANYWHERE.1, [0.3, 1.0], [0.3, 1.0], 1.6),
    Shape(Form::Fingers, [-0.3, 0.3], [-0.1, 1.2], [0.3, 0.8], [0.4, 0.9], 1.6),
];

#[derive(Clone, Copy)]
enum Texture {
    /// One colour and noise: of how many cells, in shares of the image's width, and of how many grey levels.
    Noise(Range, Range),
    Stripes,
    Checks,
    Lines,
    Photo,
    Face,
    Blur,
    Blocks,
    /// The same image, from another place.
    Moved,
}

const TEXTURES: [Texture; 14] = [
    Texture::Noise([1.0, 1.0], [0.0, 4.0]),
    Texture::Noise([0.02, 0.08], [3.0, 40.0]),
    Texture::Noise([0.02, 0.08], [3.0, 40.0]),
    Texture::Noise([0.25, 0.9], [10.0, 90.0]),
    Texture::Noise([1.0, 1.0], [10.0, 120.0]),
    Texture::Stripes,
    Texture::Checks,
    Texture::Lines,
    Texture::Photo,
    Texture::Photo,
    Texture::Face,
    Texture::Blur,
    Texture::Blocks,
    Texture::Moved,
];

/// Whose parts may be pasted.
pub struct Others<'a> {
    pub faces: &'a [(&'a Pixels, FiveLandmarks)],
    pub photos: &'a [Pixels],
}

/// With one cover, or with two.
pub fn covered(dice: &mut Dice, image: &Pixels, five: &FiveLandmarks, others: &Others) -> Pixels {
    let face = five.upright().unwrap();
    let layer = dice.pick(&TEXTURES).layer(dice, image, five, &face, others);
    let (mut places, both) = (vec![Place::thrown(dice)], dice.falls(0.07));
    places.extend(both.then(|| Place::thrown(dice)));
    let soft = if dice.falls(0.7) { dice.within([0.3, 2.0]) } else { 0.0 };
    let around = [(0.0, 0.0), (soft, 0.0), (-soft, 0.0), (0.0, soft), (0.0, -soft)];
    changed(image, |x, y, pixel| {
        let hides = |(right, down): &(f32, f32)| {
            let (u, v) = on_face(&face, x + right, y + down);
            places.iter().any(|place| place.holds(u, v))
        };
        let share = around.iter().filter(|step| hides(step)).count() as f32 / around.len() as f32;
        let cover = at(&layer, x, y);
        std::array::from_fn(|c| pixel[c] + share * (cover[c] - pixel[c]))
    })
}

/// Of another light, sharpness and compression.
pub fn lit(dice: &mut Dice, mut image: Pixels) -> Pixels {
    let (light, contrast) = (dice.within([0.65, 1.3]), dice.within([0.7, 1.3]));
    let tint = if dice.falls(0.3) { [0; 3].map(|_| dice.within([0.85, 1.1])) } else { [1.0; 3] };
    let noise = if dice.falls(0.25) { dice.within([2.0, 14.0]) } else { 0.0 };
    image = changed(&image, |_, _, pixel| {
        let grain = noise * (dice.share() + dice.share() - 1.0);
        std::array::from_fn(|c| ((pixel[c] - 128.0) * contrast + 128.0) * light * tint[c] + grain)
    });
    if dice.falls(0.25) {
        image = coarse(&image, dice.within([0.5, 0.9]));
    }
    if dice.falls(0.4) {
        let mut file = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut file, dice.within([25.0, 95.0]) as u8);
        let (width, height) = (image.width() as u16, image.height() as u16);
        encoder.encode(image.rgb8(), width, height, jpeg_encoder::ColorType::Rgb).unwrap();
        image = super::decode::decode(super::decode::Source::Encoded(&file), &super::DecodeLimits::default()).unwrap();
    }
    image
}

/// Mirrored, leaning, stretched, moved: as far as cameras and people do.
pub fn moved(dice: &mut Dice, image: &Pixels) -> Pixels {
    let (mut image, mirrored) = (image.clone(), dice.falls(0.5));
    if dice.falls(0.6) {
        let side = |dice: &mut Dice, side: u32| (side as f32 * dice.within([0.87, 1.13])) as u32;
        image = image.whole().resized(side(dice, image.width()), side(dice, image.height()));
    }
    let angle = if dice.falls(0.6) { dice.within([-0.24, 0.24]) } else { 0.0 };
    let step = dice.within([0.87, 1.15]);
    let (width, height) = (image.width() as f32, image.height() as f32);
    let (a, b) = (angle.cos() * step, angle.sin() * step);
    let (x, y) = (width * dice.within([0.46, 0.54]), height * dice.within([0.46, 0.54]));
    let place =
        Similarity { a, b, dx: x - a * width / 2.0 + b * height / 2.0, dy: y - b * width / 2.0 - a * height / 2.0 };
    let warped = |of: &Pixels| of.warped(image.width(), image.height(), &place);
    let (inside, picture) = (warped(&Pixels::flat(image.width(), image.height(), [255; 3])), warped(&image));
    let beyond = if dice.falls(0.5) { 0.0 } else { dice.within([60.0, 160.0]) };
    changed(&picture, |x, y, _| {
        let x = if mirrored { width - 1.0 - x } else { x };
        let (share, pixel) = (at(&inside, x, y)[0] / 255.0, at(&picture, x, y));
        pixel.map(|v| v + (1.0 - share) * beyond)
    })
}

struct Place {
    form: Form,
    centre: (f32, f32),
    half: (f32, f32),
    turn: f32,
}

impl Place {
    fn thrown(dice: &mut Dice) -> Self {
        let Shape(form, across, down, width, height, turn) = dice.pick(&SHAPES);
        let side = if dice.falls(0.5) { 1.0 } else { -1.0 };
        let centre = (side * dice.within(*across), dice.within(*down));
        let half = (dice.within(*width), dice.within(*height));
        Self { form: *form, centre, half, turn: dice.within([-turn, *turn]) }
    }

    fn holds(&self, u: f32, v: f32) -> bool {
        const NOSE: f32 = 0.45;
        let ((sin, cos), v) = (self.turn.sin_cos(), v - NOSE);
        let (u, v) = (cos * u + sin * v, cos * v - sin * u + NOSE);
        let u = if matches!(self.form, Form::Pair) { u.abs() - self.centre.0.abs() } else { u - self.centre.0 };
        let (x, y) = (u / self.half.0, (v - self.centre.1) / self.half.1);
        match self.form {
            Form::Round | Form::Pair => x * x + y * y < 1.0,
            Form::Box => x.abs() < 1.0 && y.abs() < 1.0,
            Form::Fingers => x.abs() < 1.0 && y.abs() < 1.0 && (u / 0.25).rem_euclid(1.0) < 0.85,
        }
    }
}

impl Texture {
    /// As large as the image.
    fn layer(
        self,
        dice: &mut Dice,
        image: &Pixels,
        five: &FiveLandmarks,
        face: &UprightFace,
        others: &Others,
    ) -> Pixels {
        let (width, height) = (image.width(), image.height());
        let base = colour(dice, image, face);
        let (turn, period, strength) = (dice.within([0.0, 3.2]), dice.within([0.07, 0.5]), dice.within([8.0, 80.0]));
        let along =
            |u: f32, v: f32| ((u * turn.cos() + v * turn.sin()) / period, (v * turn.cos() - u * turn.sin()) / period);
        match self {
            Self::Noise(..) | Self::Stripes | Self::Checks | Self::Lines => {}
            Self::Photo => {
                let photo = dice.pick(others.photos);
                let side = dice.within([40.0, 300.0]);
                let (x, y) =
                    ((photo.width() as f32 - side) * dice.share(), (photo.height() as f32 - side) * dice.share());
                let part = Region { x: x as i32, y: y as i32, width: side as u32, height: side as u32 };
                return photo.frame(part).resized(width, height);
            }
            Self::Face => {
                let (other, mut theirs) = *dice.pick(others.faces);
                let off = 0.08 * (theirs.right_eye.x - theirs.left_eye.x);
                for eye in [&mut theirs.left_eye, &mut theirs.right_eye] {
                    *eye = Point { x: eye.x + dice.within([-off, off]), y: eye.y + dice.within([-off, off]) };
                }
                return onto(image, five, (other, &theirs));
            }
            Self::Blur => return coarse(image, 1.0 / (dice.within([0.15, 0.6]) * face.inter_eye)),
            Self::Blocks => {
                let side = (dice.within([0.12, 0.35]) * face.inter_eye).max(2.0);
                let few = image.whole().resized((width as f32 / side) as u32, (height as f32 / side) as u32);
                return changed(image, |x, y, _| at(&few, x / side, y / side));
            }
            Self::Moved => {
                let (a, reach) = (dice.within([0.6, 1.4]), 0.8 * face.inter_eye);
                let place =
                    Similarity { a, b: 0.0, dx: dice.within([-reach, reach]), dy: dice.within([-reach, reach]) };
                return image.warped(width, height, &place);
            }
        }
        let (cells, levels) =
            if let Self::Noise(cells, levels) = self { (cells, levels) } else { ([0.02, 0.08], [3.0, 40.0]) };
        let (cells, levels) = (dice.within(cells), dice.within(levels));
        let few = Pixels::flat((width as f32 * cells) as u32 + 1, (height as f32 * cells) as u32 + 1, [128; 3]);
        let noise =
            changed(&few, |_, _, _| [255.0 * (dice.share() + dice.share()) / 2.0; 3]).whole().resized(width, height);
        let (hard, other) = (dice.falls(0.5), colour(dice, image, face));
        // Where a line crosses the middle of the face, how it leans and bends, and half its width.
        let ranges = [[-0.5, 1.9], [-0.3, 0.3], [-0.5, 0.5], [0.01, 0.04]];
        let lines: Vec<[f32; 4]> =
            (0..1 + dice.within([0.0, 10.0]) as usize).map(|_| ranges.map(|range| dice.within(range))).collect();
        let lean = if dice.falls(0.6) { 0.0 } else { turn };
        changed(image, |x, y, _| {
            let (u, v) = on_face(face, x, y);
            let (p, q) = along(u, v);
            let (across, down) = (u * lean.cos() + v * lean.sin(), v * lean.cos() - u * lean.sin());
            let line = |[middle, slope, bend, half]: &[f32; 4]| {
                (down - middle - slope * across - bend * across * across).abs() < *half
            };
            let wave = (std::f32::consts::TAU * p).sin();
            let (colour, added) = match self {
                Self::Stripes => (base, strength * if hard { wave.signum() } else { wave }),
                Self::Checks if (p.floor() + q.floor()).rem_euclid(2.0) < 1.0 => (other, 0.0),
                Self::Lines if lines.iter().any(line) => (other, 0.0),
                _ => (base, 0.0),
            };
            colour.map(|v| v + added + (at(&noise, x, y)[0] - 128.0) / 64.0 * levels)
        })
    }
}

/// Of skin, grey, or any.
fn colour(dice: &mut Dice, image: &Pixels, face: &UprightFace) -> [f32; 3] {
    let grey = dice.within([5.0, 250.0]);
    match dice.share() {
        kind if kind < 0.3 => {
            let (sin, cos) = face.roll.sin_cos();
            let place = |u: f32, v: f32| {
                (face.eyes.x + face.inter_eye * (cos * u - sin * v), face.eyes.y + face.inter_eye * (sin * u + cos * v))
            };
            let (left, right) = (place(-0.45, 0.55), place(0.45, 0.55));
            let cheeks = (at(image, left.0, left.1), at(image, right.0, right.1));
            let light = dice.within([0.8, 1.2]);
            std::array::from_fn(|c| (cheeks.0[c] + cheeks.1[c]) / 2.0 * light + dice.within([-10.0, 10.0]))
        }
        kind if kind < 0.6 => [0; 3].map(|_| grey + dice.within([-10.0, 10.0])),
        _ => [0; 3].map(|_| dice.within([0.0, 255.0])),
    }
}

/// In inter-eye distances from the eyes' middle, along the face.
fn on_face(face: &UprightFace, x: f32, y: f32) -> (f32, f32) {
    let ((sin, cos), (x, y)) = (face.roll.sin_cos(), (x - face.eyes.x, y - face.eyes.y));
    ((cos * x + sin * y) / face.inter_eye, (cos * y - sin * x) / face.inter_eye)
}

/// The nearest pixel's.
fn at(image: &Pixels, x: f32, y: f32) -> [f32; 3] {
    let inside = |v: f32, side: u32| (v.max(0.0) as usize).min(side as usize - 1);
    let start = (inside(y, image.height()) * image.width() as usize + inside(x, image.width())) * 3;
    std::array::from_fn(|c| f32::from(image.rgb8()[start + c]))
}

fn changed(image: &Pixels, mut value: impl FnMut(f32, f32, [f32; 3]) -> [f32; 3]) -> Pixels {
    let mut rgb8 = image.rgb8().to_vec();
    for (i, pixel) in rgb8.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % image.width() as usize, i / image.width() as usize);
        let new = value(x as f32, y as f32, [pixel[0], pixel[1], pixel[2]].map(f32::from));
        pixel.iter_mut().zip(new).for_each(|(v, new)| *v = new.round().clamp(0.0, 255.0) as u8);
    }
    Pixels::new(image.width(), image.height(), rgb8).unwrap()
}

/// Seen with `scale` of its pixels.
fn coarse(image: &Pixels, scale: f32) -> Pixels {
    let side = |side: u32| ((side as f32 * scale.min(1.0)).round() as u32).max(2);
    image.whole().resized(side(image.width()), side(image.height())).whole().resized(image.width(), image.height())
}
