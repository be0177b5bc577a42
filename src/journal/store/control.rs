//! Carries out the control requests of commands. Commands only insert requests, because the
//! counters are in the memory of the only writer.

use jiff::Timestamp;

use super::{Name, Store};
use crate::journal::control::{RELEASE, REPLAYED};
use crate::journal::stored::Values;

/// Requests that one transaction carries out, at most.
const REQUESTS_MAX: i64 = 1000;

impl Store {
    /// Carries out pending control requests; returns whether there were any.
    pub(in crate::journal) fn apply_control_requests(&mut self) -> rusqlite::Result<bool> {
        let is_any = self
            .database
            .prepare_cached("SELECT 1 FROM wishes")?
            .exists([])?;
        if is_any {
            self.in_transaction(Self::apply_requests)?;
        }
        Ok(is_any)
    }

    /// Like `apply_control_requests`, inside the caller's transaction.
    pub(super) fn apply_requests(&mut self) -> rusqlite::Result<()> {
        let requests: Vec<(i64, String, i64)> = self
            .database
            .prepare_cached("SELECT id, kind, value FROM wishes ORDER BY id LIMIT ?1")?
            .query_map([REQUESTS_MAX], |row| {
                let mut values = Values::of(row);
                let kind = values.needed_text(1, "kind")?;
                let value = values.number(2, "value")?.unwrap_or_default();
                Ok((row.get(0)?, kind, value))
            })?
            .collect::<rusqlite::Result<_>>()?;
        for (id, kind, value) in requests {
            match &*kind {
                REPLAYED if value >= 0 => self.counters.add(Name::Replayed, value),
                RELEASE => self.end_exemption(value)?,
                _ => tracing::error!(kind, value, "unknown request in the journal; deleted"),
            }
            self.delete("DELETE FROM wishes WHERE id = ?1", id)?;
        }
        self.write_completion(Timestamp::now())
    }
}
