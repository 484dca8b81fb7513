//! What a licence holds back.

use std::{fs, process::Command};

use vultus::model::{Contract, contract::Terms};

use crate::place::{Place, card, network};

#[test]
fn a_card_says_what_its_weights_may_be_used_for() {
    let place = Place::new();
    let mut silent = card(&network());
    silent.licence.terms = None;
    place.write_card(&silent);
    let (code, _, err) = place.import();
    assert!(code == 1 && err.contains("expected terms = \"any\" or \"research_only\" under [licence]"), "{err}");
    assert!(!place.at("models/means").exists());
}

#[test]
fn no_network_of_a_model_is_exempt_and_no_command_that_answers_about_people() {
    let place = Place::new();
    let mut free = card(&network());
    free.licence.terms = Some(Terms::Any);
    place.import_calibrated(free);
    let photo = place.crop();
    fs::create_dir(place.at("faces")).unwrap();
    fs::copy(&photo, place.at("faces/amy_1.png")).unwrap();
    let commands: [&[&str]; 2] = [&["verify", &photo, &photo], &["enrol", "faces", "--gallery", "g"]];
    let answers = |flag: Option<&str>| {
        commands.map(|command| {
            let (code, out, err) = place.vultus(&[command, &["--model", "means"], flag.as_slice()].concat());
            (code == 1, out + &err)
        })
    };
    for restricted in ["face-landmark-68", "tiny-face-detector"] {
        let path = place.at("models").join(restricted).join("model.toml");
        let before = fs::read_to_string(&path).unwrap();
        let mut contract = Contract::parse(&before).unwrap();
        contract.licence.terms = Some(Terms::ResearchOnly);
        fs::write(&path, contract.to_toml().unwrap()).unwrap();
        let (code, err) = serve(&place, "");
        assert!(code == Some(1) && err.contains(&format!("{restricted:?}")), "{err}");
        for (failed, said) in answers(None) {
            let named = said.contains(&format!("{restricted:?}")) && said.contains("expected --research-only-models");
            assert!(failed && named, "{said}");
        }
        for (failed, said) in answers(Some("--research-only-models")) {
            assert!(!failed, "{said}");
        }
        fs::write(&path, before).unwrap();
    }
    for (failed, said) in answers(None) {
        assert!(!failed, "{said}");
    }
}

fn serve(place: &Place, config: &str) -> (Option<i32>, String) {
    fs::write(place.at("vultus.toml"), config).unwrap();
    let mut command = Command::new("timeout");
    command.args(["4", env!("CARGO_BIN_EXE_vultus"), "serve", "--insecure", "--config", "vultus.toml"]);
    command.args(["--model", "means", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    command.current_dir(place.dir.path()).env("VULTUS_DATA", place.dir.path()).env_remove("VULTUS_MODELS");
    let ran = command.output().unwrap();
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[test]
fn weights_for_research_alone_do_not_serve_unless_the_configuration_says_so() {
    let place = Place::new();
    place.import_calibrated(card(&network()));
    let (code, err) = serve(&place, "");
    assert!(code == Some(1) && err.contains("policy.research_only_models"), "{err}");
    let (_, err) = serve(&place, "[policy]\nresearch_only_models = true");
    assert!(err.contains("licensed for research alone") && err.contains("serving"), "{err}");
    assert!(err.contains("model opened model=means") && err.contains("precision=\"f32\""), "{err}");
}
