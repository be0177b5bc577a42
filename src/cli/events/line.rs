//! How an event is printed: as a row of a table, or as a JSON object.

use deskbridge::journal::FinalState;
use deskbridge::journal::archive::{Entry, StateDetails};
use deskbridge::webhook::attributes::ATTRIBUTES;
use deskbridge::webhook::{Content, Event, identity};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::table::{Column, Table};
use crate::cli::tail::shown::with_body;
use crate::cli::time::Clock;

const WHOLE: u16 = u16::MAX;

/// The first four columns and a recognisable part of the state fit into 80 columns.
const COLUMNS: [Column; 7] = [
    Column::new("SEQ", WHOLE, 6),
    Column::new("RECEIVED", 19, 25),
    Column::new("SESSION", 14, 18),
    Column::new("STATUS", WHOLE, 9),
    Column::new("STATE", 9, 25),
    Column::new("SOURCE", WHOLE, 12),
    Column::new("BYTES", WHOLE, 7),
];

/// The table of events for standard output.
pub fn table() -> Table {
    Table::of_output(&COLUMNS)
}

/// The row of one event.
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

/// A JSON object with everything except the body; unless it is whole, without the trace context and
/// without attributes that messages have no header for.
pub fn json(entry: &Entry, is_whole: bool) -> Value {
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
            for (attribute, value) in ATTRIBUTES.iter().zip(&fields.attributes) {
                if is_whole || attribute.header.is_some() {
                    object[attribute.name] = value.as_deref().into();
                }
            }
        }
        Content::Reject(reject) => {
            object["reason"] = reject.reason.as_str().into();
            object["detail"] = reject.detail.as_str().into();
        }
    }
    match &entry.details {
        StateDetails::Pending {
            route,
            attempts,
            dead_letter_cause,
        } => {
            object["attempts"] = (*attempts).into();
            if let Some(route) = route {
                object["exchange"] = (*route.exchange).into();
                object["routing_key"] = (*route.routing_key).into();
            }
            if let Some(letter) = dead_letter_cause {
                object["reason"] = letter.reason.as_str().into();
                object["detail"] = letter.detail.as_str().into();
            }
        }
        StateDetails::Completed {
            final_state,
            at,
            attempts,
            is_exempt,
        } => {
            object["attempts"] = (*attempts).into();
            object["settled_at"] = time(*at);
            object["kept"] = (*is_exempt).into();
            match final_state {
                Ok(FinalState::DeadLettered(reason)) => object["reason"] = reason.as_str().into(),
                Ok(FinalState::Published) => {}
                Err(unknown) => object["outcome"] = unknown.as_str().into(),
            }
        }
    }
    object
}

/// A line with a JSON object of everything, the body as in [`with_body`].
pub fn whole_json(entry: &Entry) -> String {
    let event = &entry.event;
    let mut object = json(entry, true);
    object["traceparent"] = event.envelope.traceparent.as_deref().into();
    object["tracestate"] = event.envelope.tracestate.as_deref().into();
    object["damaged"] = (!identity::is_intact(event)).into();
    with_body(&object, &event.body)
}

/// The status as it was sent; for a rejected element `invalid` or `malformed`.
pub fn status(event: &Event) -> &str {
    match &event.content {
        Content::Session(fields) => &fields.status,
        Content::Reject(reject) => reject.reason.as_str(),
    }
}

/// The state, for a dead letter with its reason.
fn stands(entry: &Entry) -> String {
    match &entry.details {
        StateDetails::Completed {
            final_state: Ok(FinalState::DeadLettered(reason)),
            ..
        } => format!("{} ({})", entry.state().as_str(), reason.as_str()),
        _ => entry.state().as_str().to_owned(),
    }
}

/// A time for JSON: RFC 3339 in UTC, to the millisecond.
pub fn time(at: Timestamp) -> Value {
    format!("{at:.3}").into()
}
