//! What is settled goes when it is too old or too much; then the file gives its space back.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::{Name, Store};
use crate::failpoint::{self, Place};
use crate::journal::rows::Seq;

/// Bodies deleted in one transaction at most, unless one alone is larger.
const EXPIRED_BYTES_MAX: i64 = 16 << 20;
/// A smaller file need not shrink.
const SHRUNK_PAGES_MIN: i64 = 2048;

/// How long, and how much of, what is settled is kept.
#[derive(Debug, Clone, Copy)]
pub(in crate::journal) struct Retention {
    pub(in crate::journal) age_max: Duration,
    pub(in crate::journal) bytes_max: u64,
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
        let bytes_max = i64::try_from(retention.bytes_max).unwrap_or(i64::MAX);
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
            self.counters.add(Name::RetainedBytes, -bytes);
            failpoint::pass(Place::JournalDeleteAfter);
            events += 1;
            deleted += bytes;
        }
        Ok(events > 0)
    }

    /// Gives free pages back to the file system, at most `pages_max` of them and only if they are
    /// many; says whether it did.
    pub(in crate::journal) fn shrink(&self, pages_max: u32) -> rusqlite::Result<bool> {
        let count = |name| {
            self.database
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
        };
        let (used, free) = (count("page_count")?, count("freelist_count")?);
        // Some free pages are good to have: the next backlog need not grow the file.
        if free * 4 < used || used < SHRUNK_PAGES_MIN {
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
