//! In which precisions an imported network serves.

use std::fs;

use vultus::model::{Contract, contract::PrecisionClass};
use vultus_engine::{cpu::CpuNetwork, plan::ActivationRange, precision::Precision};

use crate::place::{Place, card, fetched, network};

#[test]
fn a_precision_serves_when_it_was_measured_to_agree() {
    let place = Place::new();
    assert_eq!(place.import().0, 0);
    let check = |precision| place.vultus(&["model", "check", "--model", "means", "--precision", precision]);
    let (code, out, _) = check("f32");
    assert!(code == 0 && out.contains("means: does not serve here in bf16: no measured agreement"), "{out}");
    let (code, out, _) = check("bf16");
    assert!(code == 3 && out.contains("no measured agreement"), "{out}");
    // Nor as what it computes in at first, where nothing would be held against f32.
    place.write_card(&Contract { precision: Precision::Bf16, precisions: vec![], ..card(&network()) });
    let (code, _, err) = place.import();
    assert!(code == 1 && err.contains("precision: expected f32"), "{err}");

    // A precision of another model's card; and one that the network does not have, whatever the card says.
    let imported = Contract::parse(&fs::read_to_string(place.at("models/means/model.toml")).unwrap()).unwrap();
    let digest = imported.digest.as_deref().unwrap();
    let mut int8 = imported.precisions[0].clone();
    (int8.precision, int8.agreement) = (Precision::Int8, Some(0.999));
    for (class, fault) in [
        (int8.clone(), "int8: what the card says of it was not measured on these weights"),
        (int8.clone().measured_on(&"0".repeat(64)), "int8: what the card says of it was not measured on these weights"),
        (int8.measured_on(digest), "int8: the network does not run in int8: int8 needs activation ranges"),
    ] {
        place.write_card(&Contract { precisions: vec![class], ..card(&network()) });
        assert_eq!(place.import().0, 0);
        let (code, out, _) = check("f32");
        assert!(code == 3 && out.contains(&format!("means: not compared: {fault}")), "{out}");
        assert!(out.contains("means: cpu, portable, f32: agrees"), "{out}");
    }
}

#[test]
fn importing_again_keeps_what_was_measured_on_the_same_weights() {
    let place = Place::new();
    assert_eq!(place.import().0, 0);
    let carded = || Contract::parse(&fs::read_to_string(place.at("models/means/model.toml")).unwrap()).unwrap();
    let mut measured = carded();
    let class = PrecisionClass { agreement: Some(0.999), ..measured.precisions[0].clone() };
    let class = class.measured_on(measured.digest.as_deref().unwrap());
    measured.precisions = vec![class.clone()];
    fs::write(place.at("models/means/model.toml"), measured.to_toml().unwrap()).unwrap();
    // The card has a class of this precision that was not measured.
    assert_eq!(place.import().0, 0);
    assert_eq!(carded().precisions, std::slice::from_ref(&class));
    place.write_card(&Contract { precisions: vec![], ..card(&network()) });
    assert_eq!(place.import().0, 0);
    assert_eq!(carded().precisions, [class]);
    let mut other = Contract { precisions: vec![], ..card(&network()) };
    other.input.scale *= 2.0;
    place.write_card(&other);
    let (code, _, err) = place.import();
    assert!(code == 0 && err.contains("bf16: what was measured of it on other weights is dropped"), "{err}");
    assert_eq!(carded().precisions, []);
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

/// In int8 every instruction set that the environment lets it take gives the same bits, in every batch, and says its name.
#[test]
fn int8_gives_the_same_bits_on_every_instruction_set() {
    let place = Place::new();
    let pixels = |count: usize| (0..count * 3 * 112 * 112).map(|i| (i * i / 7 % 251) as u8).collect::<Vec<u8>>();
    fs::write(place.at("raw"), pixels(5)).unwrap();
    fs::write(place.at("seen"), pixels(2)).unwrap();
    let run = |isa: &str, batch: &str| {
        let arguments = [
            "model",
            "run",
            "--model",
            "means.onnx",
            "--precision",
            "int8",
            "--ranges-from",
            "seen",
            "--images",
            "raw",
        ];
        let arguments = [&arguments[..], &["--outputs", "out", "--batch", batch, "--json"]].concat();
        place.vultus_with(&[("VULTUS_ISA", isa)], &arguments)
    };
    let levels: Vec<&str> = CpuNetwork::levels().into_iter().map(|level| level.name()).collect();
    let mut outputs = Vec::new();
    for isa in ["portable", "avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16"] {
        for batch in ["1", "3", "5"] {
            let (code, out, err) = run(isa, batch);
            assert_eq!(code, 0, "{err}");
            let said: serde_json::Value = serde_json::from_str(&out).unwrap();
            let ran = said["isa"].as_str().unwrap();
            // Its own where the machine has it, else the best below.
            assert!(if levels.contains(&isa) { ran == isa } else { levels.contains(&ran) }, "{isa}: {ran}");
            outputs.push(fs::read(place.at("out")).unwrap());
        }
    }
    assert_eq!(outputs[0].len(), 5 * 64 * 4);
    assert!(outputs.iter().all(|other| *other == outputs[0]), "the bits depend on the instruction set or the batch");
    // AMX is taken only where it is named; without it, the best that there is.
    let (code, out, err) = run("amx", "2");
    let said: serde_json::Value = serde_json::from_str(&out).unwrap_or_default();
    assert!(code == 0 && (said["isa"] == "amx" || said["isa"] == levels[0]), "{out}{err}");
    assert_eq!(fs::read(place.at("out")).unwrap(), outputs[0]);
    let (code, _, err) = run("sse2", "1");
    assert!(code == 1 && err.contains("VULTUS_ISA is sse2, expected one of"), "{err}");
    let bench = [
        "bench",
        "embed",
        "--model",
        "means.onnx",
        "--precision",
        "int8",
        "--batch",
        "1",
        "--seconds",
        "0.01",
        "--json",
    ];
    let (code, out, _) = place.vultus_with(&[("VULTUS_ISA", "portable")], &bench);
    assert!(code == 0 && out.contains("\"isa\":\"portable\""), "{out}");
}
