//! `vultus-load` as a child process: its figures.

use std::process::Command;

use serde_json::Value;

use crate::server::models;

/// Runs it with these arguments beside `--json`.
pub fn bench(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_vultus-load"))
        .args(["--json", "--models"])
        .arg(models())
        .args(arguments)
        .output()
        .unwrap();
    // 3 says that figures are unsound; which, the caller looks at.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}: {said}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One of a row's figures.
pub fn number(row: &Value, name: &str) -> f64 {
    row[name].as_f64().unwrap_or_else(|| panic!("{name} is no number: {row}"))
}

/// What holds of a row on any machine: nothing failed, no answer was another than before the load, whoever was refused knows when to
/// try again.
pub fn assert_sound(row: &Value) {
    for count in ["failed", "changed", "unhinted", "shed"] {
        assert_eq!(row[count], 0, "{count}: {row}");
    }
    assert!(number(row, "ok") > 0.0, "{row}");
}
