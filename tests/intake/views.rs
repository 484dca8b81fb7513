//! How small may the detector's first view be? `make detector-views` prints the table of docs/decisions/0010: for each side and margin, what
//! is found of faces whose place is known, what is found where no face is, how turned faces are told, and what a view costs.

use std::{
    num::NonZeroUsize,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use vultus::{
    domain::{Alignment, Landmarks68, ModelDigest, Template, Threshold, compare},
    model::{Bundle, ModelSet, Role, detector, landmarks},
    pipeline::{
        align,
        locate::{self, Framing},
    },
};
use vultus_engine::{
    cpu::CpuExecutor,
    executor::{Executor, NetworkId, Planned, run},
    image::{Pixels, Rect},
    input::InputSize,
    plan::Plan,
    precision::Precision,
};

use super::{
    Face, crops, here, mirrored, pipeline,
    shown::{Kind, NEAR, Shown, drawn, of_crops, of_photos},
    turned, turned_with_a_border,
};

const SIDES: [u32; 6] = [128, 160, 192, 224, 288, 416];
const MARGINS: [f32; 5] = [0.1, 0.2, 0.3, 0.5, 1.0];
/// Boxes that share so much of their union are of one face.
const SAME: f32 = 0.4;

struct Networks {
    executor: CpuExecutor,
    embed: InputSize,
}

const LANDMARK: NetworkId = NetworkId(SIDES.len());
const EMBED: NetworkId = NetworkId(SIDES.len() + 1);

impl Networks {
    fn of(set: &ModelSet) -> Self {
        let planned = |bundle: &Bundle| Planned {
            plan: Plan::new(bundle.graph(), bundle.weights()).unwrap(),
            input: bundle.contract().input.clone(),
            precision: Precision::F32,
        };
        let detect = |side| planned(&set.bundle(Role::Detect).resized(side, detector::outputs(side)).unwrap());
        let mut all = SIDES.map(detect).into_iter().collect::<Vec<_>>();
        all.extend([Role::Landmark, Role::Embed].map(|role| planned(set.bundle(role))));
        let executor = CpuExecutor::new(all, NonZeroUsize::MIN).unwrap();
        Self { embed: executor.input_size(EMBED), executor }
    }

    /// The detector's finds in a view of `SIDES[side]`, turned by so many quarters; in pixels of the image where it is not turned.
    fn faces(&mut self, image: &Pixels, framing: Framing, side: usize) -> Vec<locate::Face> {
        let (view, map) = locate::view((image.width(), image.height()), framing, SIDES[side]);
        let outputs = run(&mut self.executor, NetworkId(side), &[&view.of(image)]).unwrap().remove(0);
        map.faces(detector::detections(&outputs, framing.least_score).into_iter().map(|d| (d.rect, d.score)))
    }

    /// How many it sees, faces or not.
    fn finds(&mut self, image: &Pixels, framing: Framing, side: usize) -> usize {
        let (view, _) = locate::view((image.width(), image.height()), framing, SIDES[side]);
        let outputs = run(&mut self.executor, NetworkId(side), &[&view.of(image)]).unwrap().remove(0);
        detector::detections(&outputs, framing.sees_from()).len()
    }

    fn landmarks(&mut self, image: &Pixels, face: &Rect) -> Option<Landmarks68> {
        let region = locate::landmark_region(face, image.width(), image.height())?;
        let seen = locate::landmark_view(region, landmarks::INPUT_SIDE).of(image);
        let outputs = run(&mut self.executor, LANDMARK, &[&seen]).unwrap().remove(0);
        let relative = landmarks::landmarks(&outputs, region.width as f32, region.height as f32)?;
        let all = locate::place_landmarks(&relative, region);
        align::check_landmarks(&all.five(), image.width(), image.height()).is_ok().then_some(all)
    }

    /// The face that an image is about, with its landmarks, if they are plausible.
    fn located(&mut self, image: &Pixels, framing: Framing, side: usize) -> Option<(locate::Chosen, Landmarks68)> {
        let faces = self.faces(image, framing, side);
        let chosen = locate::choose(&faces, image.width(), image.height())?;
        self.landmarks(image, &chosen.rect).map(|all| (chosen, all))
    }

    /// The score of what lies at a face's place, upright and turned by one, two and three quarters; 0 where nothing does.
    fn turned_scores(&mut self, image: &Pixels, face: &Rect, framing: Framing, side: usize) -> [f32; 3] {
        let (mut view, map) = locate::view((image.width(), image.height()), framing, SIDES[side]);
        let mut place = map.seen(*face);
        std::array::from_fn(|_| {
            (view, place) = (view.turned_by_a_quarter(), locate::turned_by_a_quarter(place));
            let outputs = run(&mut self.executor, NetworkId(side), &[&view.of(image)]).unwrap().remove(0);
            let found = detector::detections(&outputs, locate::LEAST_SCORE);
            found.iter().filter(|d| place.meets(&d.rect)).map(|d| d.score).fold(0.0, f32::max)
        })
    }
}

fn framing(margin: f32) -> Framing {
    Framing { margin, ..Framing::SMALL }
}

fn overlap(a: &Rect, b: &Rect) -> f32 {
    let width = (a.x + a.width).min(b.x + b.width) - a.x.max(b.x);
    let height = (a.y + a.height).min(b.y + b.height) - a.y.max(b.y);
    let shared = width.max(0.0) * height.max(0.0);
    shared / (a.width * a.height + b.width * b.height - shared)
}

/// What a view makes of all images.
struct Row {
    side: usize,
    margin: f32,
    /// Of each kind: faces found in their place, and finds with plausible landmarks where no face is.
    kinds: Vec<(usize, usize)>,
    /// Of the pairs of crops, against the widest view.
    decisions_changed: usize,
    /// Scores of upright and of turned faces that were found with plausible landmarks: as they lie, and the best of the other quarters.
    upright: Vec<[f32; 2]>,
    turned: Vec<[f32; 2]>,
}

#[tokio::test]
#[ignore = "a measurement: many minutes"]
async fn views_of_the_detector() {
    let set = ModelSet::open(&here("data/models"), "default").unwrap();
    let mut networks = Networks::of(&set);
    let (faces, kinds, threshold) = shown(&mut networks).await;
    let wide = SIDES.len() - 1;
    let usual = templates(&mut networks, &faces, Framing::CROP, wide);
    let views: Vec<(usize, f32)> = (0..SIDES.len()).flat_map(|side| MARGINS.map(|margin| (side, margin))).collect();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                let mut networks = Networks::of(&set);
                while let Some((side, margin)) = views.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = row(&mut networks, (*side, *margin), &faces, &kinds, &usual, threshold);
                    rows.lock().unwrap().push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap();
    rows.sort_by(|a, b| (a.side, a.margin).partial_cmp(&(b.side, b.margin)).unwrap());
    print(&rows, &kinds, &faces, &mut networks);
}

#[tokio::test]
#[ignore = "a measurement: minutes"]
async fn views_in_turn() {
    let mut networks = Networks::of(&ModelSet::open(&here("data/models"), "default").unwrap());
    let (_, kinds, _) = shown(&mut networks).await;
    in_turn(&kinds, &mut networks);
}

/// Everything that is shown to the detector, the crops, and the threshold that decides about them.
async fn shown(networks: &mut Networks) -> (Vec<Face>, Vec<Kind>, Threshold) {
    let (pipeline, threshold) = pipeline();
    let pipeline = pipeline.ignoring_quality();
    let faces = crops(&pipeline).await.expect("needs the crops");
    let wide = SIDES.len() - 1;
    let boxes: Vec<Rect> =
        faces.iter().map(|f| networks.located(&f.image, Framing::CROP, wide).unwrap().0.rect).collect();
    let mut kinds = of_crops(&faces, &boxes);
    kinds.extend(of_photos(&pipeline).await);
    kinds.push(Kind { name: "drawn", images: (0..300).map(|seed| Shown::new(drawn(seed), [])).collect() });
    (faces, kinds, threshold)
}

fn row(
    networks: &mut Networks,
    (side, margin): (usize, f32),
    faces: &[Face],
    kinds: &[Kind],
    usual: &[Option<Template>],
    threshold: Threshold,
) -> Row {
    let framing = framing(margin);
    let mut counts = Vec::new();
    for kind in kinds {
        let (mut found, mut false_finds) = (0, 0);
        for Shown { image, faces, others } in &kind.images {
            let mut seen = networks.faces(image, framing, side);
            seen.retain(|face| networks.landmarks(image, &face.rect).is_some());
            found += faces.iter().filter(|known| seen.iter().any(|f| overlap(known, &f.rect) > SAME)).count();
            let is_one = |f: &&locate::Face| faces.iter().chain(others).any(|known| known.meets(&f.rect));
            false_finds += seen.len() - seen.iter().filter(is_one).count();
        }
        counts.push((found, false_finds));
    }
    let templates = templates(networks, faces, framing, side);
    let decide = |all: &[Option<Template>], a: usize, b: usize| {
        let (a, b) = (all[a].as_ref()?, all[b].as_ref()?);
        Some(threshold.admits(compare(a, b).unwrap()))
    };
    let pairs = (0..faces.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let decisions_changed = pairs.filter(|&(a, b)| decide(usual, a, b) != decide(&templates, a, b)).count();
    let mut upright: Vec<Pixels> =
        faces.iter().flat_map(|Face { image, .. }| [image.clone(), turned(&mirrored(image), 180)]).collect();
    upright.extend(
        kinds.iter().filter(|kind| kind.name == NEAR).flat_map(|kind| &kind.images).map(|shown| shown.image.clone()),
    );
    let quarters = |Face { image, .. }: &Face| {
        let turned = |degrees| [turned(image, degrees), turned_with_a_border(image, degrees)];
        [90, 180, 270].into_iter().flat_map(turned).chain([mirrored(image)]).collect::<Vec<_>>()
    };
    let turned: Vec<Pixels> = faces.iter().flat_map(quarters).collect();
    let [upright, turned] = [upright, turned].map(|images| scores(networks, &images, framing, side));
    Row { side, margin, kinds: counts, decisions_changed, upright, turned }
}

/// Of all crops, aligned as the default model has them; `None` where no face was found.
fn templates(networks: &mut Networks, faces: &[Face], framing: Framing, side: usize) -> Vec<Option<Template>> {
    let mut template = |face: &Face| {
        let (_, all) = networks.located(&face.image, framing, side)?;
        let (size, whole) = (networks.embed, (face.image.width(), face.image.height()));
        let landmarks = align::Landmarks::SixtyEight(&all);
        let view = align::align(whole, landmarks, Alignment::DlibSquarePadded, size).unwrap();
        let outputs = run(&mut networks.executor, EMBED, &[&view.of(&face.image)]).unwrap().remove(0);
        Some(Template::new(ModelDigest::new([1; 32]), outputs).unwrap())
    };
    faces.iter().map(&mut template).collect()
}

/// Of faces that are found with plausible landmarks: the score as they lie, and the best at their place in the three other quarters.
fn scores(networks: &mut Networks, images: &[Pixels], framing: Framing, side: usize) -> Vec<[f32; 2]> {
    let mut scores = Vec::new();
    for image in images {
        let Some((chosen, _)) = networks.located(image, framing, side) else { continue };
        let others = networks.turned_scores(image, &chosen.rect, framing, side);
        scores.push([chosen.score, others.into_iter().fold(0.0, f32::max)]);
    }
    scores
}

fn print(rows: &[Row], kinds: &[Kind], faces: &[Face], networks: &mut Networks) {
    let is_empty = |kind: &Kind| kind.images.iter().all(|shown| shown.faces.is_empty());
    let heading = |kind: &Kind| match kind.images.iter().map(|shown| shown.faces.len()).sum::<usize>() {
        0 => format!("{}, of {}", kind.name, kind.images.len()),
        known => format!("{}, of {known}", kind.name),
    };
    let headings: Vec<String> = kinds.iter().map(heading).collect();
    println!("| side, margin | {} | beside faces | decisions changed | ms |", headings.join(" | "));
    println!("| --- |{}", " --- |".repeat(kinds.len() + 3));
    for Row { side, margin, kinds: counts, decisions_changed, .. } in rows {
        let counted = kinds.iter().zip(counts);
        let cell = |(kind, (found, no_face)): (&Kind, &(usize, usize))| if is_empty(kind) { *no_face } else { *found };
        let cells: Vec<String> = counted.clone().map(|both| cell(both).to_string()).collect();
        let beside: usize = counted.filter(|(kind, _)| !is_empty(kind)).map(|(_, (_, no_face))| no_face).sum();
        let start = cpu_ms();
        for face in faces {
            networks.faces(&face.image, framing(*margin), *side);
        }
        let ms = (cpu_ms() - start) / faces.len() as f64;
        println!("| {}, {margin} | {} | {beside} | {decisions_changed} | {ms:.1} |", SIDES[*side], cells.join(" | "));
    }
    println!(
        "\n| side, margin | surely upright | upright, asked | refused | turned, not told |\n| --- | --- | --- | --- | --- |"
    );
    for Row { side, margin, upright, turned, .. } in rows {
        for surely in [0.6, 0.7, 0.8] {
            let asked = |of: &[[f32; 2]]| of.iter().filter(|[score, _]| *score < surely).count();
            let told = |of: &[[f32; 2]]| {
                of.iter().filter(|[score, other]| *score < surely && *other > score + locate::TURNED_BY).count()
            };
            let (few, many) = (upright.len(), turned.len());
            println!(
                "| {}, {margin} | {surely} | {} of {few} | {} | {} of {many} |",
                SIDES[*side],
                asked(upright),
                told(upright),
                many - told(turned)
            );
        }
    }
}

/// In which framing the service finds the face that an image is about, or what it takes for one: the table of `pipeline::locate`.
fn in_turn(kinds: &[Kind], networks: &mut Networks) {
    println!("| images | | found | small | crop | tight | photo |\n| --- | --- | --- | --- | --- | --- | --- |");
    let place = |side| SIDES.iter().position(|known| *known == side).unwrap();
    for Kind { name, images } in kinds {
        let mut by_framing = [0; Framing::ALL.len()];
        for Shown { image, .. } in images {
            let sees = |framing: &Framing| {
                let side = if framing.role == Role::DetectSmall { detector::SMALL_SIDE } else { detector::INPUT_SIDE };
                let alone = framing.company.is_none() || networks.finds(image, *framing, place(side)) < 2;
                let tried = Framing::of_size((image.width(), image.height())).contains(framing);
                tried && alone && networks.located(image, *framing, place(side)).is_some()
            };
            if let Some(framing) = Framing::ALL.iter().position(sees) {
                by_framing[framing] += 1;
            }
        }
        let (all, found, [small, crop, tight, photo]) = (images.len(), by_framing.iter().sum::<usize>(), by_framing);
        println!("| {name} | {all} | {found} | {small} | {crop} | {tight} | {photo} |");
    }
}

/// Of this process so far.
fn cpu_ms() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
