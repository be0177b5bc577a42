//! What the binary tells about itself: schemas and the AsyncAPI document, judged by well-known
//! validators; help and completions.

mod asyncapi;
mod configuration;
mod help;
mod session;

use assert_cmd::Command;
use serde_json::Value;

/// What a command prints; panics if it fails.
fn printed(arguments: &[&str]) -> String {
    let dir = tempfile::TempDir::new().unwrap();
    let mut command = Command::cargo_bin("deskbridge").unwrap();
    let output = command
        .args(arguments)
        .current_dir(dir.path())
        .env_clear()
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

fn document(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(arguments)).unwrap()
}
