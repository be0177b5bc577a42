//! The tables of `docs/performance.md` are those that `scripts/figures.py write` makes of
//! `bench/results.json`.

use std::process::Command;

use crate::support::process::script;

#[path = "../../benches/bridge/statistics.rs"]
mod statistics;
use statistics::{median, quantile, spread_percent};

#[test]
fn documents_match_the_measured_results() {
    let mut figures = Command::new("python3");
    let checked = figures.arg(script("figures.py")).arg("check").output();
    let checked = checked.expect("python3 runs");
    assert!(checked.status.success(), "{checked:?}");
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
