//! What a network is to see of an image: where it lies, and how bright it is. A device that keeps images makes views of them itself;
//! for others they are made here.

use std::{any::Any, fmt};

use crate::{
    image::{Pixels, Region, Similarity},
    input::InputSize,
};

/// A decoded image in the hands of all who work on it. Its pixels are wiped when the last has gone.
pub struct Image {
    pixels: Pixels,
    /// Goes with it, say the room that it takes.
    _held: Box<dyn Any + Send + Sync>,
}

impl Image {
    /// `held` is dropped with the image.
    pub fn new(pixels: Pixels, held: impl Any + Send + Sync) -> Self {
        Self { pixels, _held: Box::new(held) }
    }

    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({:?})", self.pixels)
    }
}

/// Where the pixels of a view come from. Black where that lies outside of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Geometry {
    /// A part of the image, scaled into a part of the view, as [`Frame::resized`](crate::image::Frame::resized) does.
    Scaled {
        part: Region,
        /// Padded with black to a square before it is scaled, the part in its middle: what lies beside the part is not seen.
        squared: bool,
        into: Region,
    },
    /// A turned and scaled part, sampled bilinearly.
    Warped {
        /// The image is first scaled down by this whole factor, at least 1: sampling single pixels would alias.
        shrink: u32,
        /// From a pixel of the view to its place in what was scaled down.
        place: Similarity,
    },
}

/// How an image is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    pub size: InputSize,
    pub geometry: Geometry,
    /// Dark pictures are multiplied until their bright parts are bright.
    pub lit: bool,
    /// Turned clockwise by so many quarters, at last. For square views.
    pub quarter_turns: u8,
}

impl View {
    /// A part of the image that fills the view.
    pub fn filled(part: Region, size: InputSize) -> Self {
        let into = Region { x: 0, y: 0, width: size.width, height: size.height };
        Self { size, geometry: Geometry::Scaled { part, squared: false, into }, lit: false, quarter_turns: 0 }
    }

    /// The same, the part padded with black to a square.
    pub fn squared(part: Region, size: InputSize) -> Self {
        let into = Region { x: 0, y: 0, width: size.width, height: size.height };
        Self { geometry: Geometry::Scaled { part, squared: true, into }, ..Self::filled(part, size) }
    }

    pub fn lit(self) -> Self {
        Self { lit: true, ..self }
    }

    /// Turned clockwise by one more quarter.
    pub fn turned_by_a_quarter(self) -> Self {
        Self { quarter_turns: (self.quarter_turns + 1) % 4, ..self }
    }

    /// Makes it. Takes time in proportion to the part of the image that is seen.
    pub fn of(&self, image: &Pixels) -> Pixels {
        let InputSize { width, height } = self.size;
        let light = |picture: Pixels| if self.lit { lit(picture) } else { picture };
        let seen = match self.geometry {
            Geometry::Scaled { part, squared, into } => {
                let frame = image.frame(part);
                let frame = if squared { frame.squared() } else { frame };
                // Before there is black around, which is dark in any light and may be most of the view.
                let scaled = light(frame.resized(into.width, into.height));
                let whole = Region { x: -into.x, y: -into.y, width, height };
                if whole == (Region { x: 0, y: 0, width: into.width, height: into.height }) {
                    scaled
                } else {
                    scaled.cut(whole)
                }
            }
            Geometry::Warped { shrink: 0 | 1, place } => light(image.warped(width, height, &place)),
            Geometry::Warped { shrink, place } => {
                let smaller = image.resized(image.width() / shrink, image.height() / shrink);
                light(smaller.warped(width, height, &place))
            }
        };
        (0..self.quarter_turns % 4).fold(seen, |seen, _| seen.turned_by_a_quarter())
    }
}

