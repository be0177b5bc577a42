//! `[telemetry]`: log format and level.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Log format and level; logs go to standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Plain text or JSON.
    pub log_format: LogFormat,
    /// A level, or directives of `tracing` such as `info,deskbridge::http=debug`.
    pub log_level: String,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One plain text line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_level: "info".into(),
        }
    }
}
