//! From an ONNX file and a card to answers: import, inspect, check, verify, and what a licence holds back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod licence;
mod outputs;
mod place;
mod precision;

use std::fs;

use prost::Message;
use serde_json::Value;
use vultus::model::{Contract, contract::CalibrationTable};
use vultus_engine::onnx::proto::{ModelProto, StringStringEntryProto};

use crate::place::{Place, card, network, table};

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
    for compared in parity {
        let agreements = compared["agreements"].as_array().unwrap();
        assert!(!agreements.is_empty() && agreements.iter().all(|a| a["good"] == true), "{compared:?}");
    }
    assert!(checked["self_test"]["fault"].is_null(), "{checked}");

    // A threshold needs a calibration of these very weights.
    let crop = place.crop();
    let verify = || place.vultus(&["verify", &crop, &crop, "--model", "means", "--research-only-models", "--json"]);
    let (code, _, err) = verify();
    assert!(code == 1 && err.contains("there is no calibration"), "{err}");
    let mut calibrated = card(&network());
    calibrated.face.as_mut().unwrap().calibration = vec![table()];
    place.write_card(&calibrated);
    let (code, _, err) = place.import();
    assert!(
        code == 1 && err.contains("measured for other weights") && err.contains("remove [face.calibration]"),
        "{err}"
    );
    calibrated.face.as_mut().unwrap().calibration = vec![CalibrationTable { of: None, ..table() }];
    place.write_card(&calibrated);
    let (code, _, err) = place.import();
    let bundle = Contract::parse(&fs::read_to_string(place.at("models/means/model.toml")).unwrap()).unwrap();
    let expected = format!("expected face.calibration.of = {:?}", bundle.digest.as_deref().unwrap());
    assert!(code == 1 && err.contains(&expected), "{err}");
    place.import_calibrated(card(&network()));
    let (_, out, err) = verify();
    let answer: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    assert!((answer["score"].as_f64().unwrap() - 1.0).abs() < 1e-5, "a cosine: {out}");
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
fn weights_in_other_files_are_those_of_the_cards_digest() {
    let place = Place::new();
    let mut model = ModelProto::decode(network().as_slice()).unwrap();
    let weights = &mut model.graph.as_mut().unwrap().initializer[0];
    let mut bytes: Vec<u8> = weights.float_data.drain(..).flat_map(f32::to_le_bytes).collect();
    (weights.data_location, weights.external_data) =
        (1, vec![StringStringEntryProto { key: "location".into(), value: "means.bin".into() }]);
    let file = model.encode_to_vec();
    fs::write(place.at("means.onnx"), &file).unwrap();
    fs::write(place.at("means.bin"), &bytes).unwrap();
    place.write_card(&card(&file));
    let (code, _, err) = place.import();
    assert!(code == 1 && err.contains("which source.sha256 does not cover: expected the bundle's digest"), "{err}");
    let digest = err.rsplit('"').nth(1).unwrap().to_owned();
    place.write_card(&Contract { digest: Some(digest), ..card(&file) });
    let (code, _, err) = place.import();
    assert_eq!(code, 0, "{err}");
    bytes[0] ^= 1;
    fs::write(place.at("means.bin"), &bytes).unwrap();
    let (code, _, err) = place.import();
    assert!(code == 1 && err.contains("the digest is"), "{err}");
}

#[test]
fn what_is_missing_is_asked_for() {
    let place = Place::new();
    fs::write(place.at("a.safetensors"), b"").unwrap();
    let refused: [(&[&str], &str); 6] = [
        (&["model", "import", "means.onnx"], "vultus: means.onnx: expected --card CARD"),
        (&["model", "import", "nosuch.onnx", "--card", "card.toml"], "vultus: nosuch.onnx: No such file"),
        (&["model", "import", "nosuch.safetensors", "--card", "card.toml"], "vultus: nosuch.safetensors: No such file"),
        (&["model", "inspect", "--model", "a.safetensors"], "expected a bundle's name or folder, or an ONNX file"),
        (&["bench", "embed", "--model", "nosuch.onnx"], "vultus: nosuch.onnx: No such file"),
        (&["bench", "embed", "--batch", "4000000000"], "--batch 4000000000: expected 1 to 4096"),
    ];
    for (arguments, expected) in refused {
        let (code, _, err) = place.vultus(arguments);
        assert!(code == 1 && err.contains(expected), "{arguments:?}: {err}");
    }
}

#[test]
fn a_check_is_of_the_model_and_those_that_it_is_served_with() {
    let place = Place::new();
    assert_eq!(place.import().0, 0);
    let other = place.at("models/other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("model.toml"), "damaged").unwrap();
    let checked = place.json(&["model", "check", "--model", "means", "--images", "1"]);
    let names: Vec<_> = checked["models"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["means", "face-landmark-68", "tiny-face-detector"]);
    let (code, out, _) = place.vultus(&["model", "check", "--model", "other", "--json"]);
    assert!(code == 3 && out.contains("model.toml"), "{out}");
}
