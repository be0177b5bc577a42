//! Figures of README and `docs/performance.md` are those of `bench/results.json`, and of one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::process::script;

#[path = "../../benches/bridge/statistics.rs"]
mod statistics;
use statistics::{median, quantile, spread_percent};

const RESULTS: &str = "bench/results.json";
const FILES: [&str; 4] = [
    RESULTS,
    "README.md",
    "docs/performance.md",
    "docs/performance.svg",
];

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

fn check(root: &Path) -> Output {
    let mut figures = Command::new("python3");
    figures.arg(script("figures.py")).arg("check").arg(root);
    figures.output().expect("python3 runs")
}

#[test]
fn the_documents_say_what_was_measured() {
    let checked = check(&root());
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn a_document_that_says_anything_else_is_found() {
    let copy = tempfile::tempdir().unwrap();
    for file in FILES {
        let to = copy.path().join(file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root().join(file), to).unwrap();
    }
    assert!(check(copy.path()).status.success());
    for file in ["README.md", "docs/performance.md"] {
        let path = copy.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        let flattered = text.replacen("| **deskbridge**", "| **deskbridge** 9", 1);
        assert_ne!(text, flattered, "{file} has a row of the bridge");
        fs::write(&path, flattered).unwrap();
        let checked = check(copy.path());
        assert_eq!(checked.status.code(), Some(1), "{file}");
        let said = String::from_utf8(checked.stderr).unwrap();
        assert!(said.contains(file), "{said}");
        fs::write(&path, text).unwrap();
    }
}

#[test]
fn the_results_name_their_commit_machine_and_rounds() {
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
fn one_disturbed_round_does_not_count_and_a_busy_machine_does() {
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
    assert_eq!(quantile(&[1, 2, 3, 4], 0.99), 4);
    assert_eq!(quantile::<u8>(&[], 0.5), 0);
}
