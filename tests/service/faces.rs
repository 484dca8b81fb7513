//! Faces for the tests: from the photos that come with the default model, cut out as a counter's camera would frame them.

use std::{fs, sync::LazyLock};

use serde::Deserialize;
use vultus::{
    pipeline::decode::{DecodeLimits, Source, decode},
    rpc::pb,
};
use vultus_engine::image::{Pixels, Rect};

use crate::{
    requests::raw,
    server::{models, root},
};

#[derive(Deserialize)]
struct Boxes {
    faces: Vec<Face>,
}

#[derive(Deserialize)]
struct Face {
    photo: String,
    /// x, y, width, height as shares of the photo's sides.
    #[serde(rename = "box")]
    rect: [f32; 4],
}

/// Two images of one person: the same photo, framed and lit in two ways.
pub struct Person {
    pub reference: Option<pb::FaceImage>,
    pub probe: Option<pb::FaceImage>,
}

/// Different people.
pub static PEOPLE: LazyLock<Vec<Person>> = LazyLock::new(|| {
    let root = root();
    let boxes: Boxes = serde_json::from_str(&fs::read_to_string(root.join("tests/data/faces.json")).unwrap()).unwrap();
    let photos = models().parent().unwrap().join("photos");
    let large = DecodeLimits { max_bytes: 64 << 20, max_pixels: 1 << 26, ..DecodeLimits::default() };
    let people = boxes.faces.iter().map(|face| {
        let file = fs::read(photos.join(&face.photo)).expect("the photos: run `make model`");
        let photo = decode(Source::Encoded(&file), &large).unwrap();
        Person { reference: cut(&photo, face.rect, 1.4, 0.0, 1.0), probe: cut(&photo, face.rect, 1.6, 0.03, 1.1) }
    });
    people.collect()
});

/// A square of `margin` times the box's longer side, moved right by `shift` sides, its light multiplied by `light`.
fn cut(photo: &Pixels, [x, y, w, h]: [f32; 4], margin: f32, shift: f32, light: f32) -> Option<pb::FaceImage> {
    let (width, height) = (photo.width() as f32, photo.height() as f32);
    let side = margin * (w * width).max(h * height);
    let centre = ((x + w / 2.0) * width + shift * side, (y + h / 2.0) * height);
    let square = Rect { x: centre.0 - side / 2.0, y: centre.1 - side / 2.0, width: side, height: side };
    let crop = photo.cut(square.clipped(photo.width(), photo.height()).unwrap());
    let lit: Vec<u8> = crop.rgb8().iter().map(|v| (f32::from(*v) * light).min(255.0) as u8).collect();
    raw(crop.width(), crop.height(), lit)
}
