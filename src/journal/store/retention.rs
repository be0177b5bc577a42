//! What is settled goes when it is too old or too much; then the file gives its space back.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::{Name, Store};
use crate::failpoint::{self, Place};
use crate::journal::rows::Seq;
use crate::journal::schema::PAGE_BYTES;
use crate::journal::weight;

/// Bodies deleted in one transaction at most, unless one alone is larger.
const EXPIRED_BYTES_MAX: i64 = 16 << 20;
/// A smaller file need not shrink.
const SHRUNK_PAGES_MIN: i64 = 2048;

/// How long, and how much of, what is settled is kept.
#[derive(Debug, Clone, Copy)]
pub(in crate::journal) struct Retention {
    pub(in crate::journal) age_max: Duration,
    pub(in crate::journal) bytes_max: u64,
    /// Bytes that must go now, kept long enough or not: the disk has no room for what is unsettled.
    pub(in crate::journal) shortage: u64,
}

impl Store {
    /// Deletes what is too old or too much, at most `limit` events; says whether it deleted any.
    pub(in crate::journal) fn sweep(
        &mut self,
        now: Timestamp,
        retention: &Retention,
        limit: usize,
    ) -> rusqlite::Result<bool> {
        self.in_transaction(|store| store.expire(now, retention, limit))
    }

    /// Part of a transaction.
    pub(super) fn expire(
        &mut self,
        now: Timestamp,
        retention: &Retention,
        limit: usize,
    ) -> rusqlite::Result<bool> {
        let age_max = i64::try_from(retention.age_max.as_micros()).unwrap_or(i64::MAX);
        let before = now.as_microsecond().saturating_sub(age_max);
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let without = self.counters.get(Name::RetainedBytes) - signed(retention.shortage);
        let bytes_max = signed(retention.bytes_max).min(without);
        let (mut events, mut deleted) = (0, 0);
        while events < limit && deleted < EXPIRED_BYTES_MAX {
            let Some((seq, at, bytes)) = self.oldest_settled()? else {
                break;
            };
            if at > before && self.counters.get(Name::RetainedBytes) <= bytes_max {
                break;
            }
            failpoint::pass(Place::JournalDeleteBefore);
            self.delete("DELETE FROM settled WHERE seq = ?1", seq)?;
            self.delete("DELETE FROM events WHERE seq = ?1", seq)?;
            self.counters
                .add(Name::RetainedBytes, -weight::of_row(bytes));
            failpoint::pass(Place::JournalDeleteAfter);
            events += 1;
            deleted += bytes;
        }
        Ok(events > 0)
    }

    /// Bytes of the database that are free and will be used before the file grows.
    pub(in crate::journal) fn free_bytes(&self) -> rusqlite::Result<u64> {
        self.count_pages("freelist_count").map(bytes_of)
    }

    /// The size that the database has, or will have once its log is copied.
    pub(in crate::journal) fn used_bytes(&self) -> rusqlite::Result<u64> {
        self.count_pages("page_count").map(bytes_of)
    }

    /// Gives free pages back to the file system, at most `pages_max` of them and only if they are
    /// many, or if the disk is short of space for the log; says whether it did.
    pub(in crate::journal) fn shrink(
        &self,
        pages_max: u32,
        is_short: bool,
    ) -> rusqlite::Result<bool> {
        let (used, free) = (
            self.count_pages("page_count")?,
            self.count_pages("freelist_count")?,
        );
        // Some free pages are good to have: the next backlog need not grow the file.
        let is_much = free * 4 >= used && used >= SHRUNK_PAGES_MIN;
        let is_useful = is_much || is_short && free > 0;
        if !is_useful {
            return Ok(false);
        }
        let mut statement = self
            .database
            .prepare(&format!("PRAGMA incremental_vacuum({pages_max})"))?;
        let mut pages = statement.query([])?;
        // One step gives one page back.
        while pages.next()?.is_some() {}
        Ok(true)
    }

    fn count_pages(&self, pragma: &str) -> rusqlite::Result<i64> {
        self.database
            .pragma_query_value(None, pragma, |row| row.get(0))
    }

    pub(super) fn delete(&self, statement: &str, seq: Seq) -> rusqlite::Result<()> {
        self.database
            .prepare_cached(statement)?
            .execute([seq])
            .map(drop)
    }

    fn oldest_settled(&self) -> rusqlite::Result<Option<(Seq, i64, i64)>> {
        self.database
            .prepare_cached(
                "SELECT seq, at, bytes FROM settled WHERE kept = 0 ORDER BY at LIMIT 1",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
    }
}

fn bytes_of(pages: i64) -> u64 {
    u64::try_from(pages).unwrap_or_default() * u64::from(PAGE_BYTES)
}
