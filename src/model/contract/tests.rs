use super::*;
use crate::domain::Calibration;

const CARD: &str = include_str!("../../../models/default.toml");

fn fault(from: &str, to: &str) -> ContractError {
    assert!(CARD.contains(from), "{from}");
    Contract::parse(&CARD.replacen(from, to, 1)).unwrap_err()
}

#[test]
fn another_format_is_told_by_its_number_whatever_else_it_holds() {
    let newer = fault("format = 1", "format = 2\nwings = 2");
    let expected = "model.toml has format 2, this program reads format 1: a newer version of the program is needed";
    assert_eq!(newer.to_string(), expected);
    assert!(matches!(fault("format = 1", "format = 9000000000"), ContractError::Format(9_000_000_000)));
    assert!(fault("format = 1", "format = 0").to_string().ends_with("there is none such"));
    // No number at all is a fault of the file.
    assert!(fault("format = 1", "").to_string().contains("missing field `format`"));
    assert!(matches!(fault("format = 1", "format = \"1\""), ContractError::Toml(_)));
}

#[test]
fn a_word_that_is_not_known_may_be_a_newer_programs() {
    let changes = [
        ("role = \"embed\"", "role = \"embed\"\nwings = 2", "unknown field `wings`"),
        ("floor = 0.995", "floor = 0.995\nceiling = 1.0", "unknown field `ceiling`"),
        ("precision = \"bf16\"", "precision = \"fp4\"", "unknown variant `fp4`"),
    ];
    for (from, to, word) in changes {
        let error = fault(from, to);
        assert!(matches!(error, ContractError::Unknown(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(word) && text.contains("a newer version of this program"), "{text}");
    }
    assert!(matches!(fault("version = \"", "version = 1 # \""), ContractError::Toml(_)));
}

#[test]
fn what_was_not_measured_is_no_first_precision() {
    for precision in ["bf16", "int8"] {
        let refused = fault("precision = \"f32\"", &format!("precision = \"{precision}\"")).to_string();
        assert!(refused.contains("precision: expected f32; a reduced one serves as [[precisions]]"), "{refused}");
    }
}

#[test]
fn landmarks_are_placed_in_squares_alone() {
    let arcface = CARD.replacen("dlib_square_padded", "arcface_112", 1);
    assert!(Contract::parse(&arcface).is_ok());
    let refused = Contract::parse(&arcface.replacen("height = 150", "height = 112", 1)).unwrap_err().to_string();
    assert!(refused.contains("expected a square") && refused.contains("150x112"), "{refused}");
    // Other alignments go by a rectangle.
    assert!(Contract::parse(&CARD.replacen("height = 150", "height = 112", 1)).is_ok());
}

#[test]
fn a_calibration_is_of_one_precision() {
    let card = Contract::parse(CARD).unwrap();
    let digest = card.digest.unwrap();
    let face = card.face.unwrap();
    face.calibrated_for(&digest).unwrap();
    let table = |precision| face.calibration(precision).unwrap();
    assert_ne!(table(Precision::F32), table(Precision::Bf16));
    assert_ne!(table(Precision::F32), table(Precision::Int8));
    let mut without = face.clone();
    without.calibration.retain(|table| table.precision != Some(Precision::Int8));
    let of_none = without.calibration(Precision::Int8).unwrap();
    assert_eq!(of_none, Calibration::unmeasured(), "what was measured in others says nothing");

    let mut nameless = face.clone();
    nameless.calibration[0].precision = None;
    let refused = nameless.calibrated_for(&digest).unwrap_err();
    assert!(matches!(&refused, ContractError::CalibrationOfUnknown { .. }), "{refused}");
    assert!(refused.to_string().contains("face.calibration.precision"), "{refused}");
    // In the order of the file: both would be bf16's.
    let twice = CARD.replacen("precision = \"f32\"\nsource = \"\"\"", "precision = \"bf16\"\nsource = \"\"\"", 1);
    assert!(Contract::parse(&twice).unwrap_err().to_string().contains("one table for each precision"));
    // Of one that is no list, as cards once had it.
    let single = CARD.replacen("[[face.calibration]]", "[face.calibration]", 1);
    let (single, _) = single.split_once("\n[[face.calibration]]").unwrap();
    let quality = CARD.split_once("[face.quality]").unwrap().1;
    let single = Contract::parse(&format!("{single}\n[face.quality]{quality}")).unwrap();
    assert_eq!(single.face.unwrap().calibration.len(), 1);
}
