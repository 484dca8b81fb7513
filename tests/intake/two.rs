//! Two people in one image: whose face is meant must not be guessed.

use vultus_engine::image::Pixels;

use super::{crops, input, pipeline, turn};

/// Another face, so many percent as large, and how many of the 40 images are accepted at most: where it is as near, few; where it is not, the
/// nearer is meant.
const MOST_ACCEPTED: [(u32, usize); 4] = [(100, 5), (90, 5), (80, 20), (65, 40)];

#[tokio::test]
async fn of_two_people_equally_near_none_is_taken() {
    let (pipeline, _) = pipeline();
    let Some(faces) = crops(&pipeline).await else { return };
    for (percent, most) in MOST_ACCEPTED {
        let mut accepted = 0;
        for (at, face) in faces.iter().enumerate() {
            let other = &faces[(at + 5) % faces.len()].image;
            let side = |side: u32| side * percent / 100;
            let both = beside(&face.image, &other.resized(side(other.width()), side(other.height())));
            let (assessment, _) = pipeline.assess(input(&both), &turn()).await.unwrap();
            accepted += usize::from(assessment.acceptable());
        }
        println!("another face of {percent} % beside: {accepted} of {} accepted", faces.len());
        assert!(accepted <= most, "{percent} %: {accepted}");
    }
}

/// On black, the middle of both at one height.
fn beside(one: &Pixels, other: &Pixels) -> Pixels {
    let (width, height) = (one.width() + other.width(), one.height());
    let mut rgb8 = vec![0; (width * height * 3) as usize];
    for (image, x, y) in [(one, 0, 0), (other, one.width(), (height - other.height()) / 2)] {
        for (row, pixels) in image.rgb8().chunks((image.width() * 3) as usize).enumerate() {
            let start = (((y as usize + row) * width as usize) + x as usize) * 3;
            rgb8[start..start + pixels.len()].copy_from_slice(pixels);
        }
    }
    Pixels::new(width, height, rgb8).unwrap()
}
