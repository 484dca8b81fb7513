//! Stage: where is the face? Plans what the detector and the landmark network see, and reads what they say. Pure: the
//! networks run elsewhere.
//!
//! The detector knows faces that fill a twelfth to a half of its view, and misses those that fill the frame, which is what
//! face crops look like. So there is a black margin around an image. It is shown small first, 160 pixels a side; then, as long as no face was
//! found, large with a margin as wide as itself, with a wider one, and as it is. In few pixels boxes are rough, and two faces that are equally
//! near do not look so: an image in which the small view sees more than one, however unsure of it, is judged by the large one; so is one that is
//! longer than a portrait. What each view finds of the default model's detector is the
//! table of docs/decisions/0010; here is which of them finds a face with landmarks that are plausible, in the order in which they are
//! tried. `make detector-views` prints both.
//!
//! | images | | found | small | crop | tight | photo |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | 40 face crops, the face fills them | 40 | 40 | 40 | 0 | 0 | 0 |
//! | scaled to 0.3, 0.5, 0.75, 1.5, 2 | 200 | 200 | 199 | 1 | 0 | 0 |
//! | cut closer and wider | 160 | 160 | 160 | 0 | 0 | 0 |
//! | leaning by 10 and 20 degrees | 160 | 159 | 159 | 0 | 0 | 0 |
//! | two side by side, longer than a portrait | 80 | 80 | - | 80 | 0 | 0 |
//! | with 23 covers each | 920 | 850 | 730 | 86 | 33 | 1 |
//! | faces of photos, cut to 1.2, 1, 0.8, 0.6, 0.45 face heights a side | 105 | 102 | 100 | 2 | 0 | 0 |
//! | the same, 0.35, 0.25, 0.18, 0.1 | 84 | 82 | 27 | 13 | 0 | 42 |
//!
//! Of 480 parts of the photos without a face the small view takes 2 for one; of 300 images of colours, noise, stripes and text it takes none, the
//! others 2.
//!
//! A face upside down is often found, with landmarks as if it were upright. It is told by the detector's score, which is higher once the image
//! is turned. In the small view 182 upright faces were found, 22 with less than [`SURELY_UPRIGHT`], which costs three more looks; 4 of them
//! looked better to it otherwise, and are refused. Of 65 turned ones that were found it tells all but 2. With a limit of 0.6 it misses 5,
//! with 0.8 no fewer, and 7 upright ones are refused. The large view, with 0.7: 4 of 179, and all but 1 of 36.

use vultus_engine::{
    image::{Point, Rect, Region},
    input::InputSize,
    view::{Geometry, View},
};

use crate::{
    domain::{Landmarks68, Measure, MeasureName, QualityThresholds},
    model::Role,
};

/// How an image is shown to the detector, and what it finds there that is a face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Framing {
    /// Of the networks that detect, the one whose size the view has.
    pub role: Role,
    /// Black on each side, in shares of the longer side.
    pub margin: f32,
    /// Faces with a lower score are none.
    pub least_score: f32,
    /// Height of a face at least, in shares of the image's longer side: below it, another framing sees it better.
    pub least_height: f32,
    /// Where it sees more than one from this score on, another framing judges the image: whose face is meant goes by their sizes. `None` where
    /// it does.
    pub company: Option<f32>,
}

impl Framing {
    /// For a face that fills much of the image, in the fewest pixels in which it is found as well as in [`Self::CROP`].
    pub const SMALL: Self =
        Self { role: Role::DetectSmall, margin: 0.2, least_score: 0.2, least_height: 0.3, company: Some(0.1) };
    /// The same with more room.
    pub const CROP: Self = Self { role: Role::Detect, margin: 1.0, least_score: 0.2, least_height: 0.3, company: None };
    /// For a face that is larger than the image: forehead or chin cut off.
    pub const TIGHT: Self =
        Self { role: Role::Detect, margin: 2.0, least_score: 0.2, least_height: 0.6, company: None };
    /// For faces that fill a small part of it.
    pub const PHOTO: Self =
        Self { role: Role::Detect, margin: 0.0, least_score: 0.5, least_height: 0.0, company: None };

    /// In the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::SMALL, Self::CROP, Self::TIGHT, Self::PHOTO];

    /// Those that are tried on an image of such a size. One that is longer than a portrait has room for several people, who are few pixels each
    /// in the small view.
    pub fn of_size((width, height): (u32, u32)) -> &'static [Self] {
        let (longer, shorter) = (u64::from(width.max(height)), u64::from(width.min(height)));
        if 2 * longer > 3 * shorter { &Self::ALL_BUT_SMALL } else { &Self::ALL }
    }

    const ALL_BUT_SMALL: [Self; 3] = [Self::CROP, Self::TIGHT, Self::PHOTO];

    /// From this score on what it sees counts, as a face or as another beside.
    pub fn sees_from(&self) -> f32 {
        self.company.unwrap_or(self.least_score)
    }
}

