//! A small network with its card, and a folder to import them into.

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
        Contract, Metric,
        contract::{CalibrationTable, PrecisionClass, Terms},
    },
    pipeline::decode::{DecodeLimits, Source, decode},
};
use vultus_engine::{
    image::Rect,
    onnx::proto::{
        AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
        TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
    },
    precision::Precision,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
pub const DIMENSION: i64 = 64;

pub fn fetched() -> PathBuf {
    let models = std::env::var_os("VULTUS_MODELS").map_or_else(|| Path::new(ROOT).join("data/models"), PathBuf::from);
    assert!(models.join("default/model.toml").exists(), "{} holds no model: run `make model`", models.display());
    models
}

/// A network of ArcFace's input: means of 8x8 pixels, and random directions of them.
pub fn network() -> Vec<u8> {
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
pub fn card(file: &[u8]) -> Contract {
    let mut card = Contract::parse(include_str!("../../models/default.toml")).unwrap();
    card.name = "means".into();
    card.digest = None;
    card.source.sha256 = Sha256::digest(file).iter().map(|b| format!("{b:02x}")).collect();
    card.licence.terms = Some(Terms::ResearchOnly);
    (card.input.width, card.input.height) = (112, 112);
    // Without a shift a dimmed face points in the same direction.
    (card.input.mean, card.input.scale) = ([0.0; 3], 1.0 / 255.0);
    card.output.dimension = DIMENSION as usize;
    let face = card.face.as_mut().unwrap();
    face.calibration.clear();
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

/// The default model's calibration.
pub fn table() -> CalibrationTable {
    let card = Contract::parse(include_str!("../../models/default.toml")).unwrap();
    card.face.unwrap().calibration.remove(0)
}

/// A data directory with the fetched networks and the file beside.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
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

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write_card(&self, card: &Contract) {
        fs::write(self.at("card.toml"), card.to_toml().unwrap()).unwrap();
    }

    pub fn vultus(&self, arguments: &[&str]) -> (i32, String, String) {
        self.vultus_with(&[], arguments)
    }

    /// With variables of the environment.
    pub fn vultus_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vultus"));
        command.args(arguments).current_dir(self.dir.path());
        command.env("VULTUS_DATA", self.dir.path()).env_remove("VULTUS_MODELS").env_remove("VULTUS_LOG");
        let ran = command.envs(variables.iter().copied()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (ran.status.code().unwrap(), text(ran.stdout), text(ran.stderr))
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.vultus(&[arguments, &["--json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {err}");
        serde_json::from_str(&out).unwrap()
    }

    /// A photo with one face, which fills half of it: its path.
    pub fn crop(&self) -> String {
        let file =
            fs::read(fetched().parent().unwrap().join("photos/sample1.jpg")).expect("the photos: run `make model`");
        let limits = DecodeLimits { max_bytes: 64 << 20, max_pixels: 1 << 26, ..DecodeLimits::default() };
        let photo = decode(Source::Encoded(&file), &limits).unwrap();
        let (width, height) = (photo.width() as f32, photo.height() as f32);
        let side = 1.4 * (0.0920 * width).max(0.1869 * height);
        let (x, y) = ((0.2156 + 0.0460) * width - side / 2.0, (0.2762 + 0.0934) * height - side / 2.0);
        let crop = photo.cut(Rect { x, y, width: side, height: side }.clipped(photo.width(), photo.height()).unwrap());
        let path = self.at("crop.png");
        let mut encoder = png::Encoder::new(fs::File::create(&path).unwrap(), crop.width(), crop.height());
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(crop.rgb8()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Imports the network with `card` and, as if it had been measured for it, the default model's calibration.
    pub fn import_calibrated(&self, mut card: Contract) {
        self.write_card(&card);
        let (code, _, err) = self.import();
        assert_eq!(code, 0, "{err}");
        let imported = Contract::parse(&fs::read_to_string(self.at("models/means/model.toml")).unwrap()).unwrap();
        card.face.as_mut().unwrap().calibration = vec![CalibrationTable { of: imported.digest, ..table() }];
        self.write_card(&card);
        let (code, _, err) = self.import();
        assert_eq!(code, 0, "{err}");
    }

    pub fn import(&self) -> (i32, String, String) {
        self.vultus(&["model", "import", "means.onnx", "--card", "card.toml"])
    }
}
