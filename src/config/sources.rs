//! `[sources.<name>]`: DeskDirector instances that may post, and their secrets.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// Minimum length of a secret in bytes; a shorter one could be guessed.
pub const SECRET_BYTES_MIN: usize = 16;

/// One DeskDirector instance. Both its webhooks post to the same URL, so both secrets belong here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Source")]
pub struct SourceConfig {
    /// Secrets, at least 16 bytes each; a body may be signed with any of them.
    pub secrets: Vec<Secret>,
    /// Files with one secret each; surrounding white space and a byte order mark are ignored.
    #[serde(serialize_with = "super::paths::serialize_all")]
    pub secret_files: Vec<PathBuf>,
    /// Indices in `secret_files`: where the last `read_from.len()` entries of `secrets` came from.
    #[serde(skip)]
    pub read_from: Vec<usize>,
    /// Files without a secret, as indices in `secret_files`, and why. Only with `await_secret`.
    #[serde(skip)]
    pub absent: Vec<(usize, String)>,
    /// Whether a signature is required.
    pub signature: SignatureMode,
    /// Start without a secret. While the files are missing or empty, every request of this source
    /// is refused, and the log and `/readyz` report what is missing.
    pub await_secret: bool,
}

impl SourceConfig {
    /// Whether a body without a valid signature is refused.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.signature == SignatureMode::Required
    }

    /// Keeps the running secret of each file that has none now.
    pub fn keep_secrets(&mut self, running: &Self) {
        let read_before = running
            .secrets
            .iter()
            .rev()
            .zip(running.read_from.iter().rev());
        for (index, _) in &self.absent {
            let path = &self.secret_files[*index];
            let kept = read_before
                .clone()
                .find(|(_, file)| running.secret_files[**file] == *path);
            if let Some((secret, _)) = kept {
                let place = self.read_from.partition_point(|read| read < index);
                let written = self.secrets.len() - self.read_from.len();
                self.secrets.insert(written + place, secret.clone());
                self.read_from.insert(place, *index);
            }
        }
    }

    /// The files whose last secret stays in use because they have none now: key, path and problem.
    pub fn kept_secrets(&self) -> impl Iterator<Item = (String, &Path, &str)> {
        let kept = self
            .absent
            .iter()
            .filter(|(index, _)| self.read_from.contains(index));
        kept.map(|(index, problem)| {
            let path = &*self.secret_files[*index];
            (format!("secret_files[{index}]"), path, problem.as_str())
        })
    }

    /// The key of the secret at this index in `secrets`, and the file it was read from, if any.
    #[must_use]
    pub fn secret_origin(&self, secret: usize) -> (String, Option<&Path>) {
        let written = self.secrets.len() - self.read_from.len();
        match secret.checked_sub(written) {
            None => (format!("secrets[{secret}]"), None),
            Some(read) => {
                let file = self.read_from[read];
                (
                    format!("secret_files[{file}]"),
                    Some(&self.secret_files[file]),
                )
            }
        }
    }
}

/// Whether a source requires signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Signature")]
pub enum SignatureMode {
    /// A body without a valid signature is refused.
    #[default]
    Required,
    /// No signature is checked: anybody may post.
    None,
}

/// Shown instead of a secret.
pub(super) const MASK: &str = "***";

/// A secret value; `Debug`, `Display` and serialization mask it.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, description = "Masked wherever it is shown.")]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret in plain text. Must not be shown.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_empty() { "" } else { MASK })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_never_shown() {
        for secret in [
            "0123456789abcdef",
            "1e5",
            "amqp://user:pass@host:5672/%2f",
            "https://hooks.example/hunter2",
        ] {
            let secret = Secret::new(secret);
            assert_eq!(format!("{secret:?} {secret}"), "*** ***");
            assert_eq!(serde_json::to_value(&secret).unwrap(), "***");
        }
        assert_eq!(Secret::new("").to_string(), "");
    }
}
