//! What a licence holds back.

use std::{fs, process::Command};

use crate::place::Place;

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
    assert!(err.contains("model opened model=means") && err.contains("precision=\"f32\""), "{err}");
}
