//! What an operator can tune: one small struct a section, with the defaults of the contract.
//!
//! [`Config::load`] reads the layers (`layers`, `file`), merges them, reads the tree into the
//! structs (`reader`), puts the contents of secret files in (`secrets`) and looks at the whole
//! (`validation`). Only `layers`, `file` and `secrets` touch files. All findings come at once.

mod file;
pub mod finding;
pub mod http;
pub mod journal;
pub mod layers;
pub mod queues;
pub mod rabbitmq;
mod reader;
pub mod routing;
mod secrets;
pub mod sources;
pub mod telemetry;
pub mod units;
mod validation;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};
use serde::{Deserialize, Serialize};

use finding::{ConfigError, Finding};
use layers::{Layer, Layers};

/// The whole effective configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The public listener.
    pub http: http::Http,
    /// The operators' listener.
    pub admin: http::Admin,
    /// Who may post, by the name in the URL.
    pub sources: BTreeMap<String, sources::Source>,
    /// The broker and how to publish to it.
    pub rabbitmq: rabbitmq::RabbitMq,
    /// Exchange and key by status.
    pub routing: routing::Routing,
    /// Where events wait that nobody has subscribed to.
    pub unrouted: routing::Unrouted,
    /// Where rejected and refused events go.
    pub dead_letter: routing::DeadLetter,
    /// When a refused message is published again.
    pub retry: rabbitmq::Retry,
    /// The disk.
    pub journal: journal::Journal,
    /// Consumer queues to declare.
    pub queues: Vec<queues::Queue>,
    /// How to stop.
    pub shutdown: Shutdown,
    /// Logs.
    pub telemetry: telemetry::Telemetry,
}

/// A configuration as it takes effect, and what it was made of.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Every value, contents of secret files included.
    pub config: Config,
    /// One sentence for each source that waits for its secret (`await_secret`).
    pub awaited: Vec<Finding>,
    /// The files it was read from, weakest first.
    pub files: Vec<PathBuf>,
    /// Where each value that is not a default came from, by dotted key.
    pub origins: BTreeMap<String, String>,
}

impl Config {
    /// Reads, merges and checks all layers.
    ///
    /// # Errors
    /// Everything that is wrong, at once; of layers that cannot be read at all, only that.
    pub fn load(layers: &Layers) -> Result<Loaded, ConfigError> {
        let read = layers.read().map_err(|findings| ConfigError { findings })?;
        let tree = layers::merge(&read);
        let origins = origins(&tree, &read);
        let (mut config, mut findings) = reader::read::<Self>(tree);
        let mut resolved = secrets::resolve(&mut config, &read);
        let later = resolved.missing.into_iter().chain(config.findings());
        for finding in later {
            if !findings.iter().any(|earlier| earlier.touches(&finding)) {
                findings.push(finding);
            }
        }
        for finding in findings.iter_mut().chain(&mut resolved.awaited) {
            if finding.origin.is_none() {
                finding.origin = place(&finding.key, &origins);
            }
        }
        if findings.is_empty() {
            let (awaited, files) = (resolved.awaited, layers.files.clone());
            return Ok(Loaded {
                config,
                awaited,
                files,
                origins,
            });
        }
        findings.sort();
        Err(ConfigError { findings })
    }

    /// What is wrong with the values as a whole. Pure: looks at no file.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        validation::findings(self)
    }
}

/// Where the value of a key came from, or the list it belongs to.
fn place(key: &str, origins: &BTreeMap<String, String>) -> Option<String> {
    let element = key.rfind(']').map(|end| &key[..=end]);
    let list = key.rfind('[').map(|start| &key[..start]);
    [Some(key), element, list]
        .into_iter()
        .flatten()
        .find_map(|key| origins.get(key))
        .cloned()
}

/// Where every value and table of the tree came from, by dotted key.
fn origins(tree: &Value, layers: &[Layer]) -> BTreeMap<String, String> {
    let mut origins: BTreeMap<_, _> = layers
        .iter()
        .flat_map(|layer| layer.tables.clone())
        .collect();
    collect_origins("", tree, &mut origins);
    origins
}

fn collect_origins(path: &str, value: &Value, origins: &mut BTreeMap<String, String>) {
    if let Some(origin) = value.origin() {
        origins.insert(path.to_owned(), origin.to_owned());
    }
    match &value.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                collect_origins(&path, value, origins);
            }
        }
        ValueKind::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                collect_origins(&format!("{path}[{index}]"), value, origins);
            }
        }
        _ => {}
    }
}

/// How to stop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// From SIGTERM to the exit, at most.
    #[serde(with = "units")]
    pub grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(8),
        }
    }
}

#[cfg(test)]
mod default_file;
#[cfg(test)]
mod tests;
