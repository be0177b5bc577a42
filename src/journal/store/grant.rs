//! Does what commands have asked for beside the bridge: they only leave wishes, since the counters
//! are in the memory of the only writer.

use rusqlite::OptionalExtension;

use super::{Name, Store};
use crate::journal::rows::Seq;
use crate::journal::stored::Values;
use crate::journal::weight;
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
        let wishes: Vec<(i64, String, i64)> = self
            .database
            .prepare_cached("SELECT id, kind, value FROM wishes ORDER BY id LIMIT ?1")?
            .query_map([WISHES_MAX], |row| {
                let mut values = Values::of(row);
                let kind = values.needed_text(1, "kind")?;
                let value = values.number(2, "value")?.unwrap_or_default();
                Ok((row.get(0)?, kind, value))
            })?
            .collect::<rusqlite::Result<_>>()?;
        for (id, kind, value) in wishes {
            match &*kind {
                REPLAYED if value >= 0 => self.counters.add(Name::Replayed, value),
                RELEASE => self.release(value)?,
                _ => tracing::error!(kind, value, "unknown request in the journal; deleted"),
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
            self.counters
                .add(Name::RetainedBytes, weight::of_row(bytes));
        }
        Ok(())
    }
}
