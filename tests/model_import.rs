//! From an ONNX file and a card to answers: import, inspect, check, verify, and what a licence holds back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;
use serde_json::Value;
use sha2::{Digest, Sha256};
use vultus::{
    domain::Alignment,
    model::{
        Contract, Metric, Precision,
        contract::{PrecisionClass, Terms},
        onnx::proto::{
            AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
            TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
        },
        plan::ActivationRange,
    },
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const DIMENSION: i64 = 64;

fn fetched() -> PathBuf {
    let models = std::env::var_os("VULTUS_MODELS").map_or_else(|| Path::new(ROOT).join("data/models"), PathBuf::from);
    assert!(models.join("default/model.toml").exists(), "{} holds no model: run `make model`", models.display());
    models
}

/// A network of ArcFace's input: means of 8x8 pixels, and random directions of them.
fn network() -> Vec<u8> {
    let node = |op: &str, inputs: &[&str], output: &str, attribute| NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|name| (*name).into()).collect(),
        output: vec![output.into()],
        attribute,
        ..Default::default()
    };
    let ints = |name: &str| AttributeProto {
        name: name.into(),
        ints: vec![8, 8],
        r#type: AttributeType::Ints as i32,
        ..Default::default()
    };
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let features = 3 * 14 * 14;
    let weights = TensorProto {
        name: "w".into(),
        dims: vec![features, DIMENSION],
        data_type: 1,
        float_data: (0..features * DIMENSION).map(|_| next()).collect(),
        ..Default::default()
    };
    let dim = |n| tensor_shape_proto::Dimension { value: Some(tensor_shape_proto::dimension::Value::DimValue(n)) };
    let shape = Some(TensorShapeProto { dim: [1, 3, 112, 112].map(dim).into() });
    let tensor = type_proto::Value::TensorType(type_proto::Tensor { elem_type: 1, shape });
    let graph = GraphProto {
        name: "means".into(),
        node: vec![
            node("AveragePool", &["x"], "a", vec![ints("kernel_shape"), ints("strides")]),
            node("Flatten", &["a"], "b", vec![]),
            node("MatMul", &["b", "w"], "y", vec![]),
        ],
        initializer: vec![weights],
        input: vec![ValueInfoProto { name: "x".into(), r#type: Some(TypeProto { value: Some(tensor) }) }],
        output: vec![ValueInfoProto { name: "y".into(), r#type: None }],
    };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    ModelProto { ir_version: 8, graph: Some(graph), opset_import, ..Default::default() }.encode_to_vec()
}

/// A card for it, the default model's elsewhere.
fn card(file: &[u8]) -> Contract {
    let mut card = Contract::parse(include_str!("../models/default.toml")).unwrap();
    card.name = "means".into();
    card.digest = None;
    card.source.sha256 = Sha256::digest(file).iter().map(|b| format!("{b:02x}")).collect();
    card.licence.terms = Terms::ResearchOnly;
    (card.input.width, card.input.height) = (112, 112);
    // Without a shift a dimmed face points in the same direction.
    (card.input.mean, card.input.scale) = ([0.0; 3], 1.0 / 255.0);
    card.output.dimension = DIMENSION as usize;
    let face = card.face.as_mut().unwrap();
    (face.alignment, face.metric) = (Alignment::ArcFace112, Metric::Cosine);
    let class = |precision, agreement| PrecisionClass {
        precision,
        floor: 0.995,
        agreement,
        images: 40,
        source: "made up for a test".into(),
        ranges: vec![],
        measured: None,
    };
    card.precisions = vec![class(Precision::Bf16, Some(0.9))];
    card
}

/// A data directory with the fetched networks and the file beside.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["face-landmark-68", "tiny-face-detector"] {
            let folder = dir.path().join("models").join(name);
            fs::create_dir_all(&folder).unwrap();
            for file in ["model.toml", "weights.safetensors"] {
                fs::copy(fetched().join(name).join(file), folder.join(file)).unwrap();
            }
        }
        let place = Self { dir };
        let network = network();
        fs::write(place.at("means.onnx"), &network).unwrap();
        place.write_card(&card(&network));
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_card(&self, card: &Contract) {
        fs::write(self.at("card.toml"), card.to_toml().unwrap()).unwrap();
    }

    fn vultus(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vultus"));
        command.args(arguments).current_dir(self.dir.path());
        command.env("VULTUS_DATA", self.dir.path()).env_remove("VULTUS_MODELS").env_remove("VULTUS_LOG");
        let ran = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (ran.status.code().unwrap(), text(ran.stdout), text(ran.stderr))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.vultus(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {err}");
        serde_json::from_str(&out).unwrap()
    }

    fn import(&self) -> (i32, String, String) {
        self.vultus(&["model", "import", "means.onnx", "--card", "card.toml"])
    }
}

#[test]
fn a_file_and_its_card_become_a_model_that_answers() {
    let place = Place::new();
    let (code, _, err) = place.import();
    assert_eq!(code, 0, "{err}");

    let inspected = place.json(&["model", "inspect", "--model", "means"]);
    let plan = inspected["plan"].as_array().unwrap();
    assert_eq!(plan.len(), 2, "flattening is no step of its own: {plan:?}");
    assert_eq!(inspected["total"]["flops"].as_u64(), Some(2 * 588 * 64));
    let of_file = place.json(&["model", "inspect", "--model", "means.onnx"]);
    assert_eq!(of_file["plan"], inspected["plan"]);

    let checked = place.json(&["model", "check", "--model", "means"]);
    let parity = checked["parity"].as_array().unwrap();
    assert_eq!(parity.len(), 3);
    let agreements = parity.iter().flat_map(|p| p["agreements"].as_array().unwrap());
    assert!(agreements.into_iter().all(|a| a["good"] == true), "{parity:?}");
    assert!(checked["self_test"]["fault"].is_null(), "{checked}");

    let photo = fetched().parent().unwrap().join("photos/sample3.jpg");
    if photo.exists() {
        let photo = photo.to_str().unwrap();
        let (code, out, err) = place.vultus(&["verify", photo, photo, "--model", "means", "--json"]);
        if code != 1 {
            let answer: Value = serde_json::from_str(&out).unwrap();
            assert!((answer["score"].as_f64().unwrap() - 1.0).abs() < 1e-5, "a cosine: {out}");
        } else {
            assert!(err.contains("faces were found"), "{err}");
        }
    }
}

#[test]
fn weights_with_their_graph_and_a_card_become_the_same_model() {
    let place = Place::new();
    assert_eq!(place.import().0, 0);
    let weights = fs::read(place.at("models/means/weights.safetensors")).unwrap();
    fs::write(place.at("again.safetensors"), &weights).unwrap();
    let mut again = card(&weights);
    again.name = "again".into();
    place.write_card(&again);
    let import = || place.vultus(&["model", "import", "again.safetensors", "--card", "card.toml"]);
    let (code, _, err) = import();
    assert_eq!(code, 0, "{err}");
    let plan = |name| place.json(&["model", "inspect", "--model", name])["plan"].clone();
    assert_eq!(plan("again"), plan("means"));
    assert_eq!(fs::read(place.at("models/again/weights.safetensors")).unwrap(), weights);

    // Cut off, and not the card's file.
    fs::write(place.at("again.safetensors"), &weights[..weights.len() - 9]).unwrap();
    let (code, _, err) = import();
    assert!(code == 1 && err.contains("safetensors"), "{err}");
    fs::write(place.at("again.safetensors"), &weights).unwrap();
    place.write_card(&Contract { name: "again".into(), ..card(&network()) });
    let (code, _, err) = import();
    assert!(code == 1 && err.contains("source.sha256"), "{err}");
}

#[test]
fn another_file_than_the_cards_is_not_imported() {
    let place = Place::new();
    let mut other = card(&network());
    other.source.sha256 = "0".repeat(64);
    place.write_card(&other);
    let (code, _, err) = place.import();
    assert!(code == 1 && err.contains("source.sha256"), "{err}");
    let mut other = card(&network());
    other.output.dimension = 63;
    place.write_card(&other);
    let (code, _, err) = place.import();
    assert!(code == 1 && err.contains("gives 64 values, the contract says 63"), "{err}");
    assert!(!place.at("models/means").exists());
}

#[test]
fn a_precision_serves_when_it_was_measured_to_agree() {
    let place = Place::new();
    assert_eq!(place.import().0, 0);
    let check = |precision| place.vultus(&["model", "check", "--model", "means", "--precision", precision]);
    let (code, out, _) = check("f32");
    assert!(code == 0 && out.contains("means: does not serve here in bf16: no measured agreement"), "{out}");
    let (code, out, _) = check("bf16");
    assert!(code == 3 && out.contains("no measured agreement"), "{out}");

    // A precision of another model's card; and one that the network does not have, whatever the card says.
    let imported = Contract::parse(&fs::read_to_string(place.at("models/means/model.toml")).unwrap()).unwrap();
    let digest = imported.digest.as_deref().unwrap();
    let mut int8 = imported.precisions[0].clone();
    (int8.precision, int8.agreement) = (Precision::Int8, Some(0.999));
    for (class, fault) in [
        (int8.clone(), "int8: what the card says of it was not measured on these weights"),
        (int8.clone().measured_on(&"0".repeat(64)), "int8: what the card says of it was not measured on these weights"),
        (int8.measured_on(digest), "int8: no convolution"),
    ] {
        place.write_card(&Contract { precisions: vec![class], ..card(&network()) });
        assert_eq!(place.import().0, 0);
        let (code, out, _) = check("f32");
        assert!(code == 3 && out.contains(&format!("means: not compared: {fault}")), "{out}");
        assert!(out.contains("means: cpu, portable, f32: agrees"), "{out}");
    }
}

#[test]
fn int8_serves_with_what_was_measured_on_faces() {
    let photos = fetched().parent().unwrap().join("photos");
    if !photos.exists() {
        println!("skipped: {} is not there", photos.display());
        return;
    }
    let place = Place::new();
    let (from, to) = (fetched().join("default"), place.at("models/default"));
    fs::create_dir_all(&to).unwrap();
    fs::copy(from.join("weights.safetensors"), to.join("weights.safetensors")).unwrap();
    let card = to.join("model.toml");
    let mut contract = Contract::parse(&fs::read_to_string(from.join("model.toml")).unwrap()).unwrap();
    contract.precisions.clear();
    fs::write(&card, contract.to_toml().unwrap()).unwrap();
    let check = || place.vultus(&["model", "check", "--images", "1", "--precision", "int8"]);
    let (code, out, _) = check();
    assert!(code == 3 && out.contains("no measured agreement"), "{out}");

    let calibrate = |floor| {
        let photos = photos.to_str().unwrap();
        place.vultus(&["model", "calibrate", "--faces", photos, "--precision", "int8", &format!("--floor={floor}")])
    };
    let (code, out, err) = calibrate("0.995");
    assert!(code == 0 && out.contains("may serve"), "{out}{err}");
    let (code, out, err) = check();
    assert!(code == 0 && out.contains("default: cpu, portable, int8: agrees"), "{out}{err}");

    // What was changed since it was measured does not serve; ranges that are not the network's, or no numbers, are refused in words.
    let good = Contract::parse(&fs::read_to_string(&card).unwrap()).unwrap();
    let changed = |change: &dyn Fn(&mut PrecisionClass), sealed: bool| {
        let mut bad = good.clone();
        change(&mut bad.precisions[0]);
        if sealed {
            bad.precisions =
                bad.precisions.into_iter().map(|c| c.measured_on(good.digest.as_deref().unwrap())).collect();
        }
        fs::write(&card, bad.to_toml().unwrap()).unwrap();
    };
    for change in [
        &(|class: &mut PrecisionClass| class.ranges[0].high *= 1.01) as &dyn Fn(&mut PrecisionClass),
        &|class| class.agreement = Some(0.9999),
        &|class| class.images += 1,
        &|class| class.measured = None,
    ] {
        changed(change, false);
        let (code, out, _) = check();
        assert!(code == 3 && out.contains("int8: what the card says of it was not measured on these weights"), "{out}");
    }
    // Fetching keeps what was measured on this very bundle, and brings the program's own card in place of the rest.
    let fetched_images = || {
        let (code, out, err) = place.vultus(&["model", "fetch", "--json"]);
        assert!(code == 0 && out.contains("\"written\":[]"), "nothing is fetched anew: {out}{err}");
        let card = Contract::parse(&fs::read_to_string(&card).unwrap()).unwrap();
        [Precision::Bf16, Precision::Int8].map(|precision| card.class(precision).unwrap().images)
    };
    assert_eq!(fetched_images(), [61, 61]);
    fs::write(&card, good.to_toml().unwrap()).unwrap();
    assert_eq!(fetched_images(), [61, good.precisions[0].images]);
    assert!(good.precisions[0].images < 61);

    changed(&|class| class.ranges.truncate(28), true);
    let (code, out, _) = check();
    assert!(code == 3 && out.contains("activation ranges for"), "{out}");
    changed(&|class| class.ranges[0].high = f32::INFINITY, true);
    let (code, out, _) = check();
    assert!(code == 3 && out.contains("ranges finite around 0"), "{out}");

    // Nor does a card's own word suffice: ranges that were never measured are seen through, wherever the precision is used.
    let photo = photos.join("sample3.jpg");
    let verify = || {
        let photo = photo.to_str().unwrap();
        place.vultus(&["verify", photo, photo, "--precision", "int8"])
    };
    for scale in [0.0, 0.2, 1e6] {
        let scaled = |range: &mut ActivationRange| (range.low, range.high) = (scale * range.low, scale * range.high);
        changed(&|class| class.ranges.iter_mut().for_each(scaled), true);
        let (code, _, err) = verify();
        assert!(code == 1 && err.contains("golden faces differ"), "{scale}: {code} {err}");
        // Also where another precision is checked.
        let (code, out, _) = place.vultus(&["model", "check", "--images", "1"]);
        let disagrees = "default: cpu, portable, int8: DISAGREES";
        assert!(code == 3 && (out.contains(disagrees) || out.contains("not compared: int8")), "{scale}: {out}");
        assert!(out.contains("default: cpu, portable, f32: agrees"), "{scale}: {out}");
    }
    fs::write(&card, good.to_toml().unwrap()).unwrap();
    let (_, _, err) = verify();
    assert!(!err.contains("golden"), "{err}");
    let (code, _, err) = calibrate("-1");
    assert!(code == 1 && err.contains("--floor -1: expected 0.99 to 1"), "{err}");

    let (code, out, err) = calibrate("1");
    assert!(code == 3 && out.contains("DOES NOT SERVE"), "{out}{err}");
    let (code, out, _) = check();
    assert!(code == 3 && out.contains("no measured agreement"), "{out}");
}

#[test]
fn weights_for_research_alone_do_not_serve_unless_the_configuration_says_so() {
    let place = Place::new();
    assert_eq!(place.import().0, 0);
    let serve = |config: &str| {
        fs::write(place.at("vultus.toml"), config).unwrap();
        let mut command = Command::new("timeout");
        command.args(["4", env!("CARGO_BIN_EXE_vultus"), "serve", "--insecure", "--config", "vultus.toml"]);
        command.args(["--model", "means", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
        command.current_dir(place.dir.path()).env("VULTUS_DATA", place.dir.path()).env_remove("VULTUS_MODELS");
        let ran = command.output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };
    let (code, err) = serve("");
    assert!(code == Some(1) && err.contains("policy.research_only_models"), "{err}");
    let (_, err) = serve("[policy]\nresearch_only_models = true");
    assert!(err.contains("licensed for research alone") && err.contains("serving"), "{err}");
}
