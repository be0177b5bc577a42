//! Decides whether another webhook can be accepted, and what an error of the disk means.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use rusqlite::{ErrorCode, ffi};

use super::Writer;
use crate::journal::WriteError;
use crate::journal::damage::{self, is_damage};
use crate::journal::disk_size;
use crate::journal::locks::is_locked;
use crate::webhook::Webhook;

/// The size on disk of an ordinary webhook: a few sessions of 2 KB.
const ORDINARY_BYTES: u64 = 8 << 10;
/// For a small `backlog_bytes_max`, this fraction of it is used instead.
const ORDINARY_PART: u64 = 8;

/// The known problems of the disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// The error of the last write; `None` if it succeeded.
    pub(super) write_error: Option<WriteError>,
    /// Whether the database file was removed or replaced.
    is_gone: bool,
    /// The identity of the database file when it was opened.
    file: Option<Identity>,
}

impl Writer {
    /// Why this webhook is refused, if `bytes` on disk are already promised to others of its group.
    /// `None` if it is accepted.
    pub(super) fn refusal_of(&self, webhook: &Webhook, bytes: u64) -> Option<WriteError> {
        self.refusal_behind(bytes.saturating_add(disk_size::of_webhook(webhook)))
    }

    /// Why a webhook of ordinary size is refused, published in advance for `/readyz` and the HTTP
    /// listener. `None` if it would be accepted.
    pub(super) fn refusal(&self) -> Option<WriteError> {
        let limit = self.limits.backlog_bytes_max;
        self.refusal_behind(ORDINARY_BYTES.min(limit / ORDINARY_PART))
    }

    fn refusal_behind(&self, bytes: u64) -> Option<WriteError> {
        let backlog = self.store.backlog_bytes().saturating_add(bytes);
        if backlog > self.limits.backlog_bytes_max {
            return Some(WriteError::BacklogFull);
        }
        let low = self.state.free_space.is_low.then_some(WriteError::DiskFull);
        self.state.disk.refusal().or(low)
    }

    /// Whether the path still names the open database. If the file was removed or replaced,
    /// everything written from then on would be lost. An error of `stat` does not count as removal:
    /// the file may be accessible again later.
    pub(super) fn is_same_file(&mut self) -> bool {
        let was_gone = self.state.disk.is_gone;
        match identity(&self.database) {
            Ok(file) if file == self.state.disk.file => {
                if std::mem::take(&mut self.state.disk.is_gone) {
                    tracing::info!("journal file is there again; webhooks are accepted");
                    self.shared.set_refusal(self.refusal());
                }
                return true;
            }
            Ok(_) if was_gone => return false,
            Ok(_) => {
                self.state.disk.is_gone = true;
                tracing::error!(
                    database = %self.database.display(),
                    "journal file was removed or replaced; webhooks are answered 503 until it is there again or the bridge is restarted"
                );
            }
            Err(error) => {
                if self.state.disk.write_error.is_none() {
                    tracing::error!(
                        %error,
                        database = %self.database.display(),
                        "journal file check failed; webhooks are answered 503 until it succeeds"
                    );
                }
                self.state.disk.write_error = Some(WriteError::DiskFailing);
            }
        }
        self.shared.set_refusal(self.refusal());
        false
    }

    /// Translates an error into the refusal of webhooks; reports a failure if the process cannot
    /// continue.
    pub(super) fn classify_error(&mut self, error: &rusqlite::Error) -> WriteError {
        let refusal = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => WriteError::DiskFull,
            // Already logged by the wait for the lock. Not remembered, because the next webhook
            // waits for the lock again.
            _ if is_locked(error) => return WriteError::Locked,
            _ => WriteError::DiskFailing,
        };
        if self.state.disk.write_error.as_ref() != Some(&refusal) {
            tracing::error!(%error, "journal write failed; webhooks are answered 503 until it succeeds");
        }
        self.state.disk.write_error = Some(refusal.clone());
        self.shared.set_refusal(self.refusal());
        if is_fatal(error) {
            if is_damage(error) {
                damage::suspect(&self.database);
            }
            self.shared.fail(error.to_string(), is_damage(error));
        }
        refusal
    }
}

impl Disk {
    /// The state for a database that was just opened.
    pub(super) fn of(database: &Path) -> Self {
        Self {
            file: identity(database).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// Records that a write succeeded.
    pub(super) fn mark_healthy(&mut self) {
        if self.write_error.take().is_some() {
            tracing::info!("journal writes succeed again");
        }
    }

    fn refusal(&self) -> Option<WriteError> {
        if self.is_gone {
            return Some(WriteError::DiskFailing);
        }
        self.write_error.clone()
    }
}

/// Device and inode.
type Identity = (u64, u64);

/// The identity of the file; `None` if there is none.
fn identity(database: &Path) -> io::Result<Option<Identity>> {
    match fs::metadata(database) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the process must end: committed data may be lost, or the database is damaged.
pub(super) fn is_fatal(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    is_damage(error)
        || matches!(
            code,
            Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
        )
}

/// Whether a write failed because the disk is full.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
