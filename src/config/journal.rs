//! `[journal]`: where events lie, how much and how long.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// Directory of `journal.db` and `journal.lock`; made if absent, mode 0700. A relative one in a
    /// file is relative to that file's directory, elsewhere to the working directory.
    pub dir: PathBuf,
    /// Bytes on the disk of unsettled events at which webhooks are answered 503.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
    pub backlog_bytes_max: u64,
    /// Free bytes of the file system below which settled events are deleted early and, when none
    /// are left, webhooks are answered 503. Free pages of the database count as free.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Size")]
    pub disk_free_min: u64,
    /// How long settled events are kept; 0: not at all.
    #[serde(with = "super::units")]
    #[schemars(with = "super::units::Span")]
    pub retention: Duration,
    /// How many bytes of settled events are kept on the disk.
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
