//! The results file: only parts that were measured for one commit on one machine.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Adds a part to those of the same commit and machine. Parts of another commit or machine are
/// dropped, because they are not comparable; returns their names.
///
/// # Errors
/// The file cannot be written.
pub fn write(
    path: &Path,
    commit: &str,
    machine: &Value,
    part: &str,
    measured: Value,
) -> Result<Vec<String>, String> {
    let old: Value = fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let is_same = |key: &str| old["machine"][key] == machine[key];
    let is_comparable = old["commit"] == commit
        && ["cores", "processor", "rabbitmq", "rustc"]
            .into_iter()
            .all(is_same);
    let mut all = old["parts"].as_object().cloned().unwrap_or_default();
    let mut dropped = Vec::new();
    if !is_comparable {
        let stale = all.keys().filter(|name| *name != part);
        dropped.extend(stale.cloned());
        all.clear();
    }
    all.insert(part.to_owned(), measured);
    let machine = if is_comparable {
        &old["machine"]
    } else {
        machine
    };
    let date = jiff::Timestamp::now().to_string();
    let date = date.split('T').next().unwrap_or_default();
    let results = json!({"commit": commit, "date": date, "machine": machine, "parts": all});
    let text = serde_json::to_string_pretty(&results).expect("JSON");
    let write = || {
        fs::create_dir_all(path.parent().expect("a directory"))?;
        fs::write(path, text + "\n")
    };
    write().map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    Ok(dropped)
}

/// Rounds a number to its significant digits.
pub fn rounded(value: f64) -> Value {
    let digits = match value.abs() {
        value if value >= 1000.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    let factor = 10_f64.powi(digits);
    json!((value * factor).round() / factor)
}
