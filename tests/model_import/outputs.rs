//! Files with several outputs: one is chosen by its name.

use std::fs;

use prost::Message;
use vultus::model::Contract;
use vultus_engine::onnx::proto::{ModelProto, ValueInfoProto};

use crate::place::{Place, card, network};

#[test]
fn the_output_of_a_file_with_several_is_named() {
    let place = Place::new();
    let mut model = ModelProto::decode(network().as_slice()).unwrap();
    model.graph.as_mut().unwrap().output.insert(0, ValueInfoProto { name: "b".into(), r#type: None });
    let file = model.encode_to_vec();
    fs::write(place.at("means.onnx"), &file).unwrap();
    fs::write(place.at("raw"), vec![9; 3 * 112 * 112]).unwrap();

    let commands: [&[&str]; 4] = [
        &["model", "inspect", "--model", "means.onnx"],
        &["model", "check", "--model", "means.onnx", "--images", "1"],
        &["model", "run", "--model", "means.onnx", "--images", "raw", "--outputs", "out"],
        &["bench", "embed", "--model", "means.onnx", "--batch", "1", "--seconds", "0.01"],
    ];
    for command in commands {
        let with = |more: &[&str]| place.vultus(&[command, more].concat());
        let (code, _, err) = with(&[]);
        assert!(code == 1 && err.contains("means.onnx: the graph has 2 outputs, \"b\", \"y\""), "{command:?}: {err}");
        assert!(err.contains("--output NAME"), "{err}");
        let (code, _, err) = with(&["--output", "z"]);
        assert!(code == 1 && err.contains("no output \"z\", but \"b\", \"y\""), "{command:?}: {err}");
        let (code, _, err) = with(&["--output", "y"]);
        assert_eq!(code, 0, "{command:?}: {err}");
    }
    let lengths = ["y", "b"].map(|output| {
        place.json(&[commands[2], &["--output", output]].concat());
        fs::metadata(place.at("out")).unwrap().len() / 4
    });
    assert_eq!(lengths, [64, 588]);

    // What the card says, or else the option; the bundle keeps it.
    let import =
        |more: &[&str]| place.vultus(&[&["model", "import", "means.onnx", "--card", "card.toml"], more].concat());
    let imported = || Contract::parse(&fs::read_to_string(place.at("models/means/model.toml")).unwrap()).unwrap();
    place.write_card(&card(&file));
    let (code, _, err) = import(&[]);
    assert!(code == 1 && err.contains("output under [source]"), "{err}");
    let (code, _, err) = import(&["--output", "b"]);
    assert!(code == 1 && err.contains("gives 588 values, the contract says 64"), "{err}");
    assert_eq!(import(&["--output", "y"]).0, 0);
    let by_option = imported();
    assert_eq!(by_option.source.output.as_deref(), Some("y"));
    let mut named = card(&file);
    named.source.output = Some("y".into());
    place.write_card(&named);
    assert_eq!(import(&[]).0, 0);
    assert_eq!(imported(), by_option);
    let (code, _, err) = import(&["--output", "b"]);
    assert!(code == 1 && err.contains("--output b: card.toml says \"y\" in source.output"), "{err}");

    // It is a word about ONNX files, and no part of the digest.
    let (code, _, err) = place.vultus(&["model", "inspect", "--model", "means", "--output", "y"]);
    assert!(code == 1 && err.contains("--output: expected with an ONNX file as --model"), "{err}");
    let plain = network();
    fs::write(place.at("means.onnx"), &plain).unwrap();
    place.write_card(&card(&plain));
    assert_eq!(import(&[]).0, 0);
    assert_eq!((imported().digest, imported().source.output), (by_option.digest, None));
}
