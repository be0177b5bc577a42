//! `[sources.<name>]`: who may post, and with which secrets.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// Shorter secrets could be guessed.
pub const SECRET_BYTES_MIN: usize = 16;

/// One DeskDirector instance: both its webhooks post to the same URL, both secrets stand here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Secrets, any of which may have signed a body.
    pub secrets: Vec<Secret>,
    /// Files with one secret each; white space around it and a byte order mark are dropped.
    #[serde(serialize_with = "super::paths::serialize_all")]
    pub secret_files: Vec<PathBuf>,
    /// Which of `secret_files` the last so many of `secrets` were read from.
    #[serde(skip)]
    pub read_from: Vec<usize>,
    /// Whether bodies are signed.
    pub signature: Signature,
    /// Come up without a secret: as long as the files are missing or empty, every request of this
    /// source is refused, and log and `/readyz` say what is missing.
    pub await_secret: bool,
}

impl Source {
    /// Whether a body without a right signature is refused.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.signature == Signature::Required
    }

    /// Where a secret stands, by its place among `secrets`: below which key, and in which file.
    #[must_use]
    pub fn place(&self, secret: usize) -> (String, Option<&Path>) {
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

/// Whether bodies of a source are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum Signature {
    /// A body without a right signature is refused.
    #[default]
    Required,
    /// Anybody may post.
    None,
}

/// Stands for what is never shown.
pub(super) const MASK: &str = "***";

/// A value that is never shown.
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

    /// The secret itself, for the one place that needs it.
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
    fn a_secret_is_never_shown_whatever_it_looks_like() {
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
