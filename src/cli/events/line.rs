//! How an event is shown in a list: a row of a table, or an object of JSON. Text of the sender
//! never reaches the terminal with control characters in it.

use std::fmt::Write;
use std::io::{IsTerminal, stdout};

use deskbridge::journal::Settlement;
use deskbridge::journal::archive::{Entry, Place};
use deskbridge::webhook::{Content, Event};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A column of the table: its head and its width. The first four fit into 80, and of the state what
/// tells it from another.
const COLUMNS: [(&str, usize); 7] = [
    ("SEQ", 6),
    ("RECEIVED", 20),
    ("SESSION", 18),
    ("STATUS", 9),
    ("STATE", 25),
    ("SOURCE", 12),
    ("BYTES", 7),
];

/// Rows that end where the terminal does; whole where there is none.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    width: usize,
}

impl Table {
    /// For standard output.
    pub fn of_output() -> Self {
        let output = stdout();
        let size = output
            .is_terminal()
            .then(|| rustix::termios::tcgetwinsize(&output).ok())
            .flatten();
        let width = size.map(|size| usize::from(size.ws_col));
        Self {
            width: width.filter(|width| *width > 0).unwrap_or(usize::MAX),
        }
    }

    /// The names of the columns.
    pub fn head(self) -> String {
        self.line(&COLUMNS.map(|(name, _)| name.to_owned()))
    }

    /// One event.
    pub fn row(self, entry: &Entry) -> String {
        let event = &entry.event;
        self.line(&[
            entry.seq.to_string(),
            format!("{:.0}", event.envelope.received_at),
            event.session().unwrap_or("-").to_owned(),
            status(event).to_owned(),
            stands(entry),
            event.envelope.source.to_string(),
            entry.bytes.to_string(),
        ])
    }

    fn line(self, cells: &[String; 7]) -> String {
        let mut line = String::new();
        for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
            let mut cell = printable(cell);
            if self.width < usize::MAX && cell.chars().count() > width {
                cell = cell.chars().take(width - 1).collect();
                cell.push('…');
            }
            let _ = write!(line, "{cell:<width$}  ");
        }
        let line = line.trim_end();
        let mut line: String = match line.char_indices().nth(self.width) {
            Some((end, _)) => line[..end].to_owned(),
            None => line.to_owned(),
        };
        line.push('\n');
        line
    }
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
            if let Settlement::DeadLettered(reason) = settlement {
                object["reason"] = reason.as_str().into();
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
            settlement: Settlement::DeadLettered(reason),
            ..
        } => format!("{} ({})", entry.state().as_str(), reason.as_str()),
        _ => entry.state().as_str().to_owned(),
    }
}

/// RFC 3339 in UTC, to the millisecond.
pub fn time(at: Timestamp) -> Value {
    format!("{at:.3}").into()
}

/// A text on one line, without what a terminal would obey.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_ends_where_the_terminal_does_and_a_long_cell_where_its_column_does() {
        let cells = [
            "7",
            "2026-02-03T04:05:06Z",
            "a-session-of-some-length",
            "\u{1b}[2J",
            "published",
            "dd",
            "12",
        ];
        let cells = cells.map(str::to_owned);
        let narrow = Table { width: 60 }.line(&cells);
        assert_eq!(narrow.chars().count(), 61, "{narrow:?}");
        assert!(
            narrow.contains("  a-session-of-some…  \u{fffd}[2J  "),
            "{narrow:?}"
        );
        let whole = Table { width: usize::MAX }.line(&cells);
        assert!(
            whole.contains("a-session-of-some-length") && whole.ends_with("12\n"),
            "{whole:?}"
        );
    }
}
