//! `[sources.<name>]`: who may post, and with which secrets.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One DeskDirector instance: both its webhooks post to the same URL, both secrets stand here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Secrets, any of which may have signed a body.
    pub secrets: Vec<Secret>,
    /// Files with one secret each; a trailing newline is dropped.
    pub secret_files: Vec<PathBuf>,
    /// Whether bodies are signed.
    pub signature: Signature,
}

/// Whether bodies of a source are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Signature {
    /// A body without a right signature is refused.
    #[default]
    Required,
    /// Anybody may post.
    None,
}

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
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

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}
