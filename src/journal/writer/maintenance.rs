//! Periodic work: check the disk, carry out control requests, apply retention, checkpoint the WAL,
//! and return free space.

use std::time::Instant;

use jiff::Timestamp;

use super::admission::{is_fatal, is_full};
use super::{Group, Writer};
use crate::failpoint::{self, Failpoint};
use crate::journal::locks::is_locked;
use crate::journal::schema::PAGE_BYTES;
use crate::journal::store::WINDOW_AGE_MAX;

/// Written bytes between two checkpoints.
pub(super) const CHECKPOINT_BYTES: u64 = 16 << 20;
/// From this many written bytes on, the checkpoint runs on its own thread.
const COPIED_BYTES_MIN: u64 = 2 << 20;
/// If the WAL is longer than this, the next commit waits for the checkpoint.
const WAL_BYTES_MAX: u64 = 4 * CHECKPOINT_BYTES;
/// The estimated size of a row in the WAL, without its body.
const ROW_BYTES: u64 = 512;
/// The estimated size of a commit in the WAL, without its rows.
pub(super) const COMMIT_BYTES: u64 = 24 << 10;
/// If the WAL is longer than this, the checkpoint waits for readers, so that the WAL can be reset.
const WAL_PAGES_MAX: i64 = 8192;
/// From this length on, a WAL that a reader prevents from being reset is reported.
const WAL_PINNED_PAGES: i64 = 16_384;
/// Completed events deleted in one transaction.
const SWEPT_EVENTS_MAX: usize = 1000;
/// Pages returned to the file system in one transaction.
const SHRUNK_PAGES_MAX: u32 = 1024;

impl Writer {
    /// Runs every 500 ms: checks the disk, retries what could not be written, and tidies up.
    pub(super) fn tick(&mut self) {
        self.state.ticked = Some(Instant::now());
        self.state.is_rerouting = true;
        self.is_same_file();
        self.measure_free_space();
        self.recover();
        match self.tidy() {
            // None of this is urgent; the next tick tries again.
            Err(error) if is_locked(&error) => {}
            Err(error) if is_full(&error) && self.make_room(0) => {}
            Err(error) => drop(self.classify_error(&error)),
            Ok(is_changed) => {
                if let Err(error) = self.checkpoint_changes(is_changed) {
                    self.checkpoint_failed(&error);
                }
            }
        }
        if !self.shared.has_failed() {
            let oldest = self.store.oldest().unwrap_or_default();
            self.shared.set_oldest(oldest);
        }
        self.shared.set_refusal(self.refusal());
    }

    /// After a failed write, tries again to write the kept changes, or a test row.
    fn recover(&mut self) {
        if !self.state.unsaved.is_empty() {
            let changes = std::mem::take(&mut self.state.unsaved);
            self.commit(Group {
                changes,
                ..Group::default()
            });
        } else if self.state.disk.write_error.is_some() {
            match self.store.probe() {
                Ok(()) => self.state.disk.mark_healthy(),
                Err(error) if is_full(&error) && self.make_room(0) => {}
                Err(error) => drop(self.classify_error(&error)),
            }
        }
    }

    /// Returns whether it has written to the WAL without counting the bytes.
    fn tidy(&mut self) -> rusqlite::Result<bool> {
        if self.state.disk.write_error.is_some() {
            return Ok(false);
        }
        let is_applied = self.store.apply_control_requests()?;
        self.update_ageing();
        let behind = self.store.tidy_window()?;
        if is_applied || behind.is_some() {
            self.shared.committed(self.store.commit_time);
            self.state.written_bytes += COMMIT_BYTES;
        }
        self.tell_behind(behind.unwrap_or_default());
        let now = Timestamp::now();
        let retention = self.retention(0);
        let is_swept = self.store.sweep(now, &retention, SWEPT_EVENTS_MAX)?;
        let is_shrunk = self.shrink()?;
        Ok(is_swept || is_shrunk)
    }

