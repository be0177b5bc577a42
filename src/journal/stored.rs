//! An event as a row of `events`: written once, read by everybody. Reading never fails because of
//! what a row holds: an event that is not what was received no longer matches its `message_id`.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, MAIN_DB, Row, ToSql, params};
use uuid::Uuid;

use super::rows::Seq;
use crate::memory;
use crate::webhook::{Content, Envelope, Event, Fields, Reason, Reject};

/// Routing fields longer than this are cut on the disk: no header or key shows more of them.
const FIELD_BYTES_MAX: usize = 1024;
/// A large body is read in parts.
const PART_BYTES: usize = 64 << 10;

/// The columns of `events e` as [`read`] wants them, first in a row.
macro_rules! columns {
    () => {
        columns!(body: "e.body")
    };
    (body: $body:literal) => {
        concat!(
            "e.seq, e.webhook_id, e.webhook_index, e.source, e.received_at, e.traceparent, \
             e.tracestate, e.message_id, e.session, e.status, e.session_type, e.previous_status, \
             e.company, e.reject_reason, e.reject_detail, ",
            $body
        )
    };
}
pub(super) use columns;

/// How many columns these are: the first that is not the event's.
pub(super) const COLUMNS: usize = 16;

/// Writes the row of an event.
pub(super) fn write(database: &Connection, seq: Seq, event: &Event) -> rusqlite::Result<()> {
    let (fields, reject) = match &event.content {
        Content::Session(fields) => (Some(fields), None),
        Content::Reject(reject) => (None, Some(reject)),
    };
    let envelope = &event.envelope;
    database
        .prepare_cached(
            "INSERT INTO events (seq, webhook_id, webhook_index, source, received_at, traceparent,
               tracestate, message_id, session, status, session_type, previous_status, company,
               reject_reason, reject_detail, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .execute(params![
            seq,
            envelope.webhook_id.as_bytes(),
            event.index,
            envelope.source,
            envelope.received_at.as_microsecond(),
            envelope.traceparent,
            envelope.tracestate,
            event.message_id.as_bytes(),
            fields.map(|fields| fields.session.as_str()),
            fields.map(|fields| cut(&fields.status)),
            fields.and_then(|fields| fields.session_type.as_deref().map(cut)),
            fields.and_then(|fields| fields.previous_status.as_deref().map(cut)),
            fields.and_then(|fields| fields.company.as_deref().map(cut)),
            reject.map(|reject| reject.reason.as_str()),
            reject.map(|reject| reject.detail.as_str()),
            Body(&event.body),
        ])?;
    if is_large(&event.body) {
        let mut body = database.blob_open(MAIN_DB, "events", "body", seq, false)?;
        body.write_at(&event.body, 0)?;
        body.close()?;
    }
    Ok(())
}

/// A body as a statement takes it: a large one as so many zeros, to be written over. Bound to the
/// statement it would be copied twice.
struct Body<'e>(&'e [u8]);

impl ToSql for Body<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(if is_large(self.0) {
            ToSqlOutput::ZeroBlob(self.0.len() as u64)
        } else {
            ToSqlOutput::Borrowed(ValueRef::Blob(self.0))
        })
    }
}

fn is_large(body: &[u8]) -> bool {
    body.len() >= memory::LARGE_BYTES
}

/// The body of an event whose row was read without it.
pub(super) fn read_body(database: &Connection, seq: Seq) -> rusqlite::Result<Bytes> {
    let blob = database.blob_open(MAIN_DB, "events", "body", seq, true)?;
    let mut body = memory::Buffer::with_capacity(blob.len());
    let mut part = vec![0; PART_BYTES];
    let mut read = 0;
    while read < blob.len() {
        let length = blob.read_at(&mut part, read)?;
        body.extend_from_slice(&part[..length]);
        read += length;
    }
    Ok(body.freeze())
}

/// A row of `events` as it is stored.
pub(super) struct Stored {
    pub(super) event: Event,
    /// A column that holds what this release never writes there.
    pub(super) unknown: Option<&'static str>,
}

/// The event of a row that begins with the columns of [`columns`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let mut values = Values::of(row);
    let content = match values.text(8, "session")? {
        Some(session) => Content::Session(Fields {
            session,
            status: values.needed_text(9, "status")?,
            session_type: values.text(10, "session_type")?,
            previous_status: values.text(11, "previous_status")?,
            company: values.text(12, "company")?,
        }),
        None => Content::Reject(Reject {
            reason: values.reason(13, "reject_reason")?.unwrap_or_else(|| {
                values.unknown.get_or_insert("reject_reason");
                Reason::Damaged
            }),
            detail: values.text(14, "reject_detail")?.unwrap_or_default(),
        }),
    };
    let event = Event {
        envelope: Arc::new(Envelope {
            webhook_id: values.uuid(1, "webhook_id")?,
            source: values.needed_text(3, "source")?.into(),
            received_at: values.timestamp(4, "received_at")?.unwrap_or_default(),
            traceparent: values.text(5, "traceparent")?,
            tracestate: values.text(6, "tracestate")?,
        }),
        index: values.number(2, "webhook_index")?.unwrap_or_default(),
        message_id: values.uuid(7, "message_id")?,
        content,
        body: bytes(row, 15)?.unwrap_or_default().to_vec().into(),
    };
    let unknown = values.unknown;
    Ok(Stored { event, unknown })
}

/// Reads values of a row one after the other, whatever it holds: one that is damaged must not keep
/// the others from being read.
pub(super) struct Values<'r, 's> {
    row: &'r Row<'s>,
    /// The first column with a value that cannot be what was written.
    pub(super) unknown: Option<&'static str>,
}

impl<'r, 's> Values<'r, 's> {
    pub(super) fn of(row: &'r Row<'s>) -> Self {
        Self { row, unknown: None }
    }

    pub(super) fn text(
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

    /// Of a column that is never NULL.
    pub(super) fn needed_text(
        &mut self,
        column: usize,
        name: &'static str,
    ) -> rusqlite::Result<String> {
        let found = self.text(column, name)?;
        Ok(self.check(found.is_some(), name, found.unwrap_or_default()))
    }

    /// `None` if there is none, or one that is not known.
    pub(super) fn reason(
        &mut self,
        column: usize,
        name: &'static str,
    ) -> rusqlite::Result<Option<Reason>> {
        let Some(text) = self.text(column, name)? else {
            return Ok(None);
        };
        let reason = Reason::from_name(&text);
        Ok(self.check(reason.is_some(), name, reason))
    }

    /// `None` if there is none, or one that cannot be.
    pub(super) fn number<N: TryFrom<i64>>(
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

    /// `None` if there is none, or one that cannot be.
    pub(super) fn timestamp(
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

    fn uuid(&mut self, column: usize, name: &'static str) -> rusqlite::Result<Uuid> {
        let id = bytes(self.row, column)?.and_then(|bytes| Uuid::from_slice(bytes).ok());
        Ok(self.check(id.is_some(), name, id.unwrap_or_default()))
    }

    fn check<T>(&mut self, is_known: bool, name: &'static str, value: T) -> T {
        if !is_known {
            self.unknown.get_or_insert(name);
        }
        value
    }
}

pub(super) fn timestamp(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}

fn bytes<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<Option<&'r [u8]>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
    })
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(FIELD_BYTES_MAX)]
}
