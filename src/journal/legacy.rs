//! Reads the tables of schemas 1 to 3: one row per event in `events`, and one in `pending` or
//! `settled`.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use super::interface::Seq;
use super::stored::Values;
use crate::webhook::{Content, DeadLetterReason, Envelope, Event, Fields, Reject};

/// The columns of `events e` in the order that [`read`] expects, first in a row.
macro_rules! event_columns {
    () => {
        "e.seq, e.webhook_id, e.webhook_index, e.source, e.received_at, e.traceparent, \
         e.tracestate, e.message_id, e.session, e.status, e.session_type, e.previous_status, \
         e.company, e.reject_reason, e.reject_detail, e.body"
    };
}
pub(super) use event_columns;

/// The number of these columns.
pub(super) const COLUMNS: usize = 16;

/// Whether a database has these tables; `false` if that cannot be read.
pub(super) fn is_legacy(database: &Connection) -> bool {
    database.table_exists(None, "events").unwrap_or(false)
}

/// An event; `None` if its row is missing or cannot be read.
pub(super) fn event(database: &Connection, seq: Seq) -> Option<Event> {
    let statement = concat!("SELECT ", event_columns!(), " FROM events e WHERE seq = ?1");
    let found = database
        .prepare_cached(statement)
        .and_then(|mut statement| statement.query_row([seq], read).optional());
    found.ok().flatten()
}

/// The event of a row that begins with the columns of [`event_columns`]. If a value cannot be read,
/// the event no longer matches its `message_id`.
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Event> {
    let mut values = Values::of(row);
    let content = match values.text(8, "session")? {
        Some(session) => Content::Session(Fields {
            session: session.into(),
            status: values.needed_text(9, "status")?,
            attributes: [
                values.text(10, "session_type")?,
                values.text(11, "previous_status")?,
                values.text(12, "company")?,
            ],
        }),
        None => Content::Reject(Reject {
            reason: values
                .reason(13, "reject_reason")?
                .unwrap_or(DeadLetterReason::Damaged),
            detail: values.text(14, "reject_detail")?.unwrap_or_default(),
        }),
    };
    Ok(Event {
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
        body: values.bytes(15)?.unwrap_or_default().to_vec().into(),
    })
}
