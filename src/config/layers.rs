//! The layers of a configuration, lowest precedence first: files, environment, flags. Every value
//! keeps its origin. The `config` crate merges the files; this module does not interpret keys.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use config::{Value, ValueKind};

use super::assignment::{Assignment, set_all};
use super::finding::ConfigError;
use super::{environment, file};

/// Prefix of the environment variables that set a key, matched without regard to case.
pub const ENVIRONMENT_PREFIX: &str = "DESKBRIDGE__";
/// Environment variable that names the configuration file if no flag does.
pub const FILE_VARIABLE: &str = "DESKBRIDGE_CONFIG";
/// The files of which the first that exists is read if none is named.
pub const DEFAULT_FILES: [&str; 2] = ["config/deskbridge.toml", "/etc/deskbridge/deskbridge.toml"];
/// The origin of a value that a flag sets, up to its key.
const SET_LEAD: &str = "--set ";
/// The inputs of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Files; a later file overrides an earlier one.
    pub files: Vec<PathBuf>,
    /// Environment variables. Those without [`ENVIRONMENT_PREFIX`] (in any case) are ignored,
    /// unless they look like a misspelt key.
    pub environment: Vec<(OsString, OsString)>,
    /// `key=value` flags; they override all other layers.
    pub settings: Vec<(String, String)>,
}

impl Layers {
    /// The layers of this process: the given files, the environment, and the given flags. If no file
    /// is given, the one that [`FILE_VARIABLE`] names, else the first of [`DEFAULT_FILES`] that exists.
    #[must_use]
    pub fn of_process(files: &[PathBuf], settings: &[(String, String)]) -> Self {
        let mut files = files.to_owned();
        if files.is_empty() {
            let named = std::env::var_os(FILE_VARIABLE).filter(|name| !name.is_empty());
            let default = || DEFAULT_FILES.map(PathBuf::from).into_iter();
            let found = named.map(PathBuf::from);
            files.extend(found.or_else(|| default().find(|file| file.exists())));
        }
        Self {
            files,
            environment: std::env::vars_os().collect(),
            settings: settings.to_owned(),
        }
    }

    /// Reads and merges all layers. Returns the merged tree, and the origin of each table and value in
    /// it by dotted key.
    pub(super) fn read(&self) -> Result<(Value, BTreeMap<String, String>), ConfigError> {
        let mut findings = Vec::new();
        let mut origins = BTreeMap::new();
        let mut builder = config::Config::builder();
        for path in &self.files {
            match file::read(path) {
                Ok(values) => {
                    // Merging loses the origins of tables.
                    walk("", &values, &mut |key, value| {
                        if matches!(value.kind, ValueKind::Table(_)) {
                            note(&mut origins, key, value);
                        }
                    });
                    let mut file = config::Config::default();
                    file.cache = values;
                    builder = builder.add_source(file);
                }
                Err(found) => findings.extend(found),
            }
        }
        let merged = builder.build().map(|merged| merged.cache);
        let mut tree = merged.unwrap_or_default();
        let (variables, missed) = environment::assignments(&self.environment);
        findings.extend(missed);
        findings.extend(set_all(&mut tree, variables));
        findings.extend(set_all(&mut tree, self.flags()));
        if !findings.is_empty() {
            return Err(ConfigError { findings });
        }
        walk("", &tree, &mut |key, value| note(&mut origins, key, value));
        Ok((tree, origins))
    }

    fn flags(&self) -> Vec<Assignment<'_>> {
        let flags = self.settings.iter().map(|(key, text)| Assignment {
            lead: SET_LEAD,
            // `queues[0].name` and `queues.0.name` mean the same key.
            parts: key
                .split(['.', '['])
                .map(|part| part.replace(']', ""))
                .collect(),
            is_variable: false,
            text,
        });
        flags.collect()
    }

    /// Index of the file that an origin names.
    pub(super) fn file_of(&self, origin: &str) -> Option<usize> {
        self.files.iter().rposition(|file| {
            let line = origin.strip_prefix(&*file.to_string_lossy());
            line.is_some_and(|line| line.starts_with(':'))
        })
    }

    /// Precedence of the layer that an origin belongs to.
    pub(super) fn rank(&self, origin: &str) -> usize {
        let is_flag = origin.starts_with(SET_LEAD);
        self.file_of(origin)
            .unwrap_or(self.files.len() + usize::from(is_flag))
    }
}

fn note(origins: &mut BTreeMap<String, String>, key: &str, value: &Value) {
    if let Some(origin) = value.origin() {
        origins.insert(key.to_owned(), origin.to_owned());
    }
}

/// Visits a value and all values below it, each with its dotted key.
pub(super) fn walk(key: &str, value: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(key, value);
    match &value.kind {
        ValueKind::Table(table) => {
            for (name, value) in table {
                let mut key = key.to_owned();
                append(&mut key, name);
                walk(&key, value, visit);
            }
        }
        ValueKind::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                walk(&format!("{key}[{index}]"), value, visit);
            }
        }
        _ => {}
    }
}

/// Appends a part to a dotted key.
pub(super) fn append(key: &mut String, part: &str) {
    if !key.is_empty() {
        key.push('.');
    }
    key.push_str(part);
}

/// Whether values of this origin are always text: environment variables and flags.
pub(super) fn is_text_only(origin: &str) -> bool {
    environment::without_prefix(origin).is_some() || origin.starts_with(SET_LEAD)
}

/// The origin of a value, with the key in it replaced by the form that may be shown.
pub(super) fn origin_of(shown_key: &str, origin: &str) -> String {
    if origin.starts_with(SET_LEAD) {
        format!("{SET_LEAD}{shown_key}")
    } else if environment::without_prefix(origin).is_some() {
        environment::variable(shown_key)
    } else {
        origin.to_owned()
    }
}
