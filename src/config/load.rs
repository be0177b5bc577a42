//! Turns layers into a valid configuration, or into all its findings.

use std::collections::BTreeMap;

use super::finding::{ConfigError, ConfigFinding};
use super::layers::Layers;
use super::{Config, reader, secrets, validation};

/// A valid configuration and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// All values, including the contents of secret files.
    pub config: Config,
    /// One finding for each source that waits for its secret (`await_secret`).
    pub missing_secrets: Vec<ConfigFinding>,
    /// The origin of each value that is not a default, by dotted key.
    pub origins: BTreeMap<String, String>,
}

impl Config {
    /// Reads, merges and validates all layers. `further` returns findings of other modules.
    ///
    /// # Errors
    /// All findings at once; if a layer cannot be read at all, only why not.
    pub(crate) fn load(
        layers: &Layers,
        further: impl FnOnce(&Self) -> Vec<ConfigFinding>,
    ) -> Result<Loaded, ConfigError> {
        match gather(layers, further)? {
            (loaded, findings) if findings.is_empty() => Ok(loaded),
            (_, findings) => Err(ConfigError { findings }),
        }
    }

    /// Reads the values without validation, for commands that need only a few of them. An invalid
    /// value is replaced by its default.
    ///
    /// # Errors
    /// If a layer cannot be read at all.
    pub fn peek(layers: &Layers) -> Result<Self, ConfigError> {
        gather(layers, |_| Vec::new()).map(|(loaded, _)| loaded.config)
    }

    /// Validates the values and how they relate. Pure: accesses no files.
    #[must_use]
    pub fn findings(&self) -> Vec<ConfigFinding> {
        validation::findings(self)
    }
}

/// The configuration and its findings, sorted. An invalid value is replaced by its default.
fn gather(
    layers: &Layers,
    further: impl FnOnce(&Config) -> Vec<ConfigFinding>,
) -> Result<(Loaded, Vec<ConfigFinding>), ConfigError> {
    let (tree, origins) = layers.read()?;
    let mut findings = secrets::misplaced_urls(&tree);
    let (mut config, wrong) = reader::read::<Config>(tree);
    findings.extend(validation::ambiguous_names(&config));
    add_independent(&mut findings, wrong);
    let rank = |key| origins.get(key).map(|origin| layers.rank(origin));
    let urls_and_file = rank("rabbitmq.urls").cmp(&rank("rabbitmq.url_file"));
    let mut resolved = secrets::resolve(&mut config, urls_and_file);
    add_independent(&mut findings, resolved.missing);
    let mut later = config.findings();
    later.extend(further(&config));
    add_independent(&mut findings, later);
    for finding in findings.iter_mut().chain(&mut resolved.missing_secrets) {
        if finding.origin.is_none() {
            finding.origin = origin(&finding.key, &origins).cloned();
        }
    }
    findings.sort();
    // A relative directory belongs to the file that names it, so that every command finds the same
    // journal. From the environment or a flag, it stays relative to the working directory.
    let origin = origins.get("journal.dir");
    let file = origin.and_then(|origin| layers.file_of(origin));
    if let Some(directory) = file.and_then(|file| layers.files[file].parent()) {
        // `join` keeps an absolute path unchanged.
        config.journal.dir = directory.join(&config.journal.dir);
    }
    let loaded = Loaded {
        config,
        missing_secrets: resolved.missing_secrets,
        origins,
    };
    Ok((loaded, findings))
}

/// Adds those later findings that are not consequences of earlier ones.
fn add_independent(findings: &mut Vec<ConfigFinding>, mut later: Vec<ConfigFinding>) {
    later.retain(|later| !findings.iter().any(|earlier| earlier.touches(later)));
    findings.append(&mut later);
}

/// The origin of a key's value, or of the list element or list that contains it.
#[must_use]
pub fn origin<'o>(key: &str, origins: &'o BTreeMap<String, String>) -> Option<&'o String> {
    let element = key.rfind(']').map(|end| &key[..=end]);
    let list = key.rfind('[').map(|start| &key[..start]);
    let mut known = [Some(key), element, list].into_iter().flatten();
    known.find_map(|key| origins.get(key))
}
