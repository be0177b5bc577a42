//! `events show`: everything about one event, its body included.

use std::fmt::Write;

use clap::Args;
use deskbridge::journal::archive::{Archive, Entry};
use deskbridge::telemetry::foreign;
use deskbridge::webhook::{Content, identity};
use serde_json::Value;
use serde_json::value::RawValue;

use super::filters::Id;
use super::{find, line, open, unreadable};
use crate::cli::failure::failed;
use crate::cli::output::{print, print_exactly, print_json};
use crate::cli::tail::shown::indented;
use crate::cli::time::{Clock, Zone};
use crate::cli::{Exit, Layering};

const AFTER_HELP: &str = "\
The number is SEQ of `events list`, and the header `journal-event` of a dead letter that was too large. \
A message_id may belong to several events, if the same one was received more than once: all are shown.

Examples:
  deskbridge events show 17
  deskbridge events show 53d46ec3-435e-8633-874a-52aaacb9ecc7 --json
  deskbridge events show 17 --body > session.json";

/// Arguments of `events show`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Number of the event, or message id
    #[arg(value_name = "SEQ|MESSAGE_ID")]
    id: Id,
    /// One JSON object a line; the body stands in it as it is if it is JSON, else as text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: Zone,
    /// The bytes of the body and nothing else; on a terminal, what it would obey is escaped
    #[arg(long, conflicts_with = "json")]
    body: bool,
}

/// Prints it.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let clock = arguments.zone.clock()?;
    let config = layering.peek()?;
    let archive = open(&config)?;
    let mut seqs = find(&archive, &[arguments.id])?;
    if arguments.body {
        // Events of one message_id have one body.
        seqs.truncate(1);
    }
    for seq in seqs {
        let entry = whole(&archive, seq)?;
        if arguments.body {
            print_exactly(&entry.event.body)?;
        } else if arguments.json {
            print_json(&json(&entry))?;
        } else {
            print(&readable(&entry, &clock))?;
        }
    }
    Ok(Exit::Done)
}

fn whole(archive: &Archive, seq: i64) -> anyhow::Result<Entry> {
    let entry = archive.entry(seq).map_err(unreadable)?;
    entry.ok_or_else(|| {
        failed(
            format!("reading event {seq}"),
            "retention has just deleted it",
            "raise `journal.retention`",
        )
    })
}

/// One object; the body stands in it as it is.
fn json(entry: &Entry) -> String {
    let event = &entry.event;
    let mut object = line::json(entry);
    if let Content::Session(fields) = &event.content {
        object["company"] = fields.company.as_deref().into();
    }
    object["traceparent"] = event.envelope.traceparent.as_deref().into();
    object["tracestate"] = event.envelope.tracestate.as_deref().into();
    object["damaged"] = (!identity::is_intact(event)).into();
    let text = String::from_utf8_lossy(&event.body);
    let body = match serde_json::from_str::<&RawValue>(&text) {
        // A line break between tokens would break the line; one inside a string cannot be there.
        Ok(raw) => raw.get().replace(['\n', '\r'], " "),
        Err(_) => Value::from(text.as_ref()).to_string(),
    };
    let object = object.to_string();
    let open = object.strip_suffix('}').unwrap_or(&object);
    format!("{open},\"body\":{body}}}\n")
}

/// One line a field that is there, then the body.
fn readable(entry: &Entry, clock: &Clock) -> String {
    let mut text = String::new();
    let mut object = line::json(entry);
    if let Content::Session(fields) = &entry.event.content {
        object["company"] = fields.company.as_deref().into();
    }
    for (name, value) in object.as_object().into_iter().flatten() {
        let value = match value {
            Value::Null => continue,
            Value::String(value) if name.ends_with("_at") => clock.show_text(value),
            Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        let _ = writeln!(text, "{name:<16} {}", foreign::line(&value));
    }
    if !identity::is_intact(&entry.event) {
        text.push_str("damaged: the body does not match the message_id any more\n");
    }
    text.push('\n');
    text + &indented(&entry.event.body)
}
