use proptest::prelude::*;
use vultus_engine::graph::{Edges, Node, Op, Window};

use super::*;

fn tiny() -> (Contract, Graph, Weights) {
    let card = include_str!("../../../models/tiny-face-detector.toml");
    let card = card.replace("416", "4").replace("4225", "8");
    let card: String = card.lines().filter(|line| !line.starts_with("digest")).map(|l| format!("{l}\n")).collect();
    let mut weights = Weights::new();
    weights.insert("w", vec![2, 3, 3, 3], (0..54).map(|v| v as f32).collect()).unwrap();
    let window = Window::square(3, 1);
    let op = Op::Convolution { weight: "w".into(), bias: None, window, padding: Edges::NONE, groups: 1 };
    let nodes = vec![Node { op, inputs: vec![0] }];
    (Contract::parse(&card).unwrap(), Graph { input: Shape::new(3, 4, 4), nodes, output: 1 }, weights)
}

fn written(folder: &Path) -> PathBuf {
    let (contract, graph, weights) = tiny();
    Bundle::new(contract, graph, weights).unwrap().write(folder).unwrap()
}

#[test]
fn what_is_written_opens_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (contract, graph, weights) = tiny();
    let bundle = Bundle::new(contract, graph, weights).unwrap();
    for _ in 0..2 {
        let opened = Bundle::open(&bundle.write(dir.path()).unwrap()).unwrap();
        assert_eq!(opened.digest(), bundle.digest());
        assert_eq!((opened.contract(), opened.graph()), (bundle.contract(), bundle.graph()));
        assert_eq!(opened.weights(), bundle.weights());
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["tiny-face-detector"]);
}

#[test]
fn the_digest_covers_weights_graph_and_what_changes_outputs() {
    let digest = |change: &dyn Fn(&mut Contract, &mut Graph, &mut Weights)| {
        let (mut c, mut g, mut w) = tiny();
        change(&mut c, &mut g, &mut w);
        *Bundle::new(c, g, w).unwrap().digest()
    };
    let same = digest(&|_, _, _| {});
    assert_eq!(digest(&|c, _, _| c.summary = "another".into()), same);
    assert_ne!(digest(&|c, _, _| c.input.scale *= 2.0), same);
    assert_ne!(digest(&|c, _, _| c.input.mean[1] += 1.0), same);
    assert_ne!(digest(&|_, g, _| g.nodes.push(Node { op: Op::Relu, inputs: vec![1] })), same);
    assert_ne!(digest(&|_, _, w| w.insert("x", vec![1], vec![0.0]).unwrap()), same);
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let (mut contract, graph, weights) = tiny();
    contract.digest = Some("0".repeat(64));
    let refused = Bundle::new(contract, graph, weights).unwrap_err();
    assert!(matches!(refused, BundleError::Digest { .. }), "{refused}");
    let (mut contract, graph, weights) = tiny();
    contract.output.dimension = 9;
    let refused = Bundle::new(contract, graph, weights).unwrap_err();
    assert_eq!(refused.to_string(), "the network gives 8 values, the contract says 9");
    let (mut contract, graph, weights) = tiny();
    contract.input.width = 5;
    assert!(matches!(Bundle::new(contract, graph, weights), Err(BundleError::Input { .. })));
    let (mut contract, graph, weights) = tiny();
    contract.name = "../elsewhere".into();
    assert!(matches!(Bundle::new(contract, graph, weights), Err(BundleError::Contract(_))));
}

#[test]
fn a_network_that_slides_takes_images_of_another_size() {
    let (contract, graph, weights) = tiny();
    let bundle = Bundle::new(contract, graph, weights).unwrap();
    let larger = bundle.resized(7, 2 * 5 * 5).unwrap();
    assert_eq!((larger.graph().input, larger.contract().input.width), (Shape::new(3, 7, 7), 7));
    assert!(larger.weights() == bundle.weights() && larger.digest() != bundle.digest());
    assert!(matches!(bundle.resized(7, 51), Err(BundleError::Output { expected: 51, got: 50 })));
    assert!(matches!(bundle.resized(2, 2), Err(BundleError::Graph(_))), "smaller than its kernel");
}

#[test]
fn every_truncation_and_every_changed_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let folder = written(dir.path());
    let path = folder.join(WEIGHTS_FILE);
    let good = fs::read(&path).unwrap();
    let bundle = Bundle::open(&folder).unwrap();
    for length in 0..good.len() {
        assert!(parse(&good[..length]).is_err(), "{length}");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x21;
        // A change that says the same (a space elsewhere in the JSON) may pass; another network may not.
        if let Ok((graph, weights)) = parse(&bad) {
            let opened = Bundle::new(bundle.contract().clone(), graph, weights);
            assert!(opened.is_err_and(|e| matches!(e, BundleError::Digest { .. } | BundleError::Graph(_))), "{at}");
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(Bundle::open(&folder), Err(BundleError::Io { .. })));
}

#[test]
fn hostile_files_are_refused_before_anything_is_allocated() {
    let graph = serde_json::to_string(&tiny().1).unwrap().replace('"', "\\\"");
    let file = |tensor: &str, data: &[u8]| {
        let header = format!("{{\"__metadata__\":{{\"graph\":\"{graph}\"}},\"w\":{tensor}}}");
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    };
    let tensor = |dtype: &str, shape: &str, end: usize| {
        format!("{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}")
    };
    assert!(parse(&file(&tensor("F32", "[1]", 4), &1f32.to_le_bytes())).is_ok());
    for (tensor, data) in [
        (tensor("F32", "[1]", 4), f32::NAN.to_le_bytes().to_vec()),
        (tensor("F32", "[1]", 4), f32::INFINITY.to_le_bytes().to_vec()),
        (tensor("I32", "[1]", 4), vec![0; 4]),
        (tensor("F32", "[18446744073709551615,18446744073709551615]", 4), vec![0; 4]),
        (tensor("F32", "[1099511627776]", 4_398_046_511_104), vec![0; 4]),
        (tensor("F32", "[0]", 0), vec![]),
        (tensor("F32", "[2]", 4), vec![0; 4]),
    ] {
        assert!(parse(&file(&tensor, &data)).is_err(), "{tensor}");
    }
    assert!(parse(&u64::MAX.to_le_bytes()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
        let _ = parse(&bytes);
        let _ = parse(&[&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes].concat());
        let _ = Contract::parse(&text);
    }
}
