//! How an event is shown in a list: a row of a table, or an object of JSON.

use deskbridge::journal::Settlement;
use deskbridge::journal::archive::{Entry, Place};
use deskbridge::webhook::{Content, Event};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::table::{Column, Table};
use crate::cli::time::Clock;

const WHOLE: u16 = u16::MAX;

/// The first four fit into 80, and of the state what tells it from another.
const COLUMNS: [Column; 7] = [
    column("SEQ", WHOLE, 6),
    column("RECEIVED", 19, 25),
    column("SESSION", 14, 18),
    column("STATUS", WHOLE, 9),
    column("STATE", 9, 25),
    column("SOURCE", WHOLE, 12),
    column("BYTES", WHOLE, 7),
];

/// For standard output.
pub fn table() -> Table {
    Table::of_output(&COLUMNS)
}

/// One event.
pub fn row(entry: &Entry, clock: &Clock) -> Vec<String> {
    let event = &entry.event;
    vec![
        entry.seq.to_string(),
        clock.show(event.envelope.received_at),
        event.session().unwrap_or("-").to_owned(),
        status(event).to_owned(),
        stands(entry),
        event.envelope.source.to_string(),
        entry.bytes.to_string(),
    ]
}

const fn column(head: &'static str, least: u16, usual: u16) -> Column {
    Column { head, least, usual }
}

/// One object with everything but the body.
pub fn json(entry: &Entry) -> Value {
    let event = &entry.event;
    let envelope = &event.envelope;
    let mut object = json!({
        "seq": entry.seq,
        "message_id": event.message_id,
        "source": envelope.source,
        "session": event.session(),
        "status": null,
        "received_at": time(envelope.received_at),
        "webhook_id": envelope.webhook_id,
        "webhook_index": event.index,
        "bytes": entry.bytes,
        "state": entry.state().as_str(),
    });
    match &event.content {
        Content::Session(fields) => {
            object["status"] = fields.status.as_str().into();
            object["session_type"] = fields.session_type.as_deref().into();
            object["previous_status"] = fields.previous_status.as_deref().into();
        }
        Content::Reject(reject) => {
            object["reason"] = reject.reason.as_str().into();
            object["detail"] = reject.detail.as_str().into();
        }
    }
    match &entry.place {
        Place::Unsettled {
            route,
            attempts,
            condemned,
        } => {
            object["attempts"] = (*attempts).into();
            if let Some(route) = route {
                object["exchange"] = (*route.exchange).into();
                object["routing_key"] = (*route.routing_key).into();
            }
            if let Some(letter) = condemned {
                object["reason"] = letter.reason.as_str().into();
                object["detail"] = letter.detail.as_str().into();
            }
        }
        Place::Settled {
            settlement,
            at,
            attempts,
            is_kept,
        } => {
            object["attempts"] = (*attempts).into();
            object["settled_at"] = time(*at);
            object["kept"] = (*is_kept).into();
            match settlement {
                Ok(Settlement::DeadLettered(reason)) => object["reason"] = reason.as_str().into(),
                Ok(Settlement::Published) => {}
                Err(unknown) => object["outcome"] = unknown.as_str().into(),
            }
        }
    }
    object
}

/// The status as it was sent, or why there is none.
pub fn status(event: &Event) -> &str {
    match &event.content {
        Content::Session(fields) => &fields.status,
        Content::Reject(reject) => reject.reason.as_str(),
    }
}

/// Its state, and the reason of a dead letter.
fn stands(entry: &Entry) -> String {
    match &entry.place {
        Place::Settled {
            settlement: Ok(Settlement::DeadLettered(reason)),
            ..
        } => format!("{} ({})", entry.state().as_str(), reason.as_str()),
        _ => entry.state().as_str().to_owned(),
    }
}

/// RFC 3339 in UTC, to the millisecond.
pub fn time(at: Timestamp) -> Value {
    format!("{at:.3}").into()
}
