//! What hides a part of a face, drawn by program: plain, and with the textures that masks, cloth and skin have.

use vultus::domain::FiveLandmarks;
use vultus_engine::image::{Pixels, Similarity};

/// What is drawn on a cover.
pub enum Texture {
    /// Noise of a few grey levels.
    Plain,
    /// A printed line, bent as a mouth is.
    Smile,
    /// The folds of a mask.
    Pleats,
    /// Threads.
    Cloth,
    /// Noise of the size of a pixel.
    Grain,
    /// Another person's face, eyes on eyes.
    Face,
}

pub struct Cover {
    pub name: &'static str,
    /// Left, top, right and bottom in inter-eye distances from the eyes' middle; the mouth is about one below.
    part: [f32; 4],
    colour: [u8; 3],
    pub texture: Texture,
}

const fn cover(name: &'static str, part: [f32; 4], colour: [u8; 3], texture: Texture) -> Cover {
    Cover { name, part, colour, texture }
}

const MASK: [f32; 4] = [-1.2, 0.5, 1.2, 2.0];
const EYES: [f32; 4] = [-1.0, -0.3, 1.0, 0.3];
const NOSE_DOWN: [f32; 4] = [-1.5, 0.8, 1.5, 4.0];
const LEFT: [f32; 4] = [-1.5, -3.0, 0.0, 4.0];
const RIGHT: [f32; 4] = [0.0, -3.0, 1.5, 4.0];
const LOWER: [f32; 4] = [-1.5, 0.4, 1.5, 4.0];

/// What people at a counter may wear or do, and what somebody may try.
pub const COVERS: [Cover; 23] = [
    cover("mask, light", MASK, [200, 220, 235], Texture::Plain),
    cover("mask, dark", MASK, [30, 30, 34], Texture::Plain),
    cover("mask, white, a printed smile", MASK, [215, 215, 220], Texture::Smile),
    cover("mask, white, pleats", MASK, [220, 225, 230], Texture::Pleats),
    cover("mask, blue, pleats", MASK, [110, 160, 200], Texture::Pleats),
    cover("mask, cloth", MASK, [90, 90, 110], Texture::Cloth),
    cover("sunglasses", EYES, [15, 15, 15], Texture::Plain),
    cover("left half, skin", LEFT, [190, 150, 130], Texture::Plain),
    cover("right half, dark", RIGHT, [60, 60, 70], Texture::Plain),
    cover("left half, grain", LEFT, [128, 128, 128], Texture::Grain),
    cover("right half, grain", RIGHT, [128, 128, 128], Texture::Grain),
    cover("lower half, grain", LOWER, [128, 128, 128], Texture::Grain),
    cover("below the nose, grain", NOSE_DOWN, [128, 128, 128], Texture::Grain),
    cover("forehead, a hat", [-1.5, -3.0, 1.5, -0.35], [60, 40, 30], Texture::Plain),
    cover("one eye, skin", [-0.9, -0.3, -0.1, 0.3], [200, 160, 140], Texture::Plain),
    cover("mouth, a hand", [-0.6, 0.75, 0.6, 1.35], [200, 160, 140], Texture::Plain),
    cover("scarf over the mouth", NOSE_DOWN, [120, 30, 30], Texture::Plain),
    cover("scarf over the mouth, cloth", NOSE_DOWN, [120, 60, 60], Texture::Cloth),
    cover("both eyes, a hand", EYES, [195, 155, 135], Texture::Plain),
    cover("plaster on the nose", [-0.25, 0.35, 0.25, 0.85], [230, 215, 190], Texture::Plain),
    cover("plaster over nose and cheeks", [-1.3, 0.3, 1.3, 0.75], [225, 215, 205], Texture::Plain),
    cover("right half, another's face", RIGHT, [0; 3], Texture::Face),
    cover("lower half, another's face", LOWER, [0; 3], Texture::Face),
];

impl Cover {
    /// `other`: another person, to be pasted.
    pub fn over(&self, image: &Pixels, five: &FiveLandmarks, other: (&Pixels, &FiveLandmarks)) -> Pixels {
        let mut rgb8 = image.rgb8().to_vec();
        let apart = five.right_eye.x - five.left_eye.x;
        let (x, y) = ((five.left_eye.x + five.right_eye.x) / 2.0, (five.left_eye.y + five.right_eye.y) / 2.0);
        let pasted = onto(image, five, other);
        let [left, top, right, bottom] = self.part;
        let mut noise = 1_u32;
        for (at, pixel) in rgb8.chunks_exact_mut(3).enumerate() {
            let (column, row) = ((at % image.width() as usize) as f32, (at / image.width() as usize) as f32);
            let (px, py) = ((column - x) / apart, (row - y) / apart);
            if !(left..right).contains(&px) || !(top..bottom).contains(&py) {
                continue;
            }
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if matches!(self.texture, Texture::Face) {
                pixel.copy_from_slice(&pasted.rgb8()[at * 3..at * 3 + 3]);
                continue;
            }
            let noise = (noise >> 16) as f32 / 65536.0 * 2.0 - 1.0;
            let shade = self.texture.shade(px, py, noise);
            pixel.iter_mut().zip(self.colour).for_each(|(v, c)| *v = (f32::from(c) + shade).clamp(0.0, 255.0) as u8);
        }
        Pixels::new(image.width(), image.height(), rgb8).unwrap()
    }
}

impl Texture {
    /// Grey levels that it adds at a place, in inter-eye distances. `noise`: -1 to 1.
    fn shade(&self, x: f32, y: f32, noise: f32) -> f32 {
        let slow = 8.0 * (x * 3.0).sin() + 6.0 * (y * 4.0).cos();
        match self {
            Self::Plain => noise * 2.0,
            Self::Smile if x.abs() < 0.4 && (y - 1.2 + x * x).abs() < 0.03 => -120.0,
            Self::Smile => slow + noise * 4.0,
            Self::Pleats if (y - 0.03 * x.abs() - 0.6).rem_euclid(0.2) < 0.03 => -50.0,
            Self::Pleats => slow + noise * 4.0,
            Self::Cloth => slow + noise * 30.0 + 6.0 * (x * 40.0).sin() * (y * 40.0).sin(),
            Self::Grain => slow + noise * 35.0,
            Self::Face => 0.0,
        }
    }
}

/// The other's picture where this one's face is.
pub fn onto(image: &Pixels, five: &FiveLandmarks, (other, theirs): (&Pixels, &FiveLandmarks)) -> Pixels {
    let across = |five: &FiveLandmarks| (five.right_eye.x - five.left_eye.x, five.right_eye.y - five.left_eye.y);
    let ((x, y), (u, v)) = (across(five), across(theirs));
    let long = x * x + y * y;
    let (a, b) = ((u * x + v * y) / long, (v * x - u * y) / long);
    let (from, to) = (five.left_eye, theirs.left_eye);
    let place = Similarity { a, b, dx: to.x - a * from.x + b * from.y, dy: to.y - b * from.x - a * from.y };
    other.warped(image.width(), image.height(), &place)
}
