//! The same functions as in `otlp`, for a binary without the feature `otel`. They do nothing.

#![expect(clippy::unused_async, reason = "the signatures are those of `otlp`")]

use std::sync::Arc;
use std::time::Duration;

use super::{Origin, Publication, endpoint};

/// Records nothing.
#[derive(Debug, Clone, Default)]
pub struct Traces(());

/// Records nothing.
#[derive(Debug, Default)]
pub struct WebhookSpan(());

impl Traces {
    /// Warns if the environment names a collector.
    #[must_use]
    pub fn from_environment() -> Self {
        if let Some((variable, _)) = endpoint() {
            tracing::warn!(
                variable,
                "no traces are exported: this binary was built without the feature `otel`"
            );
        }
        Self(())
    }

    /// Does nothing.
    #[must_use]
    pub fn webhook(&self, _: Origin<'_>, _: &Arc<str>, _: Duration) -> WebhookSpan {
        WebhookSpan(())
    }

    /// Does nothing.
    pub fn published(&self, _: Publication<'_>) {}

    /// Does nothing.
    pub async fn flush(&self) {}
}

impl WebhookSpan {
    /// Does nothing.
    pub fn appended(&self, _: Duration, _: bool) {}

    /// Does nothing.
    pub fn answered(self, _: u16) {}
}
