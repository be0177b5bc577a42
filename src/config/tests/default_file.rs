//! Tests that compare `config/default.toml` with the built-in defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toml::Value;

use crate::config::http::Http;
use crate::config::queues::QueueConfig;
use crate::config::rabbitmq::{RabbitMq, Tls};
use crate::config::routing::{RoutingConfig, StatusRouting};
use crate::config::sources::{Secret, SourceConfig};
use crate::config::{Config, file, reader};

const DEFAULT_FILE: &str = include_str!("../../../config/default.toml");
const DOCKER_FILE: &str = include_str!("../../../config/docker.toml");

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

/// A configuration in which every optional key has a value.
fn complete() -> Config {
    let defaults = Config::default();
    let path = || Some("x".into());
    let source = SourceConfig {
        secrets: vec![Secret::new("x")],
        secret_files: vec!["x".into()],
        ..SourceConfig::default()
    };
    let rabbitmq = RabbitMq {
        url_file: path(),
        management_url_file: path(),
        tls: Tls {
            ca_file: path(),
            cert_file: path(),
            key_file: path(),
        },
        ..RabbitMq::default()
    };
    let status = StatusRouting {
        exchange: Some("x".into()),
        routing_key: Some("x".into()),
    };
    let http = Http {
        connections_per_client_max: Some(1),
        ..Http::default()
    };
    let queue = QueueConfig {
        exchange: Some("x".into()),
        ttl: Some(Duration::from_secs(1)),
        messages_max: Some(1),
        bytes_max: Some(1),
        retry_delay: Some(Duration::from_secs(1)),
        ..QueueConfig::default()
    };
    Config {
        sources: BTreeMap::from([("deskdirector".into(), source)]),
        http,
        rabbitmq,
        routing: RoutingConfig {
            statuses: BTreeMap::from([("missed".into(), status)]),
            ..defaults.routing
        },
        queues: vec![queue],
        ..defaults
    }
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
fn default_file_shows_exactly_the_known_keys() {
    let complete = toml::to_string(&complete()).unwrap();
    assert_eq!(keys_of(&uncommented()), keys_of(&complete));
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

#[test]
fn container_file_lacks_only_the_secret() {
    let config = read(DOCKER_FILE);
    assert_eq!(config.findings(), []);
    assert!(config.sources["deskdirector"].await_secret);
    assert!(config.sources["deskdirector"].secrets.is_empty());
}
