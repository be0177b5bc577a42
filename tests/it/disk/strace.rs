//! Faults of single system calls of the real process, injected by strace and counted in its log.

use std::path::Path;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::wait::{SOON, eventually};

/// What strace does to which system calls.
pub struct Fault<'a> {
    /// The calls: `fsync,fdatasync`.
    pub calls: &'a str,
    /// The fault: `error=EIO:when=30..40`.
    pub what: &'a str,
    /// Only calls on this file in the journal's directory; empty: on all files.
    pub file: &'a str,
}

/// The strace log of this bridge: one line for each call that could have been hit.
pub struct Log(std::path::PathBuf);

impl Fault<'_> {
    /// Puts the bridge under strace with this fault; also returns the strace log.
    pub fn strike(&self, builder: BridgeBuilder) -> (BridgeBuilder, Log) {
        let log = builder.dir().join("faults.log");
        let journal = builder.dir().join("journal");
        let (trace, inject) = (
            format!("trace={}", self.calls),
            format!("inject={}:{}", self.calls, self.what),
        );
        let (path, log_path) = (
            journal.join(self.file).display().to_string(),
            log.display().to_string(),
        );
        let mut line = vec![
            "strace", "-f", "-qq", "-s", "16", "-o", &log_path, "-e", &trace, "-e", &inject,
        ];
        if !self.file.is_empty() {
            line.extend(["-P", &path]);
        }
        (builder.under(&line), Log(log))
    }
}

impl Log {
    /// How many calls were hit so far.
    pub fn hits(&self) -> usize {
        let text = std::fs::read_to_string(self.path()).unwrap_or_default();
        text.matches("(INJECTED)").count() + text.matches("(DELAYED)").count()
    }

    /// Waits until this number of calls was hit.
    pub async fn has_hits(&self, hits: usize) {
        let what = format!("{hits} system calls were hit");
        eventually(&what, 2 * SOON, || async { self.hits() >= hits }).await;
    }

    fn path(&self) -> &Path {
        &self.0
    }
}
