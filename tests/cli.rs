//! The whole command line, as scripts see it: arguments, one JSON object on stdout, exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
};

use serde_json::Value;
use tempfile::TempDir;
use vultus::pipeline::decode::{DecodeLimits, Source, decode};
use vultus_engine::image::{Pixels, Rect, Region};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// How a command ended.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    /// The one object on stdout.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {:?}\n{}", self.out, self.err))
    }
}

fn models() -> PathBuf {
    let models = std::env::var_os("VULTUS_MODELS").map_or_else(|| Path::new(ROOT).join("data/models"), PathBuf::from);
    assert!(models.join("default/model.toml").exists(), "{} holds no model: run `make model`", models.display());
    models
}

fn photo(name: &str) -> PathBuf {
    models().parent().unwrap().join("photos").join(name)
}

/// Over `data`, with the fetched model.
fn vultus(data: &Path, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vultus"));
    command.args(arguments).env("VULTUS_DATA", data).env("VULTUS_MODELS", models()).env_remove("VULTUS_LOG");
    let ran = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: ran.status.code().unwrap(), out: text(ran.stdout), err: text(ran.stderr) }
}

/// Where faces are, as shares of a photo's sides: two people.
const ANNA: (&str, [f32; 4]) = ("sample1.jpg", [0.2156, 0.2762, 0.0920, 0.1869]);
const BELLA: (&str, [f32; 4]) = ("sample3.jpg", [0.3047, 0.2424, 0.1041, 0.2024]);

fn crop((name, [x, y, w, h]): (&str, [f32; 4]), room: f32) -> Pixels {
    let file = fs::read(photo(name)).expect("the photos: run `make model`");
    let limits = DecodeLimits { max_bytes: 64 << 20, max_pixels: 1 << 26, ..DecodeLimits::default() };
    let photo = decode(Source::Encoded(&file), &limits).unwrap();
    let (width, height) = (photo.width() as f32, photo.height() as f32);
    let side = room * (w * width).max(h * height);
    let (x, y) = ((x + w / 2.0) * width - side / 2.0, (y + h / 2.0) * height - side / 2.0);
    photo.cut(Rect { x, y, width: side, height: side }.clipped(photo.width(), photo.height()).unwrap())
}

fn write(path: &Path, image: &Pixels) {
    let file = fs::File::create(path).unwrap();
    let mut encoder = png::Encoder::new(file, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(image.rgb8()).unwrap();
}

/// A folder of images, shared by the tests: `anna_1`, `anna_2`, `bella_1`, `grey`, `small` (Anna, a small part of a large image), and text.
static IMAGES: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let anna = crop(ANNA, 1.4);
    write(&at("anna_1.png"), &anna);
    write(&at("anna_2.png"), &crop(ANNA, 1.7));
    write(&at("bella_1.png"), &crop(BELLA, 1.4));
    write(&at("grey.png"), &Pixels::flat(300, 300, [128; 3]));
    write(&at("small.png"), &anna.cut(Region { x: -500, y: -250, width: 1400, height: 900 }));
    fs::write(at("text.png"), "not an image").unwrap();
    dir
});

fn image(name: &str) -> String {
    IMAGES.path().join(name).to_str().unwrap().to_owned()
}

