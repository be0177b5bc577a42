//! `[journal]`: where events lie, how much and how long.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Directory of `journal.db` and `journal.lock`; made if absent, mode 0700.
    pub dir: PathBuf,
    /// Unsettled bytes at which webhooks are answered 503.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
    pub backlog_bytes_max: u64,
    /// Free bytes of the file system below which webhooks are answered 503.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
    pub disk_free_min: u64,
    /// How long settled events are kept; 0: not at all.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub retention: Duration,
    /// How many bytes of settled events are kept.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
    pub retention_bytes: u64,
}

impl Default for Journal {
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
