//! The figures of `docs/performance.md` are those of `bench/results.json`, and of one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

use crate::support::process::script;

#[path = "../../benches/bridge/statistics.rs"]
mod statistics;
use statistics::{median, quantile, spread_percent};

const RESULTS: &str = "bench/results.json";
const PAGE: &str = "docs/performance.md";
const FILES: [&str; 3] = [RESULTS, PAGE, "docs/performance.svg"];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn check(root: &Path) -> Output {
    let mut figures = Command::new("python3");
    figures.arg(script("figures.py")).arg("check").arg(root);
    figures.output().expect("python3 runs")
}

#[test]
fn documents_match_the_measured_results() {
    let checked = check(&root());
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn differing_document_is_detected() {
    let copy = tempfile::tempdir().unwrap();
    for file in FILES {
        let to = copy.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root().join(file), to).unwrap();
    }
    assert!(check(copy.path()).status.success());
    let path = copy.path().join(PAGE);
    let text = fs::read_to_string(&path).unwrap();
    let flattered = text.replacen("| **deskbridge**", "| **deskbridge** 9", 1);
    assert_ne!(text, flattered, "it has a row of the bridge");
    fs::write(&path, flattered).unwrap();
    let checked = check(copy.path());
    assert_eq!(checked.status.code(), Some(1));
    let said = String::from_utf8(checked.stderr).unwrap();
    assert!(said.contains(PAGE), "{said}");
}

#[test]
fn results_record_commit_machine_and_rounds() {
    let text = fs::read_to_string(root().join(RESULTS)).unwrap();
    let results: serde_json::Value = serde_json::from_str(&text).unwrap();
    for name in ["commit", "date"] {
        let named = results[name].as_str().unwrap_or_default();
        assert!(
            !named.is_empty() && !named.contains("with changes"),
            "{name}: {named}"
        );
    }
    for name in ["processor", "rabbitmq", "rustc", "linux"] {
        assert!(results["machine"][name].is_string(), "{name}");
    }
    let cases = results["parts"]["speed"]["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        assert!(case["rounds"].as_array().unwrap().len() >= 5, "{case}");
    }
}

#[test]
fn measured_parts_have_a_table() {
    let shown = |parts: &serde_json::Value| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("results.json");
        let text = fs::read_to_string(root().join(RESULTS)).unwrap();
        let mut results: serde_json::Value = serde_json::from_str(&text).unwrap();
        results["parts"] = parts.clone();
        fs::write(&path, results.to_string()).unwrap();
        let mut figures = Command::new("python3");
        let shown = figures.arg(script("figures.py")).arg("show").arg(path);
        let shown = shown.output().expect("python3 runs");
        assert!(shown.status.success(), "{shown:?}");
        String::from_utf8(shown.stdout).unwrap()
    };
    let block = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!("\n## {name}\n\n")).unwrap();
        rest.split("\n\n").next().unwrap().to_owned()
    };
    let case = |subject| {
        let median = json!({"cpu_us": 60.0, "peak_mib": 31.0, "written_per_byte": 3.5});
        json!({"subject": subject, "ratio": {"forwarder": 0.76}, "median": median})
    };
    let cases = json!({"cases": [case("bridge")], "sessions_per_second": 9.0});
    let mut parts = json!({"overload": {"loads": [{"distinct": 640, "cases": [case("bridge")]}]}});
    for name in ["steady", "retention", "ext4"] {
        parts[name] = cases.clone();
    }
    let (without, with) = (shown(&json!({})), shown(&parts));
    for name in ["overload", "steady", "retention", "ext4"] {
        assert_eq!(block(&without, name), "Not measured in this run.");
        let table = block(&with, name);
        assert!(table.contains("| **deskbridge**"), "{name}: {table}");
        assert!(table.ends_with("| 60 | 3.5 | 31 |"), "{name}: {table}");
        // What nobody has measured has no column.
        assert!(!table.contains("archive"), "{name}: {table}");
    }
    assert!(block(&with, "ext4").contains("| 0.76 |"), "{with}");
    assert!(block(&with, "targets").contains("| 31 MiB |"), "{with}");
}

#[test]
fn spread_ignores_one_outlier_round() {
    let check = |rounds: &[f64], expected: f64| {
        assert_eq!(
            spread_percent(rounds.iter().copied()),
            expected,
            "{rounds:?}"
        );
    };
    check(&[], 0.0);
    check(&[7.0], 0.0);
    check(&[98.0, 100.0, 102.0, 101.0, 20.0], 3.0);
    check(&[100.0, 80.0, 125.0, 60.0, 150.0], 45.0);
    assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
    assert_eq!(quantile(&[1, 2, 3, 4], 0.99), 4);
    assert_eq!(quantile::<u8>(&[], 0.5), 0);
}
