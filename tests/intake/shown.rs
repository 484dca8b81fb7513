//! Images in which the place of each face is known, and images without any: what the views of views.rs are tried on.

use std::sync::Arc;

use vultus::pipeline::Pipeline;
use vultus_engine::{
    image::{Pixels, Rect, Region},
    view::Image,
};

use super::{COVERS, Face, decode, here, random::Dice, turn, turned};

/// An image, the faces that are to be found in it, and those that are there besides.
pub struct Shown {
    pub image: Pixels,
    pub faces: Vec<Rect>,
    pub others: Vec<Rect>,
}

impl Shown {
    pub fn new(image: Pixels, faces: impl Into<Vec<Rect>>) -> Self {
        Self { image, faces: faces.into(), others: vec![] }
    }
}

/// Faces of photos that fill the image.
pub const NEAR: &str = "photos, near";

/// Images of one kind; what a view makes of them is a column of the table.
pub struct Kind {
    pub name: &'static str,
    pub images: Vec<Shown>,
}

/// Crops as they are and changed as cameras and people change them; the box of each is known.
pub fn of_crops(faces: &[Face], boxes: &[Rect]) -> Vec<Kind> {
    let all = || faces.iter().zip(boxes);
    let scaled = |&(face, known): &(&Face, &Rect), by: f32| {
        let side = |side: u32| (side as f32 * by).round() as u32;
        Shown::new(
            face.image.resized(side(face.image.width()), side(face.image.height())),
            [within(known, 0.0, 0.0, by)],
        )
    };
    let cut = |&(face, known): &(&Face, &Rect), part: Region| {
        Shown::new(face.image.cut(part), [within(known, -(part.x as f32), -(part.y as f32), 1.0)])
    };
    let parts = [
        Region { x: 12, y: 12, width: 126, height: 126 },
        Region { x: -40, y: -20, width: 230, height: 190 },
        Region { x: -10, y: -40, width: 170, height: 230 },
        Region { x: 20, y: 0, width: 110, height: 150 },
    ];
    let mut pairs = Vec::new();
    for (at, (face, known)) in all().enumerate() {
        let (other, theirs) = (&faces[(at + 5) % faces.len()], &boxes[(at + 5) % faces.len()]);
        for by in [1.0, 0.75] {
            let small = (other.image.width() as f32 * by) as u32;
            let other = other.image.resized(small, small);
            let beside = face.image.width() as f32;
            let image = side_by_side(&face.image, &other);
            pairs.push(Shown::new(image, [*known, within(theirs, beside, 0.0, by)]));
        }
    }
    let covered = faces.iter().enumerate().flat_map(|(at, face)| {
        let other = &faces[(at + 5) % faces.len()];
        COVERS
            .iter()
            .map(move |cover| Shown::new(cover.over(&face.image, &face.five, (&other.image, &other.five)), [boxes[at]]))
    });
    let leaning = all()
        .flat_map(|(face, known)| [350, 340, 10, 20].map(|degrees| Shown::new(turned(&face.image, degrees), [*known])));
    vec![
        Kind { name: "crops", images: all().map(|each| scaled(&each, 1.0)).collect() },
        Kind {
            name: "scaled",
            images: all().flat_map(|each| [0.3, 0.5, 0.75, 1.5, 2.0].map(|by| scaled(&each, by))).collect(),
        },
        Kind { name: "cut", images: all().flat_map(|each| parts.map(|part| cut(&each, part))).collect() },
        Kind { name: "leaning", images: leaning.collect() },
        Kind { name: "of two", images: pairs },
        Kind { name: "covered", images: covered.collect() },
    ]
}

fn within(rect: &Rect, x: f32, y: f32, by: f32) -> Rect {
    Rect { x: rect.x * by + x, y: rect.y * by + y, width: rect.width * by, height: rect.height * by }
}

fn side_by_side(one: &Pixels, other: &Pixels) -> Pixels {
    let whole = Region { x: 0, y: 0, width: one.width() + other.width(), height: one.height() };
    let (mut left, right) = (one.cut(whole).rgb8().to_vec(), other.cut(Region { x: -(one.width() as i32), ..whole }));
    left.iter_mut().zip(right.rgb8()).for_each(|(left, right)| *left = (*left).max(*right));
    Pixels::new(whole.width, whole.height, left).unwrap()
}

