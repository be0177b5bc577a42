//! Tests that compare `config/default.toml` with the built-in defaults.

use std::collections::BTreeSet;

use toml::Value;

use crate::config::queues::QueueConfig;
use crate::config::sources::SourceConfig;
use crate::config::{Config, file, reader};

const DEFAULT_FILE: &str = include_str!("../../../config/default.toml");

/// The file with its commented-out keys and sections (`#key = …`, no space) enabled.
fn uncommented() -> String {
    let is_key = |line: &str| {
        line.strip_prefix('#')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
    };
    DEFAULT_FILE
        .lines()
        .map(|line| if is_key(line) { &line[1..] } else { line })
        .collect::<Vec<_>>()
        .join("\n")
}

fn keys(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Table(table) => table
            .iter()
            .map(|(key, value)| (format!("{path}.{key}"), value))
            .collect(),
        Value::Array(values) => values
            .iter()
            .filter(|value| value.is_table())
            .map(|value| (path.to_owned(), value))
            .collect(),
        _ => Vec::new(),
    };
    if below.is_empty() && !value.is_table() {
        found.insert(path.to_owned());
    }
    for (path, value) in below {
        keys(&path, value, found);
    }
}

fn keys_of(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    keys("", &toml::from_str(text).unwrap(), &mut found);
    found
}

fn read(text: &str) -> Config {
    let layer = file::parse("file", text).unwrap();
    let (config, findings) = reader::read(layer);
    assert_eq!(findings, [], "{text}");
    config
}

#[test]
fn default_file_equals_the_built_in_defaults() {
    assert_eq!(read(DEFAULT_FILE), Config::default());
}

#[test]
fn active_keys_are_defaults_and_examples_are_valid() {
    let defaults = keys_of(&toml::to_string(&Config::default()).unwrap());
    let lists_without_content = BTreeSet::from([".queues".to_owned()]);
    let expected: BTreeSet<_> = defaults
        .difference(&lists_without_content)
        .cloned()
        .collect();
    assert_eq!(keys_of(DEFAULT_FILE), expected);
    let read = read(&uncommented());
    let [source, expected] = [&read.sources["deskdirector"], &SourceConfig::default()];
    assert_eq!(
        (source.signature, source.await_secret),
        (expected.signature, expected.await_secret)
    );
    assert_eq!(
        read.queues[0].delivery_limit,
        QueueConfig::default().delivery_limit
    );
    assert_eq!(read.findings(), []);
}

#[test]
fn every_key_has_a_comment() {
    let mut before = "";
    for line in DEFAULT_FILE.lines() {
        let is_comment = before.starts_with("# ");
        let key = line.trim_start_matches('#');
        if key
            .split_once(" = ")
            .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        {
            assert!(is_comment, "no comment above `{line}`");
        }
        before = line;
    }
}