/// Multiplies a dark picture until its bright parts are bright: a face in the dark is to be found, so that the answer can be
/// "too dark" and not "no face".
fn lit(picture: Pixels) -> Pixels {
    /// Brighter pictures stay as they are.
    const DARK: u8 = 110;
    const BRIGHT: f32 = 200.0;
    /// Beyond it there is only noise.
    const MOST: f32 = 16.0;
    let mut histogram = [0u32; 256];
    picture.rgb8().iter().for_each(|v| histogram[usize::from(*v)] += 1);
    // The value that one in fifty exceeds, of what is not black: padding has no say.
    let above = |value: usize| histogram[value..].iter().sum::<u32>();
    let counted = above(1);
    let bright = (1..=255usize).rev().find(|v| above(*v) * 50 >= counted).unwrap_or(0) as u8;
    if bright == 0 || bright >= DARK {
        return picture;
    }
    let gain = (BRIGHT / f32::from(bright)).min(MOST);
    picture.mapped(|v| (f32::from(v) * gain).min(255.0) as u8)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SIZE: InputSize = InputSize { width: 4, height: 4 };

    fn shown(pixels: &Pixels) -> Vec<u8> {
        pixels.rgb8().chunks(3).map(|p| p[0]).collect()
    }

    /// 2 x 2, 200 in the top left corner, 150 elsewhere.
    fn corner() -> Pixels {
        Pixels::new(2, 2, [[200; 3], [150; 3], [150; 3], [150; 3]].concat()).unwrap()
    }

    #[test]
    fn a_part_is_scaled_into_a_part_and_turned() {
        let part = Region { x: 0, y: 0, width: 2, height: 2 };
        let into = Region { x: 1, y: 1, width: 2, height: 2 };
        let view = View { geometry: Geometry::Scaled { part, squared: false, into }, ..View::filled(part, SIZE) };
        assert_eq!(shown(&view.of(&corner())), [0, 0, 0, 0, 0, 200, 150, 0, 0, 150, 150, 0, 0, 0, 0, 0]);
        let turned = view.turned_by_a_quarter();
        assert_eq!(shown(&turned.of(&corner()))[5..7], [150, 200]);
        let round = turned.turned_by_a_quarter().turned_by_a_quarter().turned_by_a_quarter();
        assert_eq!(round, view);
    }

    #[test]
    fn a_square_shows_nothing_beside_its_part() {
        let part = Region { x: 0, y: 0, width: 1, height: 2 };
        let size = InputSize { width: 2, height: 2 };
        assert_eq!(shown(&View::squared(part, size).of(&corner())), [200, 0, 150, 0]);
        let wide = Region { x: 0, y: 0, width: 2, height: 2 };
        assert_eq!(shown(&View::filled(wide, size).of(&corner())), [200, 150, 150, 150]);
    }

    #[test]
    fn a_warp_moves_what_was_shrunk() {
        let image = Pixels::flat(4, 4, [80; 3]);
        let place = Similarity { a: 1.0, b: 0.0, dx: -1.0, dy: 0.0 };
        let view = View { geometry: Geometry::Warped { shrink: 2, place }, ..View::filled(Region::of(&image), SIZE) };
        assert_eq!(shown(&view.of(&image)), [0, 80, 80, 0, 0, 80, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_dark_picture_is_lit_for_the_networks() {
        let shades: Vec<u8> = (0..300 * 3).map(|i| (i / 3 % 20) as u8).collect();
        let lit_shades = lit(Pixels::new(300, 1, shades).unwrap());
        let brightest = *lit_shades.rgb8().iter().max().unwrap();
        assert!((190..=210).contains(&brightest), "{brightest}");
        let ordinary = Pixels::flat(9, 9, [110; 3]);
        assert!(lit(ordinary.clone()) == ordinary);
        let black = Pixels::flat(9, 9, [0; 3]);
        assert!(lit(black.clone()) == black);
        assert!(lit(Pixels::flat(9, 9, [1; 3])) == Pixels::flat(9, 9, [16; 3]), "noise is not lit without end");
    }

    #[test]
    fn what_is_held_goes_with_the_image() {
        let room = Arc::new(());
        let image = Image::new(corner(), Arc::clone(&room));
        assert_eq!((Arc::strong_count(&room), format!("{image:?}").as_str()), (2, "Image(Pixels(2x2))"));
        drop(image);
        assert_eq!(Arc::strong_count(&room), 1);
    }
}
