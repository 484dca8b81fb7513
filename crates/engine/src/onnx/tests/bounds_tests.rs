//! Numbers at the end of their range, modes of training, and what is no file.

use super::{AttributeProto, AttributeType, TensorProto, agrees, model, node, open, read, small, tensor};
use crate::graph::Op;

#[test]
fn the_greatest_numbers_are_numbers_and_infinite_bounds_are_none() {
    let bounded = |low: f32, high: f32| {
        let value = |f| AttributeProto {
            name: "value_float".into(),
            f,
            r#type: AttributeType::Float as i32,
            ..Default::default()
        };
        let nodes =
            vec![node("Constant", &[], "low", vec![value(low)]), node("Clip", &["x", "low", "high"], "y", vec![])];
        read(&model(nodes, vec![tensor("high", &[], &[high])])).map(|imported| imported.graph.nodes[0].op.clone())
    };
    for (low, high) in [(f32::MIN, f32::MAX), (f32::NEG_INFINITY, f32::INFINITY), (-f32::MAX, f32::INFINITY)] {
        assert_eq!(bounded(low, high).unwrap(), Op::Clip { low: f32::MIN, high: f32::MAX });
    }
    assert_eq!(bounded(f32::NEG_INFINITY, 6.0).unwrap(), Op::Clip { low: f32::MIN, high: 6.0 });
    for (low, high) in [(f32::INFINITY, f32::INFINITY), (0.0, f32::NEG_INFINITY), (f32::NAN, 1.0), (0.0, f32::NAN)] {
        assert!(bounded(low, high).is_err(), "{low} {high}");
    }
    // A training mode that is false changes nothing.
    let mut untrained = small();
    let graph = untrained.graph.as_mut().unwrap();
    graph.initializer.push(TensorProto {
        name: "no".into(),
        data_type: 9,
        raw_data: vec![0].into(),
        ..Default::default()
    });
    graph.node[11].input.extend([String::new(), "no".into()]);
    agrees(&read(&untrained).unwrap());
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.onnx");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (told, answer) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || told.send(open(&pipe, (112, 112), None).unwrap_err().to_string()).unwrap());
    let refused = answer.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    assert!(refused.contains("expected a regular file"), "{refused}");
}