/// Of what this stage shows the networks, and of what it makes of their answers: a part of the extraction's version. To be raised where
/// faces are found, or landmarks placed, in another way.
pub const VERSION: &str = "2";

/// Below it, no framing takes a find for a face.
pub const LEAST_SCORE: f32 = 0.2;

/// From this score on a face is taken to be upright, and is not looked at again.
pub const SURELY_UPRIGHT: f32 = 0.7;
/// A face that the detector is surer of by so much when the image is turned by a quarter, or by half, lies so.
pub const TURNED_BY: f32 = 0.1;

/// The way back from a view to its image.
#[derive(Debug, Clone, Copy)]
pub struct Map {
    framing: Framing,
    /// Of the image, pixels.
    width: u32,
    height: u32,
}

/// A face that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Face {
    /// Pixels of the image.
    pub rect: Rect,
    /// The detector's, 0 to 1.
    pub score: f32,
}

/// How the detector sees an image of `width` x `height`: in the middle of a square of `side` pixels; and the way back.
pub fn view((width, height): (u32, u32), framing: Framing, side: u32) -> (View, Map) {
    let longer = side as f32 / (1.0 + 2.0 * framing.margin);
    let scaled = |length: u32| ((length as f32 * longer / width.max(height) as f32).round() as u32).clamp(1, side);
    let (across, down) = (scaled(width), scaled(height));
    let start = |length: u32| ((side - length) / 2) as i32;
    let geometry = Geometry::Scaled {
        part: Region { x: 0, y: 0, width, height },
        squared: false,
        into: Region { x: start(across), y: start(down), width: across, height: down },
    };
    let size = InputSize { width: side, height: side };
    (View { size, geometry, lit: true, quarter_turns: 0 }, Map { framing, width, height })
}

/// Where a place in a view, 0 to 1, is once that is turned clockwise by a quarter.
pub fn turned_by_a_quarter(Rect { x, y, width, height }: Rect) -> Rect {
    Rect { x: 1.0 - y - height, y: x, width: height, height: width }
}

impl Map {
    /// A place in the view, 0 to 1, in pixels of the image.
    fn place(&self, rect: Rect) -> Rect {
        let longer = self.width.max(self.height) as f32;
        let side = longer * (1.0 + 2.0 * self.framing.margin);
        Rect {
            x: rect.x * side - (side - self.width as f32) / 2.0,
            y: rect.y * side - (side - self.height as f32) / 2.0,
            width: rect.width * side,
            height: rect.height * side,
        }
    }

    /// A place of the image in the view, 0 to 1.
    pub fn seen(&self, rect: Rect) -> Rect {
        let side = self.width.max(self.height) as f32 * (1.0 + 2.0 * self.framing.margin);
        Rect {
            x: (rect.x + (side - self.width as f32) / 2.0) / side,
            y: (rect.y + (side - self.height as f32) / 2.0) / side,
            width: rect.width / side,
            height: rect.height / side,
        }
    }

    /// The detector's finds, as (place in the view from 0 to 1, score), that are faces of this framing.
    pub fn faces(&self, found: impl IntoIterator<Item = (Rect, f32)>) -> Vec<Face> {
        let least_height = self.framing.least_height * self.width.max(self.height) as f32;
        found
            .into_iter()
            .map(|(rect, score)| Face { rect: self.place(rect), score })
            .filter(|face| face.score >= self.framing.least_score && face.rect.height >= least_height)
            .filter(|face| face.rect.clipped(self.width, self.height).is_some())
            .collect()
    }
}

/// The face that an image is about, and how surely it is one and alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    pub rect: Rect,
    /// 0 to 100: the score, less where another face is nearly as prominent.
    pub presence: u8,
    /// The detector's, 0 to 1.
    pub score: f32,
}

/// The largest face, where those nearer to the middle count as larger. `None` without faces.
pub fn choose(faces: &[Face], width: u32, height: u32) -> Option<Chosen> {
    let (middle_x, middle_y) = (width as f32 / 2.0, height as f32 / 2.0);
    let prominence = |face: &Face| {
        let centre = face.rect.centre();
        let away = (centre.x - middle_x).hypot(centre.y - middle_y) / middle_x.hypot(middle_y);
        face.rect.width * face.rect.height * (1.0 - 0.5 * away.min(1.0))
    };
    let best = faces.iter().max_by(|a, b| prominence(a).total_cmp(&prominence(b)))?;
    let second = faces.iter().filter(|f| *f != best).map(prominence).fold(0.0, f32::max);
    let alone = 1.0 - second / prominence(best).max(f32::MIN_POSITIVE);
    let presence = (best.score * alone * 100.0).round().clamp(0.0, 100.0) as u8;
    Some(Chosen { rect: best.rect, presence, score: best.score })
}

