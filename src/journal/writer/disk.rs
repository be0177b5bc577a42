//! Whether the disk can be trusted with another webhook, and what an error of it means.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use super::{Writer, size};
use crate::journal::{AppendError, damage, directory};
use crate::webhook::Webhook;

/// What is wrong with the disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// What the last write met.
    pub(super) write_error: Option<AppendError>,
    /// Less than `journal.disk_free_min` is free.
    pub(super) is_low: bool,
    /// The database was removed or replaced.
    is_gone: bool,
    /// The database as it was opened: device and inode.
    file: (u64, u64),
}

impl Writer {
    /// Why this webhook is refused, behind so many bytes that are about to be held.
    pub(super) fn refusal_of(&self, webhook: &Webhook, bytes: u64) -> Option<AppendError> {
        let backlog = self.store.backlog_bytes() + bytes + size(webhook);
        if backlog > self.limits.backlog_bytes_max {
            return Some(AppendError::BacklogFull);
        }
        self.state.disk.refusal()
    }

    /// Why every webhook is refused.
    pub(super) fn refusal(&self) -> Option<AppendError> {
        if self.store.backlog_bytes() >= self.limits.backlog_bytes_max {
            return Some(AppendError::BacklogFull);
        }
        self.state.disk.refusal()
    }

    pub(super) fn look_at_free_space(&mut self) {
        let directory = self.database.parent();
        let free = directory.and_then(|directory| directory::free_bytes(directory).ok());
        let is_low = free.is_some_and(|free| free < self.limits.disk_free_min);
        if is_low && !self.state.disk.is_low {
            tracing::error!(
                free_bytes = free,
                "less than `journal.disk_free_min` is free; webhooks are refused until there is \
                 more"
            );
        }
        self.state.disk.is_low = is_low;
    }

    /// A journal whose file was removed or replaced would go on writing into nothing.
    pub(super) fn is_still_there(&mut self) -> bool {
        if !self.state.disk.is_gone && identity(&self.database) != self.state.disk.file {
            self.state.disk.is_gone = true;
            self.shared.set_refusal(self.refusal());
            tracing::error!(
                database = %self.database.display(),
                "the journal's file was removed or replaced; webhooks are refused until a restart"
            );
        }
        !self.state.disk.is_gone
    }

    /// What an error means for webhooks; ends the writer if it cannot be survived.
    pub(super) fn blame(&mut self, error: &rusqlite::Error) -> AppendError {
        let refusal = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => AppendError::DiskFull,
            _ => AppendError::DiskFailing,
        };
        if self.state.disk.write_error.as_ref() != Some(&refusal) {
            tracing::error!(%error, "writing the journal failed; webhooks are refused until it works");
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
    /// The disk with a database that was just opened.
    pub(super) fn of(database: &Path) -> Self {
        Self {
            file: identity(database),
            ..Self::default()
        }
    }

    /// Something was written.
    pub(super) fn works(&mut self) {
        if self.write_error.take().is_some() {
            tracing::info!("writing the journal works again");
        }
    }

    fn refusal(&self) -> Option<AppendError> {
        if self.is_gone {
            return Some(AppendError::DiskFailing);
        }
        let low = self.is_low.then_some(AppendError::DiskFull);
        self.write_error.clone().or(low)
    }
}

fn identity(database: &Path) -> (u64, u64) {
    fs::metadata(database).map_or((0, 0), |found| (found.dev(), found.ino()))
}

fn is_fatal(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    is_damage(error)
        || matches!(
            code,
            Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
        )
}

/// Whether SQLite reports a damaged database.
pub(in crate::journal) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}
