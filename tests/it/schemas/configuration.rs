//! `config schema`: every key with its default; schema and parser accept the same files.

use std::path::PathBuf;

use deskbridge::config::layers::Layers;
use deskbridge::settings;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::document;
use crate::support::validator::json_schema;

const DEFAULT: &str = include_str!("../../../config/default.toml");
const DOCKER: &str = include_str!("../../../config/docker.toml");

/// The path to a value: keys and indices.
type Path = Vec<String>;

fn json(toml: &str) -> Value {
    serde_json::to_value(toml.parse::<toml::Table>().unwrap()).unwrap()
}

/// The default file with all commented-out keys and sections enabled.
fn uncommented() -> String {
    let is_key =
        |line: &str| line.starts_with(|char: char| char.is_ascii_lowercase() || char == '[');
    let line = |line: &'static str| {
        line.strip_prefix('#')
            .filter(|rest| is_key(rest))
            .unwrap_or(line)
    };
    DEFAULT.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Collects the paths of all keys and all tables below a value.
fn walk(value: &Value, path: &Path, leaves: &mut Vec<Path>, tables: &mut Vec<Path>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(table) => {
            tables.push(path.clone());
            table
                .iter()
                .map(|(key, value)| (key.clone(), value))
                .collect()
        }
        Value::Array(elements) if elements.iter().any(Value::is_object) => {
            let indices = elements.iter().enumerate();
            indices
                .map(|(index, value)| (index.to_string(), value))
                .collect()
        }
        _ => return leaves.push(path.clone()),
    };
    for (step, value) in below {
        walk(value, &[path.as_slice(), &[step]].concat(), leaves, tables);
    }
}

fn all(value: &Value) -> (Vec<Path>, Vec<Path>) {
    let (mut leaves, mut tables) = (Vec::new(), Vec::new());
    walk(value, &Vec::new(), &mut leaves, &mut tables);
    (leaves, tables)
}

fn pointer(path: &[String]) -> String {
    let steps = path.iter().flat_map(|step| ["/", step]);
    steps.collect()
}

/// The schema of one key: references are followed, the names of sources and statuses skipped.
fn schema_of<'s>(schema: &'s Value, path: &[String]) -> Option<&'s Value> {
    let mut found = schema;
    for step in path {
        found = resolved(schema, found);
        found = found["properties"]
            .get(step)
            .or_else(|| {
                found
                    .get("additionalProperties")
                    .filter(|below| below.is_object())
            })
            .or_else(|| found.get("items"))?;
    }
    Some(found)
}

fn resolved<'s>(schema: &'s Value, found: &'s Value) -> &'s Value {
    let target = found["$ref"].as_str();
    target.map_or(found, |target| {
        schema.pointer(&target[1..]).expect("what is referred to")
    })
}

/// The parser's findings about the types and names of keys. Findings about relations between values
/// are not part of the schema.
fn read(dir: &TempDir, file: &Value) -> Vec<String> {
    let path: PathBuf = dir.path().join("file.toml");
    std::fs::write(&path, toml::to_string(file).unwrap()).unwrap();
    let layers = Layers {
        files: vec![path],
        environment: Vec::new(),
        settings: Vec::new(),
    };
    let findings = settings::load(&layers).map_or_else(|error| error.findings, |_| Vec::new());
    // The valid log levels are known to `tracing` only.
    let is_shape = |problem: &str| {
        let starts = |start: &&str| problem.starts_with(*start);
        ["expected ", "unknown key", "the number is"]
            .iter()
            .any(starts)
            && !problem.starts_with("expected a level")
    };
    let problems = findings
        .into_iter()
        .map(|finding| format!("{}: {}", finding.key, finding.problem));
    let shape = problems.filter(|line| is_shape(line.split_once(": ").unwrap().1));
    shape.collect()
}

#[test]
fn schema_describes_every_key_and_default() {
    let schema = document(&["config", "schema"]);
    let (defaults, complete) = (json(DEFAULT), json(&uncommented()));
    let (keys, _) = all(&complete);
    assert!(keys.len() > 50, "{keys:?}");
    for path in keys {
        let described =
            schema_of(&schema, &path).unwrap_or_else(|| panic!("{path:?} is not there"));
        assert!(
            described["description"].is_string(),
            "{path:?}: {described}"
        );
        // A commented-out value is an example, unless its key is in an optional section.
        let default = defaults.pointer(&pointer(&path));
        if let Some(default) = default {
            assert_eq!(described.get("default"), Some(default), "{path:?}");
        }
    }
    for (section, key, default) in [
        ("Queue", "delivery_limit", json!(5)),
        ("Queue", "single_active_consumer", json!(false)),
        ("Source", "signature", json!("required")),
        ("Source", "await_secret", json!(false)),
    ] {
        assert_eq!(
            schema["$defs"][section]["properties"][key]["default"], default,
            "{key}"
        );
    }
}

#[test]
fn schema_has_only_keys_of_the_default_file() {
    let schema = document(&["config", "schema"]);
    let shown = json(&uncommented());
    let (_, tables) = all(&shown);
    for path in tables {
        let described = resolved(&schema, schema_of(&schema, &path).unwrap());
        let Some(keys) = described["properties"].as_object() else {
            continue;
        };
        let shown: Vec<_> = shown
            .pointer(&pointer(&path))
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .collect();
        assert_eq!(keys.keys().collect::<Vec<_>>(), shown, "{path:?}");
    }
}

#[test]
fn schema_and_parser_accept_the_same_values() {
    let schema = document(&["config", "schema"]);
    let complete = json(&uncommented());
    let (keys, tables) = all(&complete);
    let shapes = [
        json!(true),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(5_000_000_000_u64),
        json!("text"),
        json!(""),
        json!("10s"),
        json!("1h 30m"),
        json!("64MiB"),
        json!("1 kb"),
        json!("127.0.0.1:80"),
        json!("[::1]:80"),
        json!("json"),
        json!("verify"),
        json!([]),
        json!(["text"]),
        json!([1]),
        json!({}),
        json!({"x": 1}),
    ];
    let mut files = vec![json(DEFAULT), json(DOCKER), complete.clone()];
    for path in &keys {
        for shape in &shapes {
            let mut file = complete.clone();
            *file.pointer_mut(&pointer(path)).unwrap() = shape.clone();
            files.push(file);
        }
    }
    for path in tables {
        let mut file = complete.clone();
        file.pointer_mut(&pointer(&path)).unwrap()["surprise"] = json!(1);
        files.push(file);
    }
    let verdicts = json_schema(&schema, &files);
    assert_eq!(verdicts[..3], [const { Vec::<String>::new() }; 3]);
    let dir = TempDir::new().unwrap();
    let mut refused = 0;
    for (file, wrong) in files.iter().zip(verdicts) {
        let read = read(&dir, file);
        assert_eq!(
            wrong.is_empty(),
            read.is_empty(),
            "schema: {wrong:?}, parser: {read:?}"
        );
        refused += usize::from(!wrong.is_empty());
    }
    assert!(refused > 500, "{refused} of {}", files.len());
}

#[test]
fn queue_needs_a_name_and_keys() {
    let schema = document(&["config", "schema"]);
    let wrong = json_schema(
        &schema,
        &[
            json!({"queues": [{"name": "a"}]}),
            json!({"queues": [{"keys": []}]}),
        ],
    );
    assert!(wrong.iter().all(|wrong| wrong.len() == 1), "{wrong:?}");
}
