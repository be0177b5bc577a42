//! Where values come from, weakest first: files, environment, flags. Every value remembers its
//! origin. Merging is the `config` crate's; this file knows nothing of what the keys mean.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Map, Value};

use super::finding::Finding;
use super::merging::{self, Assignment};
use super::{environment, file};

/// Variables that begin so are configuration.
pub const ENVIRONMENT_PREFIX: &str = "DESKBRIDGE__";
/// Read when no file is named, if it is there.
pub const DEFAULT_FILE: &str = "config/deskbridge.toml";
/// The flag that sets one key.
pub const SET_FLAG: &str = "--set";
const SET_LEAD: &str = "--set ";
/// What stands before the first dot of a key.
pub(super) const SECTIONS: [&str; 12] = [
    "http",
    "admin",
    "sources",
    "rabbitmq",
    "routing",
    "unrouted",
    "dead_letter",
    "retry",
    "journal",
    "queues",
    "shutdown",
    "telemetry",
];

/// Everything a configuration is made of.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Files, later ones win.
    pub files: Vec<PathBuf>,
    /// Environment variables; those without [`ENVIRONMENT_PREFIX`], in either case, are ignored
    /// unless they look like a slip.
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
        let (assignments, missed) = environment::assignments(&self.environment);
        findings.extend(missed);
        match merging::layer(&assignments, &merge(&layers), false) {
            Ok(layer) => layers.push(layer),
            Err(found) => findings.extend(found),
        }
        match from_settings(&self.settings, &merge(&layers)) {
            Ok(layer) => layers.push(layer),
            Err(found) => findings.extend(found),
        }
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
    environment::without_prefix(origin).is_some() || origin.starts_with(SET_LEAD)
}

/// The origin of a value, with the key in it as it may be shown.
pub(super) fn origin_of(shown_key: &str, origin: &str) -> String {
    if origin.starts_with(SET_LEAD) {
        format!("{SET_LEAD}{shown_key}")
    } else if environment::without_prefix(origin).is_some() {
        let name = shown_key.to_uppercase().replace('.', "__");
        format!("{ENVIRONMENT_PREFIX}{name}")
    } else {
        origin.to_owned()
    }
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

fn from_settings(settings: &[(String, String)], below: &Value) -> Result<Layer, Vec<Finding>> {
    // `queues[0].name` and `queues.0.name` are the same.
    let keys: Vec<_> = settings
        .iter()
        .map(|(key, _)| key.replace('[', ".").replace(']', ""))
        .collect();
    let assignments: Vec<_> = keys
        .iter()
        .zip(settings)
        .map(|(key, (_, text))| Assignment {
            lead: SET_LEAD,
            parts: key.split('.').collect(),
            is_variable: false,
            text,
        })
        .collect();
    merging::layer(&assignments, below, true)
}
