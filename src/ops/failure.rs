//! How operations report errors: what was being done, why it failed and what to try.

use std::error::Error;

/// A step that failed, with advice.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Failed {
    doing: String,
    #[source]
    why: Box<dyn Error + Send + Sync>,
    /// What to try.
    pub advice: String,
}

/// An error that says what was being done, why it failed and what to try.
pub fn failed(
    doing: impl Into<String>,
    why: impl Into<Box<dyn Error + Send + Sync>>,
    advice: impl Into<String>,
) -> anyhow::Error {
    Failed {
        doing: doing.into(),
        why: why.into(),
        advice: advice.into(),
    }
    .into()
}
