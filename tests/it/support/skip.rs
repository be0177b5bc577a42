//! The one place where a test says that it could not be run here: past the test runner, which
//! hides what a passing test prints, so that a skip is never mistaken for a pass.

use std::fs::OpenOptions;
use std::io::{Write, stderr};

/// Names the file that `scripts/test.sh` prints at the end.
const FILE: &str = "DESKBRIDGE_TEST_SKIPS";

/// Says that `test` was not run, and why.
pub fn skipped(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}\n");
    let noted = std::env::var_os(FILE).is_some_and(|path| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .is_ok()
    });
    if !noted {
        // Not `eprint!`: the runner would keep it.
        let _ = stderr().write_all(line.as_bytes());
    }
}

/// Whether this is root; if not, says so for `test`.
pub fn is_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skipped(test, "needs root");
    }
    is_root
}
