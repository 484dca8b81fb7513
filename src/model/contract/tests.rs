use super::*;

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
