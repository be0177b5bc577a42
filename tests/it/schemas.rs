//! The documents that the binary generates: JSON schemas and the AsyncAPI document, checked by
//! well-known validators; types generated from them; help texts and shell completions.

mod asyncapi;
mod configuration;
mod help;
mod session;
mod strict;
mod types;

use assert_cmd::Command;
use serde_json::Value;

use crate::send_command::simulated_sessions;

const COMPLETED: &str = include_str!("../data/completed.json");

/// The output of a command; panics if it fails.
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

/// The example that DeskDirector publishes, and sessions as `send` posts them.
fn sent_sessions() -> Vec<Value> {
    let mut sessions: Vec<Value> = serde_json::from_str(COMPLETED).unwrap();
    sessions.extend(simulated_sessions());
    sessions
}

fn document(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(arguments)).unwrap()
}
