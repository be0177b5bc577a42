//! Reads the values of a row that may be damaged.

use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::ValueRef;
use uuid::Uuid;

use crate::journal::interface::Seq;
use crate::webhook::DeadLetterReason;

/// Reads the columns of a row one by one, whatever they hold: a damaged value must not prevent the
/// others from being read.
pub(in crate::journal) struct Values<'r, 's> {
    row: &'r Row<'s>,
    /// The first column with a value that deskbridge cannot have written.
    pub(in crate::journal) unknown: Option<&'static str>,
}

impl<'r, 's> Values<'r, 's> {
    pub(in crate::journal) fn of(row: &'r Row<'s>) -> Self {
        Self { row, unknown: None }
    }

    pub(in crate::journal) fn text(
        &mut self,
        column: usize,
        name: &'static str,
    ) -> rusqlite::Result<Option<String>> {
        match self.row.get_ref(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(text) => {
                let read = String::from_utf8_lossy(text);
                Ok(Some(self.check(
                    read.as_bytes() == text,
                    name,
                    read.into_owned(),
                )))
            }
            _ => Ok(self.check(false, name, None)),
        }
    }

    /// Reads a column that is never NULL; empty and `unknown` if it is.
    pub(in crate::journal) fn needed_text(
        &mut self,
        column: usize,
        name: &'static str,
    ) -> rusqlite::Result<String> {
        let found = self.text(column, name)?;
        Ok(self.check(found.is_some(), name, found.unwrap_or_default()))
    }

    /// `None` if the column is NULL or its reason is unknown.
    pub(in crate::journal) fn reason(
        &mut self,
        column: usize,
        name: &'static str,
    ) -> rusqlite::Result<Option<DeadLetterReason>> {
        let Some(text) = self.text(column, name)? else {
            return Ok(None);
        };
        let reason = DeadLetterReason::from_name(&text);
        Ok(self.check(reason.is_some(), name, reason))
    }

    /// `None` if the column is NULL or its value is out of range.
    pub(in crate::journal) fn number<N: TryFrom<i64>>(
        &mut self,
        column: usize,
        name: &'static str,
    ) -> rusqlite::Result<Option<N>> {
        let number = match self.row.get_ref(column)? {
            ValueRef::Null => return Ok(None),
            ValueRef::Integer(number) => N::try_from(number).ok(),
            _ => None,
        };
        Ok(self.check(number.is_some(), name, number))
    }

    /// `None` if the column is NULL or its value is out of range.
    pub(in crate::journal) fn timestamp(
        &mut self,
        column: usize,
        name: &'static str,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let Some(micros) = self.number(column, name)? else {
            return Ok(None);
        };
        let at = timestamp(micros);
        Ok(self.check(at.is_some(), name, at))
    }

    pub(in crate::journal) fn uuid(
        &mut self,
        column: usize,
        name: &'static str,
    ) -> rusqlite::Result<Uuid> {
        let id = self
            .bytes(column)?
            .and_then(|bytes| Uuid::from_slice(bytes).ok());
        Ok(self.check(id.is_some(), name, id.unwrap_or_default()))
    }

    pub(in crate::journal) fn bytes(&self, column: usize) -> rusqlite::Result<Option<&'r [u8]>> {
        Ok(match self.row.get_ref(column)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
        })
    }

    fn check<T>(&mut self, is_known: bool, name: &'static str, value: T) -> T {
        if !is_known {
            self.unknown.get_or_insert(name);
        }
        value
    }
}

/// Logs the first column of an event that has an unknown value, if there is one.
pub(in crate::journal) fn log_unknown(seq: Seq, column: Option<&'static str>) {
    if let Some(column) = column {
        tracing::error!(
            seq,
            column,
            "unknown value in the journal; event counts as damaged"
        );
    }
}

pub(in crate::journal) fn timestamp(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}