/// Faces of the package's photos, so high in shares of the image's side; and parts without any.
pub async fn of_photos(pipeline: &Pipeline) -> Vec<Kind> {
    let large = decode::DecodeLimits { max_bytes: 64 << 20, max_pixels: 1 << 26, ..decode::DecodeLimits::default() };
    let (mut near, mut far, mut empty) = (vec![], vec![], vec![]);
    for number in 1..=6 {
        let file = std::fs::read(here(&format!("data/photos/sample{number}.jpg"))).expect("run `make model`");
        let photo = decode::decode(decode::Source::Encoded(&file), &large).unwrap();
        let image = Arc::new(Image::new(photo.clone(), ()));
        let known = pipeline.faces_in_photo(&image, turn().deadline).await.unwrap();
        let known: Vec<Rect> = known.iter().map(|face| face.rect).collect();
        for face in &known {
            for (share, of) in [1.2, 1.0, 0.8, 0.6, 0.45, 0.35, 0.25, 0.18, 0.1].into_iter().zip(0..) {
                let (side, centre) = (face.height / share, face.centre());
                let square = Rect { x: centre.x - side / 2.0, y: centre.y - side / 2.0, width: side, height: side };
                let Some(part) = square.clipped(photo.width(), photo.height()) else { continue };
                let seen = |face: &Rect| within(face, -(part.x as f32), -(part.y as f32), 1.0);
                let others = known.iter().filter(|other| *other != face).map(seen).collect();
                let kind = if of < 5 { &mut near } else { &mut far };
                kind.push(Shown { image: photo.cut(part), faces: vec![seen(face)], others });
            }
        }
        let mut dice = Dice(number);
        while empty.len() < 80 * number as usize {
            let side = dice.within([60.0, 400.0]);
            let (x, y) = ((photo.width() as f32 - side) * dice.share(), (photo.height() as f32 - side) * dice.share());
            let part = Rect { x, y, width: side, height: side };
            if !known.iter().any(|face| {
                part.x < face.x + face.width
                    && face.x < part.x + side
                    && part.y < face.y + face.height
                    && face.y < part.y + side
            }) {
                empty.push(Shown::new(photo.cut(part.clipped(photo.width(), photo.height()).unwrap()), []));
            }
        }
    }
    let kind = |name, images| Kind { name, images };
    vec![kind(NEAR, near), kind("photos, far", far), kind("parts of photos", empty)]
}

/// Flat colours, gradients, noise, stripes, blobs and mock text.
pub fn drawn(seed: u64) -> Pixels {
    let mut dice = Dice(seed * 7919 + 1);
    let side = dice.within([60.0, 300.0]) as u32;
    let colours: [[f32; 3]; 2] = [0; 2].map(|_| [0; 3].map(|_| dice.within([0.0, 255.0])));
    let (period, lean, x0, y0) = (dice.within([4.0, 60.0]), dice.within([-2.0, 2.0]), dice.share(), dice.share());
    let mut pixel = |x: u32, y: u32| {
        let (u, v) = (x as f32 / side as f32, y as f32 / side as f32);
        let share = match seed % 6 {
            0 => 0.0,
            1 => (u + v) / 2.0,
            2 => dice.share(),
            3 => f32::from(u8::from((x as f32 + lean * y as f32).rem_euclid(period) < period / 2.0)),
            4 => {
                (-30.0 * ((u - x0).powi(2) + (v - y0).powi(2))).exp()
                    + (-60.0 * ((u - y0).powi(2) + (v - x0).powi(2))).exp()
            }
            _ => f32::from(u8::from(y % 12 < 7 && (x * 7 + y / 12 * 31) % 11 < 5)),
        };
        std::array::from_fn::<u8, 3, _>(|c| {
            (colours[0][c] + share * (colours[1][c] - colours[0][c])).clamp(0.0, 255.0) as u8
        })
    };
    let rgb8 = (0..side * side).flat_map(|i| pixel(i % side, i / side)).collect();
    Pixels::new(side, side, rgb8).unwrap()
}