    fn checkpoint_changes(&mut self, is_changed: bool) -> rusqlite::Result<()> {
        if self.state.disk.write_error.is_some() {
            return Ok(());
        }
        if let Some(copied) = self.state.checkpointer.ended() {
            copied?;
            self.checkpoint()?;
        } else if is_changed || self.state.written_bytes > 0 {
            self.begin_checkpoint()?;
        }
        Ok(())
    }

    /// The age limit of the window applies only after the broker has been connected for as long:
    /// after an interruption, events have the full time again to be published.
    pub(super) fn update_ageing(&mut self) {
        let is_ageing = self.shared.connected_for() >= WINDOW_AGE_MAX;
        self.store.set_ageing(is_ageing);
    }

    /// Moving pages needs space in the WAL: if there is none, the free pages stay in the database.
    fn shrink(&mut self) -> rusqlite::Result<bool> {
        let is_short = self.state.free_space.is_short_of_wal;
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

    /// Adds the estimated size of a commit to `written_bytes`, and checkpoints if necessary.
    pub(super) fn written(&mut self, bytes: u64, rows: usize) {
        self.state.written_bytes += COMMIT_BYTES + bytes + ROW_BYTES * rows as u64;
        if let Err(error) = self.checkpoint_if_needed() {
            self.checkpoint_failed(&error);
        }
    }

    /// Handles the error of a checkpoint; the next tick tries again.
    ///
    /// The WAL has stored every commit, so webhooks are refused only if the process cannot continue,
    /// or if the WAL has become long.
    fn checkpoint_failed(&mut self, error: &rusqlite::Error) {
        if is_locked(error) || is_full(error) && self.make_room(0) {
            return;
        }
        if is_fatal(error) || self.state.written_bytes >= WAL_BYTES_MAX {
            self.classify_error(error);
        } else if !self.state.is_checkpoint_failing {
            self.state.is_checkpoint_failing = true;
            tracing::warn!(%error, "journal checkpoint failed; it is tried again");
        }
    }

    /// Starts or runs a checkpoint when enough was written.
    fn checkpoint_if_needed(&mut self) -> rusqlite::Result<()> {
        if let Some(copied) = self.state.checkpointer.ended() {
            copied?;
            return self.checkpoint();
        }
        let written = self.state.written_bytes;
        if self.state.free_space.is_short_of_wal && written >= CHECKPOINT_BYTES / 8 {
            return self.checkpoint();
        }
        match written {
            ..CHECKPOINT_BYTES => Ok(()),
            CHECKPOINT_BYTES..WAL_BYTES_MAX => self.begin_checkpoint(),
            // The background checkpoint cannot keep up with the writes.
            WAL_BYTES_MAX.. => self.checkpoint(),
        }
    }

    /// Checkpoints a long WAL in the background and a short one immediately.
    fn begin_checkpoint(&mut self) -> rusqlite::Result<()> {
        if self.state.written_bytes >= COPIED_BYTES_MIN && self.state.checkpointer.begin() {
            return Ok(());
        }
        self.checkpoint()
    }

    pub(super) fn checkpoint(&mut self) -> rusqlite::Result<()> {
        failpoint::pass(Failpoint::JournalCheckpointBefore);
        self.state.checkpointer.wait()?;
        let mut wal = self.store.checkpoint()?;
        if wal.copied < wal.pages && wal.pages > WAL_PAGES_MAX {
            wal = self.store.checkpoint_patiently()?;
        }
        let wal_bytes = u64::try_from(wal.pages).unwrap_or_default() * u64::from(PAGE_BYTES);
        if wal.is_copied() {
            self.store.report_wal_pinned(false, wal_bytes);
        } else if wal.pages > WAL_PINNED_PAGES {
            self.store.report_wal_pinned(true, wal_bytes);
        }
        failpoint::pass(Failpoint::JournalCheckpointAfter);
        // The checkpoint truncates the database file, and the reserved blocks with it.
        self.state.reserve.forget();
        // If a reader or another checkpoint prevented it, it is tried again after half the
        // interval.
        self.state.written_bytes = if wal.is_copied() {
            0
        } else {
            CHECKPOINT_BYTES / 2
        };
        self.state.is_checkpoint_failing = false;
        Ok(())
    }
}
