//! Faults of single system calls of the real process, injected by strace and seen in its log.

use std::path::Path;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::wait::{SOON, eventually};

/// What strace does to some system calls.
pub struct Fault<'a> {
    /// `fsync,fdatasync`
    pub calls: &'a str,
    /// `error=EIO:when=30..40`
    pub what: &'a str,
    /// Only to this file of the journal's directory; empty: to all files.
    pub file: &'a str,
}

/// Where this bridge's strace writes: a line for each call that could have been hit.
pub struct Log(std::path::PathBuf);

impl Fault<'_> {
    /// A bridge under strace, and what strace says.
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

    /// Waits until so many calls were hit.
    pub async fn has_hits(&self, hits: usize) {
        let what = format!("{hits} system calls were hit");
        eventually(&what, 2 * SOON, || async { self.hits() >= hits }).await;
    }

    fn path(&self) -> &Path {
        &self.0
    }
}
