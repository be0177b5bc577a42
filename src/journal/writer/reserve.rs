//! Reserves disk blocks before the journal needs them. The same call shows whether the file system
//! still accepts changes.
//!
//! The WAL can be reset only after its pages have been copied into the database. If another program
//! took the last free block in between, the database could not grow, the WAL could not be reset,
//! and not even the deletion of completed events could be written.

use std::fs::{File, OpenOptions};
use std::mem::ManuallyDrop;
use std::path::Path;

use rusqlite::ffi;
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, retry_on_intr};

use super::Writer;
use super::maintenance::CHECKPOINT_BYTES;
use crate::journal::disk_space::Space;
use crate::journal::files;

/// The database's reserve grows in steps of this size, so that one call serves many groups.
const STEP_BYTES: u64 = 4 << 20;
/// The reserve of the WAL is `CHECKPOINT_BYTES`, or this fraction of a small disk.
const WAL_PART: u64 = 16;

/// The reserved blocks of the database.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Never closed: closing it would release the locks that SQLite holds on this file for the
    /// whole process (POSIX, `fcntl(2)`). `None` if the file system cannot reserve blocks.
    database: Option<ManuallyDrop<File>>,
    bytes: u64,
}

impl Reserve {
    /// Creates the reserve of an open database, and reserves the blocks of its WAL.
    pub(super) fn of(database: &Path) -> Self {
        reserve_wal(database);
        Self {
            database: open(database).map(ManuallyDrop::new),
            bytes: 0,
        }
    }

    /// To be called when the database file was truncated: the reserved blocks after its end are
    /// gone.
    pub(super) fn forget(&mut self) {
        self.bytes = 0;
    }

    /// Tests whether the file system still accepts changes; called after an fsync that succeeded.
    ///
    /// If an fsync of ext4 meets the abort of the file system's journal, it returns success
    /// although the blocks by which the file has grown are lost: in 13 of 120 aborts on Linux 6.18.
    /// A change of the file's blocks fails from the abort on. It costs 3 us.
    ///
    /// # Errors
    /// The file system has become read-only or was shut down.
    fn probe(&self) -> Result<(), Errno> {
        let Some(file) = &self.database else {
            return Ok(());
        };
        match reserve(file, 0, 1) {
            Err(errno @ (Errno::ROFS | Errno::IO)) => Err(errno),
            // The disk is full or cannot reserve blocks, which says nothing about the fsync.
            _ => Ok(()),
        }
    }

    /// Reserves blocks up to `needed` bytes of the database. Fails only if the disk is full.
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
                // The write itself will report what is wrong with the disk.
                Err(_) => return Ok(()),
            }
        }
        Err(Errno::NOSPC)
    }
}

impl Writer {
    /// Reserves blocks for a group that takes `disk_bytes`; called before it is written.
    ///
    /// # Errors
    /// `SQLITE_FULL`: a checkpoint might find no space for the pages in the WAL.
    pub(super) fn reserve(&mut self, disk_bytes: u64) -> rusqlite::Result<()> {
        let beyond = disk_bytes.saturating_sub(self.store.free_bytes()?);
        let needed = self.store.used_bytes()?.saturating_add(beyond);
        let full = || ffi::Error::new(ffi::SQLITE_FULL);
        self.state
            .reserve
            .grow(needed)
            .map_err(|_| rusqlite::Error::SqliteFailure(full(), None))
    }

    /// Verifies a commit before its answers are sent.
    ///
    /// # Errors
    /// `SQLITE_IOERR_FSYNC`: the committed data may be lost, although the fsync returned success.
    pub(super) fn verify_commit(&self) -> rusqlite::Result<()> {
        self.state.reserve.probe().map_err(|errno| {
            let message = format!("the file system failed during the commit: {errno}");
            let error = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
            rusqlite::Error::SqliteFailure(error, Some(message))
        })
    }
}

/// Reserves the blocks of the WAL. It keeps them until the journal is closed; its size does not
/// change.
fn reserve_wal(database: &Path) {
    let space = database.parent().and_then(|dir| Space::of(dir).ok());
    let total = space.map_or(0, |space| space.total);
    if let Some(log) = open(&files::with_suffix(database, "-wal")) {
        let bytes = CHECKPOINT_BYTES.min(total / WAL_PART);
        // Errors are ignored: a disk without room for all of it may have room for single blocks
        // later.
        let _ = reserve(&log, 0, bytes);
    }
}

fn reserve(file: &File, from: u64, to: u64) -> Result<(), Errno> {
    let length = to.saturating_sub(from);
    // Retried after a signal, which must not be taken for a disk that cannot reserve blocks.
    retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from, length))
}

fn open(path: &Path) -> Option<File> {
    OpenOptions::new().write(true).open(path).ok()
}
