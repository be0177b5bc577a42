//! `[journal]`: where events are stored, how much space they may use and how long they are kept.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Quantity as _, Size, Span};

/// The journal's directory, size limits and retention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Journal")]
pub struct JournalConfig {
    /// Directory of `journal.db`, `archive.db` and `journal.lock`; created with mode 0700 if
    /// missing. A relative path in a configuration file is relative to that file's directory;
    /// from the environment or a flag, it is relative to the working directory.
    pub dir: PathBuf,
    /// Maximum size of pending events on disk, in bytes; at this size webhooks are answered 503.
    #[serde(with = "Size")]
    pub backlog_bytes_max: u64,
    /// Minimum free space of the file system, in bytes. Below it, completed events are deleted
    /// early; when none are left, webhooks are answered 503. Free pages of the database count as
    /// free space.
    #[serde(with = "Size")]
    pub disk_free_min: u64,
    /// How long completed events are kept for search and replay; 0: not at all.
    #[serde(with = "Span")]
    pub retention: Duration,
    /// Maximum size of completed events on disk, in bytes.
    #[serde(with = "Size")]
    pub retention_bytes: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            dir: "data/journal".into(),
            backlog_bytes_max: 10 << 30,
            disk_free_min: 256 << 20,
            retention: Duration::from_hours(7 * 24),
            retention_bytes: 1 << 30,
        }
    }
}
