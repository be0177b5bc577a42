//! Deletes completed webhooks when they are too old or take too much space, and then shrinks the
//! file.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::{Name, Store};
use crate::failpoint::{self, Failpoint};
use crate::journal::completed::{self, Closed, read_closed};
use crate::journal::disk_size::signed;
use crate::journal::interface::Seq;
use crate::journal::schema::PAGE_BYTES;
use crate::journal::stored::{PART_REACH, Values};

/// Bytes deleted in one transaction; the last run may exceed it.
const EXPIRED_BYTES_MAX: i64 = 16 << 20;
/// A file with fewer pages is not shrunk.
const SHRUNK_PAGES_MIN: i64 = 4096;
/// A row of `completed` is deleted after all its events. Rows are deleted in order: a row that
/// still has events delays the later ones until this many of them have been swept. It is then
/// skipped and stays until the next start.
const LINGERING_MAX: i64 = 1000;

/// Rows of `completed` that one transaction may delete in any case.
const CLEARED_MIN: usize = 4;

/// How long completed webhooks are kept, and how much of them.
#[derive(Debug, Clone, Copy)]
pub(in crate::journal) struct Retention {
    pub(in crate::journal) age_max: Duration,
    pub(in crate::journal) bytes_max: u64,
    /// Bytes to delete now, whatever their age: the disk has no room for pending events.
    pub(in crate::journal) shortage: u64,
}

/// How far this process has gone through the rows of `completed`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Swept {
    /// The id of the newest row, deleted or not.
    pub(super) last: i64,
    /// The webhooks closed by this row, and by all rows before it, are deleted.
    deleted: i64,
    /// This row and all rows before it are deleted, or stay.
    cleared: i64,
}

/// The part of a transaction's limits that is not used yet.
struct DeletionBudget {
    events: usize,
    bytes: i64,
}

impl DeletionBudget {
    fn is_left(&self) -> bool {
        self.events > 0 && self.bytes > 0
    }

