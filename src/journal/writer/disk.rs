//! Whether the disk can be trusted with another webhook, and what an error of it means.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use rusqlite::{ErrorCode, ffi};

use super::{Writer, disk_bytes};
use crate::journal::store::is_locked;
use crate::journal::{AppendError, damage};
use crate::webhook::Webhook;

/// What a webhook of ordinary size takes: a few sessions of 2 KB.
const ORDINARY_BYTES: u64 = 8 << 10;
/// Or this part of a small backlog.
const ORDINARY_PART: u64 = 8;

/// What is wrong with the disk.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// What the last write met.
    pub(super) write_error: Option<AppendError>,
    /// The database was removed or replaced.
    is_gone: bool,
    /// The database as it was opened.
    file: Option<Identity>,
}

impl Writer {
    /// Why this webhook is refused, behind so many bytes that are about to be held.
    pub(super) fn refusal_of(&self, webhook: &Webhook, bytes: u64) -> Option<AppendError> {
        self.refusal_behind(bytes.saturating_add(disk_bytes(webhook)))
    }

    /// Why a webhook of ordinary size is refused, and with it every other one: whoever asks
    /// beforehand is told what would happen.
    pub(super) fn refusal(&self) -> Option<AppendError> {
        let limit = self.limits.backlog_bytes_max;
        self.refusal_behind(ORDINARY_BYTES.min(limit / ORDINARY_PART))
    }

    fn refusal_behind(&self, bytes: u64) -> Option<AppendError> {
        let backlog = self.store.backlog_bytes().saturating_add(bytes);
        if backlog > self.limits.backlog_bytes_max {
            return Some(AppendError::BacklogFull);
        }
        let low = self.state.room.is_low.then_some(AppendError::DiskFull);
        self.state.disk.refusal().or(low)
    }

    /// A journal whose file was removed or replaced would go on writing into nothing. A file that
    /// cannot even be looked at may be there again later.
    pub(super) fn is_still_there(&mut self) -> bool {
        if self.state.disk.is_gone {
            return false;
        }
        match identity(&self.database) {
            Ok(file) if file == self.state.disk.file => return true,
            Ok(_) => {
                self.state.disk.is_gone = true;
                tracing::error!(
                    database = %self.database.display(),
                    "the journal's file was removed or replaced; webhooks are refused until a \
                     restart"
                );
            }
            Err(error) => {
                if self.state.disk.write_error.is_none() {
                    tracing::error!(
                        %error,
                        database = %self.database.display(),
                        "looking at the journal's file failed; webhooks are refused until it works"
                    );
                }
                self.state.disk.write_error = Some(AppendError::DiskFailing);
            }
        }
        self.shared.set_refusal(self.refusal());
        false
    }

    /// What an error means for webhooks; ends the writer if it cannot be survived.
    pub(super) fn blame(&mut self, error: &rusqlite::Error) -> AppendError {
        let refusal = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => AppendError::DiskFull,
            // Told where it is waited for; the next webhook waits for it again.
            _ if is_locked(error) => return AppendError::Locked,
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
            file: identity(database).unwrap_or_default(),
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
        self.write_error.clone()
    }
}

/// Device and inode.
type Identity = (u64, u64);

/// Which file that is; none if there is none.
fn identity(database: &Path) -> io::Result<Option<Identity>> {
    match fs::metadata(database) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_fatal(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    is_damage(error)
        || matches!(
            code,
            Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
        )
}

/// Whether the disk took no more.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether SQLite reports a damaged database.
pub(in crate::journal) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}
