//! From layers to a configuration that can take effect, or to everything that is wrong with it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use config::{Value, ValueKind};

use super::finding::{ConfigError, Finding};
use super::layers::{Layer, Layers};
use super::{Config, layers, merging, reader, secrets, validation};

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
        let mut first = merging::misplaced_urls(&tree);
        first.extend(merging::ambiguous_names(&tree));
        let (mut config, wrong) = reader::read::<Self>(tree);
        let mut findings = first;
        add_independent(&mut findings, wrong);
        let mut resolved = secrets::resolve(&mut config, &read);
        add_independent(&mut findings, resolved.missing);
        add_independent(&mut findings, config.findings());
        for finding in findings.iter_mut().chain(&mut resolved.awaited) {
            if finding.origin.is_none() {
                finding.origin = place(&finding.key, &origins);
            }
        }
        if findings.is_empty() {
            anchor(&mut config, &origins, &layers.files);
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

    /// The values as far as they can be read, unchecked, and a wrong one at its default: for
    /// commands that need a few of them only.
    ///
    /// # Errors
    /// What keeps a layer from being read at all.
    pub fn peek(layers: &Layers) -> Result<Self, ConfigError> {
        let read = layers.read().map_err(|findings| ConfigError { findings })?;
        let tree = layers::merge(&read);
        let origins = origins(&tree, &read);
        let (mut config, _) = reader::read::<Self>(tree);
        secrets::resolve(&mut config, &read);
        anchor(&mut config, &origins, &layers.files);
        Ok(config)
    }

    /// What is wrong with the values as a whole. Pure: looks at no file.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        validation::findings(self)
    }
}

/// A relative `journal.dir` is relative to the file that names it, so that every command finds the
/// same journal wherever it is started. One from elsewhere is relative to the working directory.
fn anchor(config: &mut Config, origins: &BTreeMap<String, String>, files: &[PathBuf]) {
    let Some(origin) = origins.get("journal.dir") else {
        return;
    };
    let is_named_in = |file: &&PathBuf| {
        let line = origin.strip_prefix(&*file.to_string_lossy());
        line.is_some_and(|line| line.starts_with(':'))
    };
    if let Some(directory) = files
        .iter()
        .find(is_named_in)
        .and_then(|file| file.parent())
    {
        // An absolute path stays what it is.
        config.journal.dir = directory.join(&config.journal.dir);
    }
}

/// Adds what is not just a consequence of what was found before.
fn add_independent(findings: &mut Vec<Finding>, mut later: Vec<Finding>) {
    later.retain(|later| !findings.iter().any(|earlier| earlier.touches(later)));
    findings.append(&mut later);
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