/// As a quality measure.
pub fn presence(chosen: Option<&Chosen>, thresholds: &QualityThresholds) -> Measure {
    let (value, least) = (chosen.map_or(0, |c| c.presence), thresholds.least(MeasureName::FacePresence));
    let advice = match chosen {
        None => "show one whole face",
        Some(_) if value < least => "show one whole face, and no other near it",
        Some(_) => "",
    };
    // Without a face nothing is accepted, whatever a bundle says.
    Measure {
        name: MeasureName::FacePresence,
        value,
        least: if chosen.is_none() { least.max(1) } else { least },
        advice,
    }
}

/// The part of the image that the landmark network sees; `None` for a face outside the image.
pub fn landmark_region(face: &Rect, width: u32, height: u32) -> Option<Region> {
    let centre = face.centre();
    let (w, h) = (face.width * LANDMARK_ROOM, face.height * LANDMARK_ROOM);
    Rect { x: centre.x - w / 2.0, y: centre.y - h / 2.0, width: w, height: h }.clipped(width, height)
}

/// The landmark network sees more than the detector's box: foreheads and chins help it.
const LANDMARK_ROOM: f32 = 1.2;

/// The region as the landmark network takes it: a square of `side` pixels, black around.
pub fn landmark_view(region: Region, side: u32) -> View {
    View::squared(region, InputSize { width: side, height: side }).lit()
}

/// Landmarks relative to the region (0 to 1), in pixels of the image.
pub fn place_landmarks(relative: &Landmarks68, region: Region) -> Landmarks68 {
    let place = |p: Point| Point {
        x: region.x as f32 + p.x * region.width as f32,
        y: region.y as f32 + p.y * region.height as f32,
    };
    Landmarks68(relative.0.map(place))
}

#[cfg(test)]
mod tests {
    use vultus_engine::image::Pixels;

    use super::*;

    fn rect(x: f32, y: f32, width: f32, height: f32) -> Rect {
        Rect { x, y, width, height }
    }

    fn near(a: Rect, b: Rect) -> bool {
        [a.x - b.x, a.y - b.y, a.width - b.width, a.height - b.height].iter().all(|d| d.abs() < 1.0)
    }

    #[test]
    fn places_in_a_view_are_places_in_the_image() {
        for (framing, side) in
            [(Framing::SMALL, 160), (Framing::CROP, 416), (Framing::TIGHT, 416), (Framing::PHOTO, 416)]
        {
            // A white image 300 wide and 200 high: where is it white?
            let (view, map) = view((300, 200), framing, side);
            let seen = view.of(&Pixels::flat(300, 200, [255; 3]));
            assert_eq!((seen.width(), seen.height()), (side, side));
            let white = |x: u32, y: u32| seen.rgb8()[((y * side + x) * 3) as usize] == 255;
            let columns: Vec<u32> = (0..side).filter(|x| white(*x, side / 2)).collect();
            let rows: Vec<u32> = (0..side).filter(|y| white(side / 2, *y)).collect();
            let expected = side as f32 / (1.0 + 2.0 * framing.margin);
            assert!((columns.len() as f32 - expected).abs() <= 1.0, "{framing:?}");
            assert!((rows.len() as f32 - expected * 2.0 / 3.0).abs() <= 1.0, "{framing:?}");
            let scaled = |r: Rect, by: f32| rect(r.x * by, r.y * by, r.width * by, r.height * by);
            let seen = rect(columns[0] as f32, rows[0] as f32, columns.len() as f32, rows.len() as f32);
            // A pixel of the view is up to 3.6 pixels of the image.
            let placed = map.place(scaled(seen, 1.0 / side as f32));
            assert!(near(scaled(map.seen(placed), side as f32), seen), "{framing:?}");
            let within = |a: f32, b: f32| (a - b).abs() < 5.0;
            assert!(within(placed.x, 0.0) && within(placed.y, 0.0), "{framing:?} {placed:?}");
            assert!(within(placed.width, 300.0) && within(placed.height, 200.0), "{framing:?} {placed:?}");
        }
    }

