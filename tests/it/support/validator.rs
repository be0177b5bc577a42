//! The validators of `tests/validators`: JSON Schema by Python's `jsonschema`, AsyncAPI by its
//! official parser.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// The errors of each instance; panics if the schema itself is invalid.
pub fn json_schema(schema: &Value, instances: &[Value]) -> Vec<Vec<String>> {
    let asked = json!({ "schema": schema, "instances": instances });
    let python = root().join(".dev/python/bin/python");
    let mut command = Command::new(python);
    let said = ask(command.arg(validators().join("json_schema.py")), &asked);
    let wrong: Vec<Vec<String>> = serde_json::from_str(&said).unwrap();
    assert_eq!(wrong.len(), instances.len());
    wrong
}

/// The errors that the parser finds in each AsyncAPI document, without hints and warnings.
pub fn asyncapi(documents: &[Value]) -> Vec<Vec<String>> {
    let mut command = Command::new("node");
    let said = ask(
        command.arg(validators().join("asyncapi.mjs")),
        &json!(documents),
    );
    let found: Vec<Vec<(u8, String, String)>> = serde_json::from_str(&said).unwrap();
    assert_eq!(found.len(), documents.len());
    let errors = |found: Vec<(u8, String, String)>| {
        let errors = found.into_iter().filter(|(severity, ..)| *severity == 0);
        let lines = errors.map(|(_, path, message)| format!("{path}: {message}"));
        lines.collect()
    };
    found.into_iter().map(errors).collect()
}

fn ask(command: &mut Command, question: &Value) -> String {
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; scripts/test-packages.sh installs what it needs")
    });
    let mut input = child.stdin.take().unwrap();
    let question = question.to_string();
    let written = std::thread::spawn(move || input.write_all(question.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    written.join().unwrap().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn validators() -> std::path::PathBuf {
    root().join("tests/validators")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
