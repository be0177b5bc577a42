//! What is done now and then: look at the disk, do what commands have asked for, delete what is
//! old, copy the log into the database, give space back.

use std::time::Instant;

use jiff::Timestamp;

use super::disk::is_full;
use super::{Group, Writer};
use crate::failpoint::{self, Place};
use crate::journal::schema::PAGE_BYTES;
use crate::journal::store::is_locked;

/// Written bytes between two checkpoints.
pub(super) const CHECKPOINT_BYTES: u64 = 16 << 20;
/// What a row costs in the log beside its body, roughly.
const ROW_BYTES: u64 = 512;
/// What a commit costs in the log beside its rows, roughly.
pub(super) const COMMIT_BYTES: u64 = 48 << 10;
/// A longer log waits for readers when it is copied, so that it can begin anew.
const WAL_PAGES_MAX: i64 = 4096;
/// A log of this length that a reader keeps from beginning anew is worth a word.
const WAL_HELD_PAGES: i64 = 8192;
/// Settled events deleted in one go.
const SWEPT_EVENTS_MAX: usize = 1000;
/// Pages given back to the file system in one go.
const SHRUNK_PAGES_MAX: u32 = 512;

impl Writer {
    /// Looks at the disk, at what is old and at what could not be written before.
    pub(super) fn tick(&mut self) {
        self.state.ticked = Some(Instant::now());
        self.is_still_there();
        self.look_at_free_space();
        self.recover();
        match self.tidy() {
            // Nothing of it is urgent.
            Err(error) if is_locked(&error) => {}
            Err(error) if is_full(&error) && self.make_room(0) => {}
            Err(error) => drop(self.blame(&error)),
            Ok(()) => {}
        }
        if !self.shared.has_failed() {
            let oldest = self.store.oldest().unwrap_or_default();
            self.shared.set_oldest(oldest);
        }
        self.shared.set_refusal(self.refusal());
    }

    /// After a failure: is the disk back?
    fn recover(&mut self) {
        if !self.state.unsaved.is_empty() {
            let changes = std::mem::take(&mut self.state.unsaved);
            self.commit(Group {
                changes,
                ..Group::default()
            });
        } else if self.state.disk.write_error.is_some() {
            match self.store.probe() {
                Ok(()) => self.state.disk.works(),
                Err(error) if is_full(&error) && self.make_room(0) => {}
                Err(error) => drop(self.blame(&error)),
            }
        }
    }

    fn tidy(&mut self) -> rusqlite::Result<()> {
        if self.state.disk.write_error.is_some() {
            return Ok(());
        }
        if self.store.grant_wishes()? {
            self.shared.committed(self.store.commit_time);
            self.state.written_bytes += COMMIT_BYTES;
        }
        let now = Timestamp::now();
        let retention = self.retention(0);
        let is_swept = self.store.sweep(now, &retention, SWEPT_EVENTS_MAX)?;
        let is_shrunk = self.shrink()?;
        if is_swept || is_shrunk || self.state.written_bytes > 0 {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Moving pages needs room in the log: a disk that has none keeps them.
    fn shrink(&mut self) -> rusqlite::Result<bool> {
        let is_short = self.state.room.is_short_of_log;
        match self.give_pages_back(SHRUNK_PAGES_MAX, is_short) {
            Err(error) if is_full(&error) => Ok(false),
            result => result,
        }
    }

    pub(super) fn give_pages_back(
        &mut self,
        pages_max: u32,
        is_short: bool,
    ) -> rusqlite::Result<bool> {
        let is_shrunk = self.store.shrink(pages_max, is_short)?;
        if is_shrunk {
            self.state.reserve.forget();
        }
        Ok(is_shrunk)
    }

    /// Counts what a commit has written.
    pub(super) fn written(&mut self, bytes: u64, rows: usize) {
        self.state.written_bytes += COMMIT_BYTES + bytes + ROW_BYTES * rows as u64;
        let most = if self.state.room.is_short_of_log {
            CHECKPOINT_BYTES / 8
        } else {
            CHECKPOINT_BYTES
        };
        if self.state.written_bytes >= most
            && let Err(error) = self.checkpoint()
            && !(is_full(&error) && self.make_room(0))
        {
            self.blame(&error);
        }
    }

    pub(super) fn checkpoint(&mut self) -> rusqlite::Result<()> {
        failpoint::pass(Place::JournalCheckpointBefore);
        let mut wal = self.store.checkpoint()?;
        if wal.copied < wal.pages && wal.pages > WAL_PAGES_MAX {
            wal = self.store.checkpoint_patiently()?;
        }
        let log_bytes = u64::try_from(wal.pages).unwrap_or_default() * u64::from(PAGE_BYTES);
        if wal.is_copied() {
            self.store.log_is_held(false, log_bytes);
        } else if wal.pages > WAL_HELD_PAGES {
            self.store.log_is_held(true, log_bytes);
        }
        failpoint::pass(Place::JournalCheckpointAfter);
        // SQLite cuts the database to its size.
        self.state.reserve.forget();
        // A reader is in the way, or somebody else copies: again a little later.
        self.state.written_bytes = if wal.is_copied() {
            0
        } else {
            CHECKPOINT_BYTES / 2
        };
        Ok(())
    }
}
