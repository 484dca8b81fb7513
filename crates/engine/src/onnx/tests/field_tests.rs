//! Files of the kinds that users bring: each does what is right for it. They lie beside the repository.

use std::{num::NonZeroUsize, path::PathBuf};

use super::{Colour, Input, OnnxError, agrees, open};
use crate::{candle, cpu::CpuNetwork, image::Pixels, plan::Plan, precision::Precision};

/// Files, the output that is taken, and the length of what it gives, where that is fixed.
const RUN: [(&str, Option<&str>, Option<f32>); 9] = [
    ("control.onnx", None, None),
    ("torch_default.onnx", None, None),
    ("torch_default_dynamic_batch.onnx", None, None),
    ("external/dot.onnx", None, None),
    ("reducel2.onnx", None, Some(1.0)),
    ("lpnormalization.onnx", None, Some(1.0)),
    ("clip_expand.onnx", None, Some(1.0)),
    ("feature_norm.onnx", Some("embedding"), Some(1.0)),
    ("feature_norm.onnx", Some("norm"), None),
];
const REFUSED: [(&str, &str); 2] = [
    ("uint8_input.onnx", "the input \"data\" has values of type uint8"),
    ("feature_norm.onnx", "2 outputs, \"embedding\", \"norm\""),
];

#[test]
fn files_from_the_field_run_or_are_refused_by_name() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/field/onnx");
    if !folder.exists() {
        println!("skipped: {} is not there", folder.display());
        return;
    }
    let image =
        Pixels::new(112, 112, (0..3 * 112 * 112u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    let image = image.unwrap();
    for (name, output, length) in RUN {
        let path = folder.join(name);
        let read = open(&path, (112, 112), output).unwrap_or_else(|e| panic!("{name}: {e}"));
        agrees(&read);
        let input = Input { width: 112, height: 112, colour: Colour::Rgb, mean: [127.5; 3], scale: 1.0 / 127.5 };
        let reference = candle::reference(&read.graph, &read.weights, &input, &[&image]).unwrap();
        let plan = Plan::new(&read.graph, &read.weights).unwrap();
        let mut network = CpuNetwork::new(plan, &input, Precision::F32, NonZeroUsize::MIN).unwrap();
        let got = network.run(&[&image]).unwrap();
        let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let apart: Vec<f32> = got[0].iter().zip(&reference[0]).map(|(a, b)| a - b).collect();
        assert!(norm(&apart) <= 1e-4 * norm(&reference[0]), "{name}");
        if let Some(length) = length {
            assert!((norm(&got[0]) - f64::from(length)).abs() < 1e-5, "{name}: {}", norm(&got[0]));
        }
    }
    for (name, expected) in REFUSED {
        let refused: OnnxError = open(&folder.join(name), (112, 112), None).unwrap_err();
        assert!(refused.to_string().contains(expected), "{name}: {refused}");
    }
}
