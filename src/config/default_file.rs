//! Holds `config/default.toml` to the built-in defaults. Only tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use toml::Value;

use super::http::Http;
use super::queues::Queue;
use super::rabbitmq::{RabbitMq, Tls};
use super::routing::{Routing, Status};
use super::sources::{Secret, Source};
use super::{Config, file, layers, reader};

const DEFAULT_FILE: &str = include_str!("../../config/default.toml");
const DOCKER_FILE: &str = include_str!("../../config/docker.toml");

/// The file with its commented-out keys and sections (`#key = …`, no blank) in force.
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

/// A configuration in which every optional key has a value. No `..`: a new key has to be named.
fn complete() -> Config {
    let defaults = Config::default();
    let path = || Some("x".into());
    let source = Source {
        secrets: vec![Secret::new("x")],
        secret_files: vec!["x".into()],
        ..Source::default()
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
    let status = Status {
        exchange: Some("x".into()),
        routing_key: Some("x".into()),
    };
    let http = Http {
        connections_per_client_max: Some(1),
        ..Http::default()
    };
    let queue = Queue {
        exchange: Some("x".into()),
        ttl: Some(Duration::from_secs(1)),
        messages_max: Some(1),
        bytes_max: Some(1),
        retry_delay: Some(Duration::from_secs(1)),
        ..Queue::default()
    };
    Config {
        sources: BTreeMap::from([("deskdirector".into(), source)]),
        http,
        rabbitmq,
        routing: Routing {
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
    let (config, findings) = reader::read(layers::merge(&[layer]));
    assert_eq!(findings, [], "{text}");
    config
}

#[test]
fn the_default_file_equals_the_built_in_defaults() {
    assert_eq!(read(DEFAULT_FILE), Config::default());
}

#[test]
fn the_default_file_shows_every_key_and_no_other() {
    let complete = toml::to_string(&complete()).unwrap();
    assert_eq!(keys_of(&uncommented()), keys_of(&complete));
}

#[test]
fn every_key_that_is_not_commented_out_stands_at_its_default_and_the_others_can_be_read() {
    let defaults = keys_of(&toml::to_string(&Config::default()).unwrap());
    let lists_without_content = BTreeSet::from([".queues".to_owned()]);
    let expected: BTreeSet<_> = defaults
        .difference(&lists_without_content)
        .cloned()
        .collect();
    assert_eq!(keys_of(DEFAULT_FILE), expected);
    let read = read(&uncommented());
    let [source, expected] = [&read.sources["deskdirector"], &Source::default()];
    assert_eq!(
        (source.signature, source.await_secret),
        (expected.signature, expected.await_secret)
    );
    assert_eq!(
        read.queues[0].delivery_limit,
        Queue::default().delivery_limit
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
fn the_container_file_is_complete_but_for_the_secret() {
    let config = read(DOCKER_FILE);
    assert_eq!(config.findings(), []);
    assert!(config.sources["deskdirector"].await_secret);
    assert!(config.sources["deskdirector"].secrets.is_empty());
}
