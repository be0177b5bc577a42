//! Reserves blocks of the disk before the journal needs them.
//!
//! The log can start over only after its pages have been copied into the database. If another
//! program took the last free block in between, the database could not grow, the log could not
//! start over, and not even the deletion of settled events could be written.

use std::fs::{File, OpenOptions};
use std::mem::ManuallyDrop;
use std::path::Path;

use rusqlite::ffi;
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, retry_on_intr};

use super::Writer;
use super::upkeep::CHECKPOINT_BYTES;
use crate::journal::files;
use crate::journal::space::Space;

/// The database's reserve grows in steps of this size, so that one call serves many groups.
const STEP_BYTES: u64 = 4 << 20;
/// The log's reserve is what is written between two checkpoints, or this part of a small disk.
const LOG_PART: u64 = 16;

/// The blocks of the database that are reserved.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Never closed: that would drop the locks that `SQLite` holds on this file for the whole
    /// process (POSIX, `fcntl(2)`). None where blocks cannot be reserved.
    database: Option<ManuallyDrop<File>>,
    bytes: u64,
}

impl Reserve {
    /// Of a database that is open, with a log.
    pub(super) fn of(database: &Path) -> Self {
        reserve_log(database);
        Self {
            database: open(database).map(ManuallyDrop::new),
            bytes: 0,
        }
    }

    /// The database was cut: what was reserved behind its end is gone.
    pub(super) fn forget(&mut self) {
        self.bytes = 0;
    }

    /// Fails only if the disk is full.
    fn grow(&mut self, needed: u64) -> Result<(), Errno> {
        let Some(file) = &self.database else {
            return Ok(());
        };
        if needed <= self.bytes {
            return Ok(());
        }
        let steps = needed.div_ceil(STEP_BYTES).saturating_mul(STEP_BYTES);
        let wanted = [steps, needed];
        for bytes in wanted {
            match reserve(file, self.bytes, bytes) {
                Ok(()) => {
                    self.bytes = bytes;
                    return Ok(());
                }
                Err(Errno::NOSPC | Errno::DQUOT) => {}
                // This file system reserves no blocks.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.database = None;
                    return Ok(());
                }
                // The write itself will say what is wrong with the disk.
                Err(_) => return Ok(()),
            }
        }
        Err(Errno::NOSPC)
    }
}

impl Writer {
    /// Before a group that takes so many bytes is written.
    ///
    /// # Errors
    /// `SQLITE_FULL`: a checkpoint might find no room for what the log would hold.
    pub(super) fn reserve(&mut self, disk_bytes: u64) -> rusqlite::Result<()> {
        let beyond = disk_bytes.saturating_sub(self.store.free_bytes()?);
        let needed = self.store.used_bytes()?.saturating_add(beyond);
        let full = || ffi::Error::new(ffi::SQLITE_FULL);
        self.state
            .reserve
            .grow(needed)
            .map_err(|_| rusqlite::Error::SqliteFailure(full(), None))
    }
}

/// The log keeps these blocks until the journal is closed; its size does not change.
fn reserve_log(database: &Path) {
    let space = database.parent().and_then(|dir| Space::of(dir).ok());
    let total = space.map_or(0, |space| space.total);
    if let Some(log) = open(&files::with_suffix(database, "-wal")) {
        let bytes = CHECKPOINT_BYTES.min(total / LOG_PART);
        // A disk without room for it may have room later, block by block.
        let _ = reserve(&log, 0, bytes);
    }
}

fn reserve(file: &File, from: u64, to: u64) -> Result<(), Errno> {
    let length = to.saturating_sub(from);
    // A signal that interrupts the call must not look like a disk that cannot do it.
    retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from, length))
}

fn open(path: &Path) -> Option<File> {
    OpenOptions::new().write(true).open(path).ok()
}