fn nowhere() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn help_names_every_command() {
    let dir = nowhere();
    let help = vultus(dir.path(), &["--help"]);
    assert_eq!(help.code, 0);
    for command in ["serve", "demo", "verify", "enrol", "evaluate", "model", "gallery", "bench"] {
        assert!(help.out.contains(command), "{command}");
        assert_eq!(vultus(dir.path(), &[command, "--help"]).code, 0, "{command}");
    }
    for bad in [&[][..], &["identify"], &["verify", "one"], &["model"], &["gallery", "erase", "g"], &["bench"]] {
        assert_eq!(vultus(dir.path(), bad).code, 2, "{bad:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "bad arguments leave nothing behind");
}

#[test]
fn verify_answers_by_its_exit_code() {
    let dir = nowhere();
    let verify = |a: &str, b: &str, more: &[&str]| vultus(dir.path(), &[&["verify", a, b][..], more].concat());
    let (anna, bella) = (image("anna_1.png"), image("bella_1.png"));

    let same = verify(&anna, &anna, &["--json"]);
    assert_eq!((same.code, same.json()["decision"].as_str()), (0, Some("match")), "{}", same.err);
    assert!(same.json()["score"].as_f64().unwrap() > 0.999 && same.json()["distance"].as_f64().unwrap() < 0.05);
    assert_eq!(same.json()["model"].as_str().unwrap().len(), 64);
    assert_eq!(verify(&anna, &image("anna_2.png"), &[]).code, 0);
    assert_eq!(verify(&image("small.png"), &image("anna_2.png"), &[]).code, 0, "a small face in a large photo");

    let other = verify(&anna, &bella, &["--json", "--max-fmr", "0.002"]);
    assert_eq!((other.code, other.json()["reason"].as_str()), (3, Some("score_below_threshold")));
    assert_eq!(other.json()["max_fmr"].as_f64(), Some(0.002));

    let none = verify(&anna, &image("grey.png"), &["--json"]);
    assert_eq!((none.code, none.json()["reason"].as_str()), (4, Some("reference_without_face")));
    assert_eq!(none.json()["refused"][0]["measure"].as_str(), Some("face_presence"));
    assert!(none.json()["score"].is_null());
    let none = verify(&image("grey.png"), &anna, &[]);
    assert!(none.code == 4 && none.out.contains("grey.png"), "{}", none.out);

    let several = verify(photo("sample1.jpg").to_str().unwrap(), &anna, &[]);
    assert!(several.code == 1 && several.err.contains("3 faces were found"), "{}", several.err);
    for (bad, says) in [("text.png", "text.png: "), ("absent.png", "absent.png: ")] {
        let failed = verify(&anna, &image(bad), &[]);
        assert!(failed.code == 1 && failed.err.contains(says) && failed.out.is_empty(), "{}", failed.err);
    }
    let beyond = verify(&anna, &anna, &["--max-fmr", "1e-9"]);
    assert!(beyond.code == 1 && beyond.err.contains("no threshold is known"), "{}", beyond.err);
    assert_eq!(verify(&anna, &anna, &["--max-fmr", "2"]).code, 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a comparison leaves nothing behind");
}

#[test]
fn evaluate_counts_what_it_could_compare() {
    let dir = nowhere();
    let csv = IMAGES.path().join("pairs.csv");
    fs::write(
        &csv,
        "a,b,mated\nanna_1.png,anna_2.png,1\nanna_1.png,bella_1.png,0\nanna_2.png,bella_1.png,0\n\
         anna_1.png,grey.png,0\nbella_1.png,absent.png,1\ntext.png,grey.png,0\n",
    )
    .unwrap();
    let evaluate = |csv: &Path, more: &[&str]| {
        vultus(dir.path(), &[&["evaluate", "--json", "--pairs", csv.to_str().unwrap()][..], more].concat())
    };
    let ran = evaluate(&csv, &[]);
    let report = ran.json();
    assert_eq!(ran.code, 3, "some were refused");
    let number = |key: &str| report[key].as_u64().unwrap();
    assert_eq!((number("pairs"), number("mated"), number("non_mated"), number("pairs_left_out")), (3, 1, 2, 3));
    assert_eq!(report["best_accuracy"].as_f64(), Some(1.0));
    assert_eq!((number("rank1_correct"), number("rank1_total")), (2, 2));
    let failed: Vec<_> = report["failures"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(failed, ["grey.png", "absent.png", "text.png"]);
    assert_eq!(report["failures"][0]["reason"].as_str(), Some("no face was found"));
    assert_eq!(report["fnmr_at_fmr"][0]["trials"].as_u64(), Some(2));
    let whole = evaluate(&csv, &["--alignment", "whole"]);
    assert_eq!(whole.json()["failures"].as_array().unwrap().len(), 2, "grey is a face when nobody looks for one");

    let bad = IMAGES.path().join("bad.csv");
    for (text, says) in [
        ("", "header"),
        ("anna_1.png,anna_2.png,1\n", "line 1: expected the header"),
        ("a,b,mated\n", "no pairs"),
        ("a,b,mated\nanna_1.png,anna_2.png,1\nanna_1.png,anna_2.png,true\n", "line 3: mated is 1 or 0"),
    ] {
        fs::write(&bad, text).unwrap();
        let ran = evaluate(&bad, &[]);
        assert!(ran.code == 1 && ran.err.contains(says) && ran.out.is_empty(), "{text:?}: {}", ran.err);
    }
}

#[test]
fn the_default_model_keeps_its_promise_on_780_pairs() {
    let crops = Path::new(ROOT).join("../shared/faces/crops");
    let Ok(entries) = fs::read_dir(&crops) else {
        return println!("skipped: there are no crops beside the repository");
    };
    println!("with the crops beside the repository");
    let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some()).collect();
    files.retain(|path| path.extension().unwrap() == "png");
    files.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().trim_end_matches(char::is_numeric).to_owned();
    let mut csv = "a,b,mated\n".to_owned();
    for (i, a) in files.iter().enumerate() {
        for b in &files[i + 1..] {
            csv += &format!("{},{},{}\n", a.display(), b.display(), u8::from(name(a) == name(b)));
        }
    }
    let dir = nowhere();
    let path = dir.path().join("pairs.csv");
    fs::write(&path, csv).unwrap();
    for alignment in ["landmarks", "whole"] {
        let arguments = ["evaluate", "--json", "--alignment", alignment, "--pairs", path.to_str().unwrap()];
        let ran = vultus(dir.path(), &arguments);
        let report = ran.json();
        assert_eq!((ran.code, report["pairs"].as_u64(), report["mated"].as_u64()), (0, Some(780), Some(80)));
        assert!(report["best_accuracy"].as_f64().unwrap() >= 0.995, "{report}");
        assert_eq!((report["rank1_correct"].as_u64(), report["rank1_total"].as_u64()), (Some(40), Some(40)));
    }
}

#[test]
fn enrolment_goes_on_where_it_stopped() {
    let (dir, faces) = (nowhere(), nowhere());
    fs::create_dir(faces.path().join("bella")).unwrap();
    for (from, to) in [
        ("anna_1.png", "anna_1.png"),
        ("anna_2.png", "anna_2.png"),
        ("bella_1.png", "bella/x.png"),
        ("grey.png", "grey.png"),
        ("text.png", "text.png"),
    ] {
        fs::copy(image(from), faces.path().join(to)).unwrap();
    }
    let run = |arguments: &[&str]| vultus(dir.path(), &[arguments, &["--json"]].concat());
    let folder = faces.path().to_str().unwrap();
    let enrol = ["enrol", folder, "--gallery", "staff"];

    fs::create_dir(dir.path().join("gallery")).unwrap();
    let nothing = run(&["gallery", "describe"]);
    assert!(nothing.code == 1 && nothing.err.contains("no galleries"), "{}", nothing.err);
    assert_eq!(fs::read_dir(dir.path().join("gallery")).unwrap().count(), 0, "looking makes nothing");
    let first = run(&enrol);
    assert_eq!(
        (first.code, first.json()["enrolled"].as_u64(), first.json()["repeated"].as_u64()),
        (3, Some(3), Some(0))
    );
    let refused = first.json()["refused"].clone();
    assert_eq!(refused.as_array().unwrap().len(), 2, "{refused}");
    assert!(refused[0]["path"].as_str().unwrap().ends_with("grey.png") && refused[0]["reason"] == "no face was found");
    let again = run(&enrol);
    assert_eq!((again.json()["enrolled"].as_u64(), again.json()["repeated"].as_u64()), (Some(0), Some(3)));

    let described = run(&["gallery", "describe", "staff"]).json()["galleries"][0].clone();
    assert_eq!((described["subjects"].as_u64(), described["references"].as_u64()), (Some(2), Some(3)));
    assert_eq!(run(&["gallery", "describe", "nobody"]).code, 1);
    assert_eq!(run(&["gallery", "erase", "staff", "--subject", "anna", "--reference", "x"]).code, 2);
    let erased = run(&["gallery", "erase", "staff", "--subject", "anna"]);
    assert_eq!((erased.code, erased.json()["erased"].as_u64()), (0, Some(2)));
    assert_eq!(run(&["gallery", "erase", "staff", "--subject", "anna"]).code, 3, "there is nothing left");
    assert_eq!(run(&["gallery", "erase", "staff", "--reference", "x"]).code, 1);
    assert_eq!(run(&["enrol", folder, "--gallery", "Not A Name"]).code, 1);
    assert_eq!(run(&["enrol", "/no/such/folder", "--gallery", "staff"]).code, 1);
    let clearing = run(&["enrol", "/no/such\u{1b}[2J", "--gallery", "staff"]);
    assert!(clearing.code == 1 && clearing.err.contains("/no/such\\u{1b}[2J"), "{}", clearing.err);
    let (empty, fresh) = (nowhere(), nowhere());
    fs::write(empty.path().join("a b.png"), "no subject's name").unwrap();
    let none = vultus(fresh.path(), &["enrol", empty.path().to_str().unwrap(), "--gallery", "staff"]);
    assert!(none.code == 1 && none.err.contains("none to enrol") && none.err.contains("a b.png"), "{}", none.err);
    assert_eq!(fs::read_dir(fresh.path()).unwrap().count(), 0, "no image, no gallery");

    // A server has the galleries open: nobody else does.
    let server = Server::start(dir.path());
    for arguments in [&enrol[..], &["gallery", "describe"], &["gallery", "erase", "staff", "--subject", "bella"]] {
        let ran = run(arguments);
        assert!(ran.code == 1 && ran.err.contains("another process serves these galleries"), "{}", ran.err);
    }
    drop(server);
    assert_eq!(run(&["gallery", "describe", "staff"]).json()["galleries"][0]["references"].as_u64(), Some(1));

    // A lost key is not made anew, nor a lost store.
    let key = dir.path().join("keys/root.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    for arguments in [&enrol[..], &["gallery", "describe"]] {
        let ran = run(arguments);
        assert!(ran.code == 1 && ran.err.contains("expected the key that sealed"), "{}", ran.err);
    }
    assert!(!key.exists());
    assert!(fs::write(&key, kept).is_ok() && Command::new("chmod").arg("600").arg(&key).status().unwrap().success());
    fs::remove_file(dir.path().join("gallery/galleries.db")).unwrap();
    let lost = run(&["gallery", "describe"]);
    assert!(lost.code == 1 && lost.err.contains("galleries.db is missing"), "{}", lost.err);
}

/// A server over a data directory, killed at the end.
struct Server(Child);

impl Server {
    fn start(data: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vultus"))
            .args(["serve", "--insecure", "--json", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"])
            .env("VULTUS_DATA", data)
            .env("VULTUS_MODELS", models())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("listening"), "{line:?}");
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn models_are_listed_and_checked() {
    let dir = nowhere();
    let listed = vultus(dir.path(), &["model", "list", "--json"]).json()["models"].clone();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert!(["default", "face-landmark-68", "tiny-face-detector"].iter().all(|name| names.contains(name)), "{names:?}");
    assert!(
        listed.as_array().unwrap().iter().all(|m| m["fault"].is_null() && m["digest"].as_str().unwrap().len() == 64)
    );
    assert_eq!(listed[0]["dimension"].as_u64(), Some(128));
    let checked = vultus(dir.path(), &["model", "check", "--json"]);
    assert!(checked.code == 0 && checked.json()["self_test"]["fault"].is_null(), "{}", checked.out);
    let rows = checked.json()["parity"][0]["agreements"].clone();
    let held: Vec<_> = rows.as_array().unwrap().iter().filter(|row| row["shown"] == "golden_faces").collect();
    assert!(held.iter().any(|row| row["precision"] == "int8" && row["executor"] == "cpu, portable"), "{rows}");
    assert!(held.iter().all(|row| row["one_minus_cosine"].as_f64() < row["allowed"].as_f64()), "{rows}");

    // One byte of a weight is another: the digest tells.
    let damaged = dir.path().join("models");
    for name in names {
        fs::create_dir_all(damaged.join(name)).unwrap();
        for file in ["model.toml", "weights.safetensors"] {
            fs::copy(models().join(name).join(file), damaged.join(name).join(file)).unwrap();
        }
    }
    let weights = damaged.join("default/weights.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let checked = vultus(dir.path(), &["model", "check", "--json", "--models", damaged.to_str().unwrap()]);
    assert_eq!(checked.code, 3);
    assert!(checked.json()["models"][0]["fault"].as_str().unwrap().contains("digest"), "{}", checked.out);
    let unknown = vultus(dir.path(), &["verify", "a", "b", "--model", "other"]);
    assert!(unknown.code == 1 && unknown.err.contains("vultus model fetch"), "{}", unknown.err);
    let package = image("text.png");
    let import =
        vultus(dir.path(), &["model", "import", &package, "--models", dir.path().join("new").to_str().unwrap()]);
    assert!(import.code == 1 && import.err.contains("SHA-256"), "{}", import.err);
    let cuda = vultus(dir.path(), &["verify", &image("anna_1.png"), &image("anna_1.png"), "--device", "cuda:0"]);
    assert!(cuda.code == 1 && cuda.err.contains("; use auto or cpu"), "{}", cuda.err);
}

#[test]
fn benches_print_their_figures() {
    let dir = nowhere();
    let figures = |arguments: &[&str], keys: &[&str]| {
        let ran = vultus(dir.path(), &[&["bench", "--json"], arguments].concat());
        let report = ran.json();
        assert_eq!(ran.code, 0);
        assert!(keys.iter().all(|key| report[key].as_f64().unwrap() > 0.0), "{report}");
        report
    };
    let embed = figures(&["embed", "--batch", "2", "--seconds", "0.1"], &["faces_per_s", "batch", "threads"]);
    assert_eq!((embed["precision"].as_str(), embed["model"].as_str()), (Some("f32"), Some("default")));
    let path = models().join("default");
    figures(&["embed", "--model", path.to_str().unwrap(), "--batch", "1", "--seconds", "0"], &["faces_per_s"]);
    let search = ["search", "--size", "500", "--dim", "16", "--queries", "20", "--batch", "4", "--index", "exact"];
    let search = figures(&search, &["queries_per_s", "comparisons_per_s", "recall_at_1", "build_s"]);
    assert_eq!(search["recall_at_1"].as_f64(), Some(1.0));
    figures(&["enrol", "--references", "50"], &["enrolments_per_s"]);
    figures(&["erase", "--references", "3000", "--seconds", "0.2"], &["erasures", "verifications", "p99_beside_us"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a bench leaves nothing behind");
    for bad in [&["search", "--index", "a b"][..], &["embed", "--batch", "0"]] {
        assert_eq!(vultus(dir.path(), &[&["bench"], bad].concat()).code, 2, "{bad:?}");
    }
    let large = vultus(dir.path(), &["bench", "search", "--size", "99999999999999"]);
    assert!(large.code == 1 && large.err.contains("64 GiB"), "{}", large.err);
}

#[test]
fn the_demonstration_goes_well() {
    let dir = nowhere();
    let ran = vultus(dir.path(), &["demo", "--json"]);
    let story = ran.json();
    assert_eq!((ran.code, story["ok"].as_bool()), (0, Some(true)), "{story}\n{}", ran.err);
    assert!(story["enrolled"].as_u64().unwrap() >= 10);
    assert_eq!(story["duplicate"]["outcome"].as_str(), Some("REVIEW"));
    assert_eq!(story["duplicate"]["candidates"][0][0], story["duplicate"]["person"]);
    assert_eq!(story["duplicate"]["front_end_is_told"].as_str(), Some("PermissionDenied"));
    let open = &story["duplicate"]["open_cases"];
    assert_eq!(open[0].as_u64(), open[1].as_u64().map(|left| left + 1), "{story}");
    assert!(story["expected_fnir"].as_f64().is_some_and(|fnir| fnir <= 0.2), "{story}");
}
