//! What is done now and then: look at the disk, do what commands have asked for, delete what is old, copy the log into the
//! database, give space back.

use std::time::Instant;

use jiff::Timestamp;

use super::{Group, Writer};
use crate::failpoint::{self, Place};

/// Written bytes between two checkpoints.
const CHECKPOINT_BYTES: u64 = 16 << 20;
/// What a row costs in the log beside its body, roughly.
const ROW_BYTES: u64 = 512;
/// What a commit costs in the log beside its rows, roughly.
pub(super) const COMMIT_BYTES: u64 = 48 << 10;
/// A longer log waits for readers when it is copied, so that it can begin anew.
const WAL_PAGES_MAX: i64 = 4096;
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
        if let Err(error) = self.tidy() {
            self.blame(&error);
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
                Err(error) => drop(self.blame(&error)),
            }
        }
    }

    fn tidy(&mut self) -> rusqlite::Result<()> {
        if self.state.disk.write_error.is_some() {
            return Ok(());
        }
        if self.store.grant_wishes()? {
            self.shared
                .publish(self.store.totals(), self.store.commit_time);
            self.state.written_bytes += COMMIT_BYTES;
        }
        let now = Timestamp::now();
        let is_swept = self
            .store
            .sweep(now, &self.limits.retention, SWEPT_EVENTS_MAX)?;
        let is_shrunk = self.store.shrink(SHRUNK_PAGES_MAX)?;
        if is_swept || is_shrunk || self.state.written_bytes > 0 {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Counts what a commit has written.
    pub(super) fn written(&mut self, bytes: u64, rows: usize) {
        self.state.written_bytes += COMMIT_BYTES + bytes + ROW_BYTES * rows as u64;
        if self.state.written_bytes >= CHECKPOINT_BYTES
            && let Err(error) = self.checkpoint()
        {
            self.blame(&error);
        }
    }

    fn checkpoint(&mut self) -> rusqlite::Result<()> {
        failpoint::pass(Place::JournalCheckpointBefore);
        let mut wal = self.store.checkpoint()?;
        if wal.copied < wal.pages && wal.pages > WAL_PAGES_MAX {
            wal = self.store.checkpoint_patiently()?;
        }
        failpoint::pass(Place::JournalCheckpointAfter);
        let is_copied = wal.copied == wal.pages;
        // A reader is in the way: again a little later.
        self.state.written_bytes = if is_copied { 0 } else { CHECKPOINT_BYTES / 2 };
        Ok(())
    }
}