    fn spend(&mut self, events: usize, bytes: i64) {
        self.events = self.events.saturating_sub(events);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A row of `completed`.
struct CompletedRow {
    id: i64,
    first: Seq,
    last: Seq,
    at: i64,
    closed: Vec<Closed>,
}

impl Store {
    pub(super) fn find_last_completed(&mut self) -> rusqlite::Result<()> {
        let newest = "SELECT coalesce(max(id), 0) FROM completed";
        self.swept.last = self.database.query_row(newest, [], |row| row.get(0))?;
        Ok(())
    }

    /// Deletes webhooks that are too old or exceed the limit, about `limit` events; returns whether
    /// it deleted any.
    pub(in crate::journal) fn sweep(
        &mut self,
        now: Timestamp,
        retention: &Retention,
        limit: usize,
    ) -> rusqlite::Result<bool> {
        self.in_transaction(|store| store.expire(now, retention, limit))
    }

    /// Like `sweep`, inside the caller's transaction.
    pub(super) fn expire(
        &mut self,
        now: Timestamp,
        retention: &Retention,
        limit: usize,
    ) -> rusqlite::Result<bool> {
        let age_max = i64::try_from(retention.age_max.as_micros()).unwrap_or(i64::MAX);
        let before = now.as_microsecond().saturating_sub(age_max);
        let without = self.counters.get(Name::RetainedBytes) - signed(retention.shortage);
        let bytes_max = signed(retention.bytes_max).min(without);
        let mut budget = DeletionBudget {
            events: limit,
            bytes: EXPIRED_BYTES_MAX,
        };
        let (mut looked_at, mut is_any) = (0, false);
        while budget.is_left() {
            let Some(row) = self.completed_row_after(self.swept.deleted)? else {
                break;
            };
            let is_old = row.at <= before;
            if !is_old && self.counters.get(Name::RetainedBytes) <= bytes_max {
                break;
            }
            looked_at += 1;
            budget.spend(1, 0);
            let bytes_max = if is_old { i64::MIN } else { bytes_max };
            is_any |= !row.closed.is_empty();
            if !self.delete_closed(&row, bytes_max, &mut budget)? {
                break;
            }
            self.swept.deleted = row.id;
        }
        self.clear(looked_at)?;
        Ok(is_any)
    }

    /// Deletes the webhooks that a row of `completed` closed, until no more than `bytes_max` is
    /// retained. Returns whether all of them are deleted.
    fn delete_closed(
        &mut self,
        row: &CompletedRow,
        bytes_max: i64,
        budget: &mut DeletionBudget,
    ) -> rusqlite::Result<bool> {
        let mut rest = &*row.closed;
        while let Some((run, others)) = rest.split_first()
            && budget.is_left()
            && self.counters.get(Name::RetainedBytes) > bytes_max
        {
            let Closed(first, last, bytes) = *run;
            failpoint::pass(Failpoint::JournalDeleteBefore);
            self.database
                .prepare_cached("DELETE FROM webhooks WHERE first BETWEEN ?1 AND ?2")?
                .execute((first, last))?;
            self.database
                .prepare_cached("DELETE FROM outcomes WHERE seq BETWEEN ?1 AND ?2")?
                .execute((first, last))?;
            self.counters.add(Name::RetainedBytes, -bytes);
            failpoint::pass(Failpoint::JournalDeleteAfter);
            budget.spend(usize::try_from(last - first + 1).unwrap_or_default(), bytes);
            rest = others;
        }
        if rest.len() < row.closed.len() {
            self.database
                .prepare_cached("UPDATE completed SET closed = ?2 WHERE id = ?1")?
                .execute((row.id, completed::write(rest)))?;
        }
        Ok(rest.is_empty())
    }

    /// Deletes rows of `completed` whose events are no longer in `webhooks`. It goes through a few
    /// more rows than were just swept, so that it catches up.
    fn clear(&mut self, rows: usize) -> rusqlite::Result<()> {
        for _ in 0..rows + CLEARED_MIN {
            let Some(row) = self.completed_row_after(self.swept.cleared)? else {
                break;
            };
            if row.id > self.swept.deleted {
                break;
            }
            let is_any = self
                .database
                .prepare_cached(
                    "SELECT 1 FROM webhooks WHERE first BETWEEN ?1 AND ?2 AND first + events > ?3",
                )?
                .exists((row.first - PART_REACH, row.last, row.first))?;
            if !is_any {
                self.delete("DELETE FROM completed WHERE id = ?1", row.id)?;
            } else if self.swept.deleted - row.id < LINGERING_MAX {
                break;
            }
            self.swept.cleared = row.id;
        }
        Ok(())
    }

    fn completed_row_after(&self, id: i64) -> rusqlite::Result<Option<CompletedRow>> {
        self.database
            .prepare_cached(
                "SELECT id, first, last, at, closed FROM completed WHERE id > ?1
                 ORDER BY id LIMIT 1",
            )?
            .query_row([id], |row| {
                let mut values = Values::of(row);
                Ok(CompletedRow {
                    id: row.get(0)?,
                    first: row.get(1)?,
                    last: row.get(2)?,
                    at: row.get(3)?,
                    closed: read_closed(&values.needed_text(4, "closed")?).unwrap_or_default(),
                })
            })
            .optional()
    }

    /// Bytes of free pages in the database, which are used before the file grows.
    pub(in crate::journal) fn free_bytes(&self) -> rusqlite::Result<u64> {
        self.count_pages("freelist_count").map(bytes_of)
    }

    /// The size of the database in bytes, including pages that are still in the WAL.
    pub(in crate::journal) fn used_bytes(&self) -> rusqlite::Result<u64> {
        self.count_pages("page_count").map(bytes_of)
    }

    /// Returns at most `pages_max` free pages to the file system, if there are many, or if the file
    /// system is short of space for the WAL. Returns whether it did.
    pub(in crate::journal) fn shrink(
        &self,
        pages_max: u32,
        is_short: bool,
    ) -> rusqlite::Result<bool> {
        let (used, free) = (
            self.count_pages("page_count")?,
            self.count_pages("freelist_count")?,
        );
        // Some free pages are kept on purpose: the next backlog then does not have to grow the
        // file.
        let is_much = free * 4 >= used && used >= SHRUNK_PAGES_MIN;
        let is_useful = is_much || is_short && free > 0;
        if !is_useful {
            return Ok(false);
        }
        let mut statement = self
            .database
            .prepare(&format!("PRAGMA incremental_vacuum({pages_max})"))?;
        let mut pages = statement.query([])?;
        // Each step frees one page.
        while pages.next()?.is_some() {}
        Ok(true)
    }

    fn count_pages(&self, pragma: &str) -> rusqlite::Result<i64> {
        self.database
            .prepare_cached(&format!("PRAGMA {pragma}"))?
            .query_row([], |row| row.get(0))
    }
}

fn bytes_of(pages: i64) -> u64 {
    u64::try_from(pages).unwrap_or_default() * u64::from(PAGE_BYTES)
}
