//! Several people in one image: whose face is meant must not be guessed.

use vultus_engine::image::Pixels;

use super::{Face, crops, input, pipeline, turn};

/// A place in the image, its upper left corner, and how large, in percent.
type Part = (u32, u32, u32);

/// Where three faces lie, the last in front; of 40 such images so many are accepted at most: those that the large view
/// alone accepts, and two for machines that round otherwise. Where the others are as near they are few; where they are not, the nearer is meant.
const LAYOUTS: [(&str, &[Part], usize); 12] = [
    ("two beside", &[(0, 0, 100), (150, 0, 100)], 5),
    ("two beside, 90 %", &[(0, 0, 100), (150, 7, 90)], 5),
    ("two beside, 80 %", &[(0, 0, 100), (150, 15, 80)], 20),
    ("two beside, 65 %", &[(0, 0, 100), (150, 26, 65)], 40),
    ("three abreast", &[(0, 0, 100), (150, 0, 100), (300, 0, 100)], 20),
    ("three in a column", &[(0, 0, 100), (0, 150, 100), (0, 300, 100)], 13),
    ("three overlapping", &[(0, 0, 100), (110, 0, 100), (220, 0, 100)], 8),
    ("one behind", &[(90, 0, 100), (0, 0, 100)], 30),
    ("one far behind", &[(60, 0, 100), (0, 0, 100)], 37),
    ("one below, 85 %", &[(0, 0, 100), (11, 150, 85)], 12),
    ("two by two", &[(0, 0, 100), (150, 0, 100), (0, 150, 100)], 3),
    ("two with room", &[(0, 40, 100), (190, 40, 100), (340, 230, 1)], 5),
];

#[tokio::test]
async fn of_several_people_equally_near_none_is_taken() {
    let (pipeline, _) = pipeline();
    let Some(faces) = crops(&pipeline).await else { return };
    let mut broken = Vec::new();
    for (name, parts, most) in LAYOUTS {
        let mut accepted = 0;
        for at in 0..faces.len() {
            let (assessment, _) = pipeline.assess(input(&together(&faces, at, parts)), &turn()).await.unwrap();
            accepted += usize::from(assessment.acceptable());
        }
        println!("{name}: {accepted} of {} accepted", faces.len());
        if accepted > most {
            broken.push((name, accepted));
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}

/// On black.
fn together(faces: &[Face], at: usize, parts: &[Part]) -> Pixels {
    let images: Vec<(Pixels, u32, u32)> = (parts.iter().zip(0..))
        .map(|((x, y, percent), number)| {
            let image = &faces[(at + 5 * number) % faces.len()].image;
            let side = |side: u32| (side * percent / 100).max(1);
            (image.resized(side(image.width()), side(image.height())), *x, *y)
        })
        .collect();
    let width = images.iter().map(|(image, x, _)| image.width() + x).max().unwrap();
    let height = images.iter().map(|(image, _, y)| image.height() + y).max().unwrap();
    let mut rgb8 = vec![0; (width * height * 3) as usize];
    for (image, x, y) in &images {
        for (row, pixels) in image.rgb8().chunks((image.width() * 3) as usize).enumerate() {
            let start = (((*y as usize + row) * width as usize) + *x as usize) * 3;
            rgb8[start..start + pixels.len()].copy_from_slice(pixels);
        }
    }
    Pixels::new(width, height, rgb8).unwrap()
}
