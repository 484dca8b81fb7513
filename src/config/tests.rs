use super::*;

#[test]
fn nothing_is_permitted_by_default() {
    let config = Config::load(None).unwrap();
    assert!(config.clients.is_empty());
    assert!(config.listen.ip().is_loopback() && !config.reflection);
    assert_eq!(config.rates.tail, Tail::Measured);
}

#[test]
fn a_client_has_what_it_is_given() {
    let config = Config::parse(
        r#"
        [policy]
        max_fmr = 0.001
        [clients.shop]
        rights = ["verify", "identify"]
        purposes = ["sim_activation"]
        galleries = ["subscribers"]
        "#,
    )
    .unwrap();
    let shop = &config.clients[&ClientId::new("shop").unwrap()];
    assert!(shop.rights.contains(&Right::Verify) && !shop.rights.contains(&Right::Review));
    assert_eq!(shop.purposes, BTreeSet::from([Purpose::SimActivation]));
    assert_eq!(config.rates.max_fmr.value(), 0.001);
}

#[test]
fn all_faults_are_reported_together() {
    let faults = Config::parse(
        r#"
        [server]
        listen = "localhost"
        [policy]
        max_fmr = 2.0
        [limits]
        batch_images = 0
        [clients.shop]
        rights = ["veryfy"]
        purposes = ["marketing"]
        galleries = ["A"]
        [clients."a b"]
        "#,
    )
    .unwrap_err();
    let text = faults.to_string();
    for part in
        ["server.listen", "policy.max_fmr", "limits.batch_images", "veryfy", "marketing", "\"A\"", "clients.a b"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_faults() {
    for (text, names) in [
        ("default_deadline_ms = 5000\nmax_deadline_ms = 4999", "limits.max_deadline_ms"),
        ("image_bytes = 1048576\nmessage_bytes = 1114111", "limits.image_bytes"),
    ] {
        let faults = Config::parse(&format!("[limits]\n{text}")).unwrap_err().to_string();
        assert!(faults.contains(names) && faults.contains("1 fault"), "{faults}");
    }
    let sound =
        "[limits]\ndefault_deadline_ms = 5000\nmax_deadline_ms = 5000\nimage_bytes = 1048576\nmessage_bytes = 1114112";
    Config::parse(sound).unwrap();
}

#[test]
fn who_reviews_neither_enrols_nor_identifies() {
    for beside in ["enrol", "identify"] {
        let clients =
            format!("[clients.a]\nrights = [\"verify\", \"review\", \"{beside}\"]\n[clients.b]\nrights = [\"review\"]");
        let faults = Config::parse(&clients).unwrap_err().to_string();
        assert!(faults.contains(&format!("clients.a.rights: expected no review beside {beside}")), "{faults}");
        assert!(faults.contains("1 fault"), "{faults}");
    }
    Config::parse("[clients.a]\nrights = [\"verify\", \"review\", \"scores\", \"erase\", \"admin\"]").unwrap();
}

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let faults = Config::load(Some(Path::new("/dev/zero"))).unwrap_err().to_string();
    assert!(faults.contains("expected at most 1048576 bytes"), "{faults}");
}

#[test]
fn a_misspelt_setting_is_a_fault() {
    for text in ["[limits]\nmesage_bytes = 1", "[polciy]", "clients = 3", "not toml"] {
        assert!(Config::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_lost_device_ends_the_server_unless_said_otherwise() {
    assert_eq!(Config::load(None).unwrap().on_loss, OnLoss::Exit);
    assert_eq!(Config::parse("[device]\non_loss = \"cpu\"").unwrap().on_loss, OnLoss::Cpu);
    let refused = Config::parse("[device]\non_loss = \"wait\"").unwrap_err().to_string();
    assert!(refused.contains("exit") && refused.contains("cpu"), "{refused}");
}
