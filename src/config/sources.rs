//! `[sources.<name>]`: who may post, and with which secrets.

use std::fmt;
use std::path::PathBuf;

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
    /// Files with one secret each; a trailing newline is dropped.
    pub secret_files: Vec<PathBuf>,
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

/// A value that is never shown. URLs keep what is not secret: `amqp://***@host:5672/%2f`.
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
        if self.0.is_empty() {
            Ok(())
        } else {
            formatter.write_str(&masked(&self.0))
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&masked(&self.0))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A URL without user, password and query; three stars for anything else.
fn masked(text: &str) -> String {
    const MASK: &str = "***";
    let Some((scheme, rest)) = text.split_once("://") else {
        return MASK.into();
    };
    if !["amqp", "amqps", "http", "https"].contains(&scheme) {
        return MASK.into();
    }
    let (user, place) = match rest.rsplit_once('@') {
        Some((_, place)) => ("***@", place),
        None => ("", rest),
    };
    let place = place.split(['?', '#']).next().unwrap_or_default();
    let authority = place.split('/').next().unwrap_or_default();
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let is_plain = port.is_none_or(|port| port.ends_with(']') || port.parse::<u16>().is_ok());
    if is_plain {
        format!("{scheme}://{user}{place}")
    } else {
        format!("{scheme}://{MASK}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown_and_a_url_only_in_part() {
        let check = |secret: &str, expected: &str| {
            let secret = Secret::new(secret);
            assert_eq!(format!("{secret:?}"), expected);
            assert_eq!(format!("{secret}"), expected);
            assert_eq!(serde_json::to_value(&secret).unwrap(), expected);
        };
        check("0123456789abcdef", "***");
        check("1e5", "***");
        check("other://user:pass@host", "***");
        check("amqp://user:pass@host:5672/%2f", "amqp://***@host:5672/%2f");
        check(
            "amqps://user:p@ss@host/vhost?password=x",
            "amqps://***@host/vhost",
        );
        check("amqp://user:p/a:ss@host", "amqp://***@host");
        check("amqp://user:password", "amqp://***");
        check("amqp://[::1]:5672", "amqp://[::1]:5672");
        check("amqp://localhost", "amqp://localhost");
        check("http://u:p@localhost:15672/", "http://***@localhost:15672/");
    }
}
