//! The one place where a test reports that it was skipped. The report bypasses the test runner,
//! which hides the output of passing tests, so a skip is never mistaken for a pass.

use std::fs::OpenOptions;
use std::io::{Write, stderr};

/// Environment variable: the file to which skips are appended; `scripts/test.sh` prints it at the
/// end.
const FILE: &str = "DESKBRIDGE_TEST_SKIPS";

/// Reports that `test` was skipped, and why.
pub fn skipped(test: &str, why: &str) {
    let line = format!("SKIPPED {test}: {why}\n");
    let noted = std::env::var_os(FILE).is_some_and(|path| {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .is_ok()
    });
    if !noted {
        // Not `eprint!`: the test runner would capture it.
        let _ = stderr().write_all(line.as_bytes());
    }
}

/// Whether the tests run as root; if not, `test` is reported as skipped.
pub fn is_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skipped(test, "needs root");
    }
    is_root
}
