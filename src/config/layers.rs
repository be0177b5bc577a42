//! Where values come from, weakest first: files, environment, flags. Every value remembers its
//! origin. Merging is the `config` crate's; this file knows nothing of what the keys mean.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Map, Value, ValueKind};

use super::file;
use super::finding::Finding;

/// Variables that begin so are configuration.
pub const ENVIRONMENT_PREFIX: &str = "DESKBRIDGE__";
/// Read when no file is named, if it is there.
pub const DEFAULT_FILE: &str = "config/deskbridge.toml";
/// The flag that sets one key.
pub const SET_FLAG: &str = "--set";

/// Everything a configuration is made of.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Files, later ones win.
    pub files: Vec<PathBuf>,
    /// Environment variables; those without [`ENVIRONMENT_PREFIX`] are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// `key=value` flags; the last layer.
    pub settings: Vec<(String, String)>,
}

impl Layers {
    /// The layers of this process: the named files (or [`DEFAULT_FILE`] if it is there), its
    /// environment, the given flags.
    #[must_use]
    pub fn of_process(files: &[PathBuf], settings: &[(String, String)]) -> Self {
        let default = Path::new(DEFAULT_FILE);
        let files = match files {
            [] if default.exists() => vec![default.to_owned()],
            files => files.to_owned(),
        };
        Self {
            files,
            environment: std::env::vars_os().collect(),
            settings: settings.to_owned(),
        }
    }

    /// Whether no file is among them.
    #[must_use]
    pub fn is_without_file(&self) -> bool {
        self.files.is_empty()
    }

    /// One tree a layer, weakest first, or what keeps a layer from being read.
    pub(super) fn read(&self) -> Result<Vec<Layer>, Vec<Finding>> {
        let mut findings = Vec::new();
        let mut layers = Vec::new();
        for path in &self.files {
            file::read(path)
                .map_or_else(|found| findings.extend(found), |layer| layers.push(layer));
        }
        match from_environment(&self.environment) {
            Ok(layer) => layers.push(layer),
            Err(found) => findings.extend(found),
        }
        layers.push(from_settings(&self.settings));
        if findings.is_empty() {
            Ok(layers)
        } else {
            Err(findings)
        }
    }
}

/// The values of one layer.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    pub values: Map<String, Value>,
    /// Where each table stands, by dotted key; values know it themselves.
    pub tables: Vec<(String, String)>,
}

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.values.clone())
    }
}

/// Whether a value of this origin could only be given as text.
pub(super) fn is_text_only(origin: &str) -> bool {
    origin.starts_with(ENVIRONMENT_PREFIX) || origin.starts_with(SET_FLAG)
}

/// Layers of one tree; tables are merged, everything else is replaced.
pub(super) fn merge(layers: &[Layer]) -> Value {
    let mut builder = config::Config::builder();
    for layer in layers {
        builder = builder.add_source(layer.clone());
    }
    builder
        .build()
        .map(|merged| merged.cache)
        .unwrap_or_default()
}

fn from_environment(variables: &[(OsString, OsString)]) -> Result<Layer, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut values = Vec::new();
    for (name, value) in variables {
        let Some(name) = name
            .to_str()
            .filter(|name| name.starts_with(ENVIRONMENT_PREFIX))
        else {
            continue;
        };
        match value.to_str() {
            Some(value) => values.push((name, value)),
            None => findings.push(Finding::new("", "the value is not UTF-8").at(Some(name))),
        }
    }
    values.sort_unstable();
    let mut layer = Layer::default();
    for (name, value) in values {
        let key = name[ENVIRONMENT_PREFIX.len()..].to_lowercase();
        insert(&mut layer, key.split("__"), name, value);
    }
    if findings.is_empty() {
        Ok(layer)
    } else {
        Err(findings)
    }
}

fn from_settings(settings: &[(String, String)]) -> Layer {
    let mut layer = Layer::default();
    for (key, value) in settings {
        insert(
            &mut layer,
            key.split('.'),
            &format!("{SET_FLAG} {key}"),
            value,
        );
    }
    layer
}

fn insert<'a>(layer: &mut Layer, keys: impl Iterator<Item = &'a str>, origin: &str, text: &str) {
    let origin = origin.to_owned();
    let mut keys: Vec<&str> = keys.collect();
    let last = keys.pop().unwrap_or_default();
    let mut table = &mut layer.values;
    for key in keys {
        let below = table.entry(key.to_owned()).or_default();
        if !matches!(below.kind, ValueKind::Table(_)) {
            *below = Value::new(Some(&origin), Map::<String, Value>::new());
        }
        let ValueKind::Table(inner) = &mut below.kind else {
            unreachable!("just made a table")
        };
        table = inner;
    }
    table.insert(last.to_owned(), Value::new(Some(&origin), text));
}