    #[test]
    fn a_place_turns_with_its_view() {
        // A white part of an image that fills the view.
        let inside = |i: usize| (52..156).contains(&(i % 416)) && (104..156).contains(&(i / 416));
        let shade = (0..416 * 416).flat_map(|i| [if inside(i) { 255 } else { 0 }; 3]).collect();
        let image = Pixels::new(416, 416, shade).unwrap();
        let ((mut view, _), start) = (view((416, 416), Framing::PHOTO, 416), rect(0.125, 0.25, 0.25, 0.125));
        let mut place = start;
        for _ in 0..4 {
            (view, place) = (view.turned_by_a_quarter(), turned_by_a_quarter(place));
            let centre = place.centre();
            let at = ((centre.y * 416.0) as usize * 416 + (centre.x * 416.0) as usize) * 3;
            assert_eq!(view.of(&image).rgb8()[at], 255, "{place:?}");
        }
        assert!(near(place, start));
    }

    #[test]
    fn a_framing_reports_only_the_faces_it_is_for() {
        let (_, crop) = view((300, 300), Framing::CROP, 416);
        let third = |score| (rect(0.4, 0.4, 0.2, 0.2), score);
        assert_eq!(crop.faces([third(0.19)]), []);
        let faces = crop.faces([third(0.9), (rect(0.4, 0.4, 0.05, 0.05), 0.9), (rect(0.9, 0.9, 0.2, 0.2), 0.9)]);
        assert_eq!(faces.len(), 1, "too small and outside are left out");
        assert!(near(faces[0].rect, rect(60.0, 60.0, 180.0, 180.0)), "{:?}", faces[0]);
        let (_, photo) = view((300, 300), Framing::PHOTO, 416);
        assert_eq!(photo.faces([third(0.49)]), []);
        assert!(near(photo.faces([third(0.6)])[0].rect, rect(120.0, 120.0, 60.0, 60.0)));
        assert_eq!(photo.faces([(rect(f32::NAN, 0.0, 1.0, 1.0), 0.9), (third(f32::NAN))]), []);
    }

    #[test]
    fn the_largest_face_in_the_middle_is_chosen() {
        let face = |x, y, side, score| Face { rect: rect(x, y, side, side), score };
        assert_eq!(choose(&[], 300, 300), None);
        let alone = choose(&[face(100.0, 100.0, 100.0, 0.83)], 300, 300).unwrap();
        assert_eq!(alone.presence, 83);
        let (large, small) = (face(90.0, 90.0, 120.0, 0.5), face(0.0, 0.0, 40.0, 0.9));
        let chosen = choose(&[small, large], 300, 300).unwrap();
        assert_eq!(chosen.rect, large.rect);
        assert!(chosen.presence > 40, "a bystander far behind does not matter: {}", chosen.presence);
        let (left, right) = (face(20.0, 100.0, 100.0, 0.9), face(190.0, 100.0, 100.0, 0.9));
        assert!(choose(&[left, right], 300, 300).unwrap().presence < 20, "two people: which one is it?");
        let middle = face(100.0, 100.0, 100.0, 0.9);
        assert_eq!(choose(&[left, middle], 300, 300).unwrap().rect, middle.rect);
    }

    #[test]
    fn presence_says_what_to_do() {
        let thresholds = QualityThresholds::default().with(MeasureName::FacePresence, 15);
        let of = |presence| Chosen { rect: rect(0.0, 0.0, 9.0, 9.0), presence, score: 0.9 };
        assert!(presence(Some(&of(15)), &thresholds).accepted());
        assert!(!presence(Some(&of(14)), &thresholds).advice.is_empty());
        assert!(!presence(None, &QualityThresholds::default()).accepted(), "even where a bundle asks for nothing");
    }

    #[test]
    fn landmarks_come_back_to_the_image() {
        let region = landmark_region(&rect(50.0, 60.0, 100.0, 100.0), 300, 300).unwrap();
        assert!(region.x.abs_diff(40) <= 1 && region.y.abs_diff(50) <= 1, "{region:?}");
        assert!(region.width.abs_diff(120) <= 1 && region.height.abs_diff(120) <= 1, "{region:?}");
        let corner = landmark_region(&rect(250.0, 250.0, 100.0, 100.0), 300, 300).unwrap();
        assert!(corner.x + corner.width as i32 <= 300 && corner.width.abs_diff(60) <= 1, "{corner:?}");
        assert_eq!(landmark_region(&rect(400.0, 0.0, 50.0, 50.0), 300, 300), None);
        let placed = place_landmarks(&Landmarks68([Point { x: 0.5, y: 1.0 }; 68]), region);
        let expected =
            Point { x: region.x as f32 + 0.5 * region.width as f32, y: (region.y as f32) + region.height as f32 };
        assert_eq!(placed.0[67], expected);
        let seen = landmark_view(corner, 112).of(&Pixels::flat(300, 300, [9; 3]));
        assert_eq!((seen.width(), seen.height()), (112, 112));
    }
}
