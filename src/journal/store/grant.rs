//! Does what commands have asked for beside the bridge: they only leave wishes, since the counters
//! are in the memory of the only writer.

use std::sync::Arc;

use rusqlite::OptionalExtension;

use super::{Name, Store};
use crate::journal::rows::Seq;
use crate::journal::wishes::{RELEASE, REPLAYED};

/// Wishes granted in one transaction.
const WISHES_MAX: i64 = 1000;

impl Store {
    /// Grants what is wished for; says whether there was anything.
    pub(in crate::journal) fn grant_wishes(&mut self) -> rusqlite::Result<bool> {
        let is_any = "SELECT EXISTS (SELECT 1 FROM wishes)";
        let is_any: bool = self
            .database
            .prepare_cached(is_any)?
            .query_row([], |row| row.get(0))?;
        if is_any {
            self.in_transaction(Self::grant)?;
        }
        Ok(is_any)
    }

    /// Part of a transaction.
    pub(super) fn grant(&mut self) -> rusqlite::Result<()> {
        let wishes: Vec<(i64, Arc<str>, i64)> = self
            .database
            .prepare_cached("SELECT id, kind, value FROM wishes ORDER BY id LIMIT ?1")?
            .query_map([WISHES_MAX], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        for (id, kind, value) in wishes {
            match &*kind {
                REPLAYED => self.counters.add(Name::Replayed, value.max(0)),
                RELEASE => self.release(value)?,
                _ => tracing::warn!(kind = &*kind, "a wish in the journal is not known"),
            }
            self.delete("DELETE FROM wishes WHERE id = ?1", id)?;
        }
        Ok(())
    }

    /// An event that was exempt from retention is not any more.
    fn release(&mut self, seq: Seq) -> rusqlite::Result<()> {
        let bytes = self
            .database
            .prepare_cached(
                "UPDATE settled SET kept = 0 WHERE seq = ?1 AND kept = 1 RETURNING bytes",
            )?
            .query_row([seq], |row| row.get(0))
            .optional()?;
        if let Some(bytes) = bytes {
            self.counters.add(Name::RetainedBytes, bytes);
        }
        Ok(())
    }
}
