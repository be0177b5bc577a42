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

/// The event of a row that begins with the columns of [`columns`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    let content = match text(row, 8)? {
        Some(session) => Content::Session(Fields {
            session,
            status: text(row, 9)?.unwrap_or_default(),
            session_type: text(row, 10)?,
            previous_status: text(row, 11)?,
            company: text(row, 12)?,
        }),
        None => Content::Reject(Reject {
            reason: text(row, 13)?
                .and_then(|reason| Reason::from_name(&reason))
                .unwrap_or(Reason::Invalid),
            detail: text(row, 14)?.unwrap_or_default(),
        }),
    };
    Ok(Event {
        envelope: Arc::new(Envelope {
            webhook_id: uuid(row, 1)?,
            source: text(row, 3)?.unwrap_or_default().into(),
            received_at: timestamp(integer(row, 4)?),
            traceparent: text(row, 5)?,
            tracestate: text(row, 6)?,
        }),
        index: u32::try_from(integer(row, 2)?).unwrap_or_default(),
        message_id: uuid(row, 7)?,
        content,
        body: bytes(row, 15)?.unwrap_or_default().to_vec().into(),
    })
}

pub(super) fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_default()
}

fn bytes<'r>(row: &'r Row<'_>, column: usize) -> rusqlite::Result<Option<&'r [u8]>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
    })
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    Ok(bytes(row, column)?.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    let id = bytes(row, column)?.and_then(|bytes| Uuid::from_slice(bytes).ok());
    Ok(id.unwrap_or_default())
}

fn integer(row: &Row<'_>, column: usize) -> rusqlite::Result<i64> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(number) => number,
        _ => 0,
    })
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(FIELD_BYTES_MAX)]
}
