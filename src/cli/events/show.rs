//! `events show`: prints everything about one event, including its body.

use std::fmt::Write;

use clap::Args;
use deskbridge::foreign;
use deskbridge::journal::archive::{Archive, Entry};
use deskbridge::webhook::identity;
use serde_json::Value;

use super::filters::Id;
use super::{find, line, open, unreadable};
use crate::cli::failure::failed;
use crate::cli::output::{print, print_exactly, print_json};
use crate::cli::tail::shown::indented;
use crate::cli::time::{Clock, Zone};
use crate::cli::{ConfigArguments, Exit};

const AFTER_HELP: &str = "\
The number is SEQ of `events list`. A restored journal may have given it to another event, so for a dead letter that \
was too large, use its message_id. If the same event was received more than once, its message_id belongs to several events, and all are shown.

Examples:
  deskbridge events show 17
  deskbridge events show 53d46ec3-435e-8633-874a-52aaacb9ecc7 --json
  deskbridge events show 17 --body > session.json";

/// Arguments of `events show`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The number of the event, or its message id
    #[arg(value_name = "SEQ|MESSAGE_ID")]
    id: Id,
    /// Print one JSON object per line, with the body: unchanged if it is JSON, otherwise as text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: Zone,
    /// Print the exact bytes of the body and nothing else; on a terminal, control characters are
    /// escaped
    #[arg(long, conflicts_with = "json")]
    body: bool,
}

/// Prints all events with the id.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let clock = arguments.zone.clock()?;
    let config = layering.peek()?;
    let archive = open(&config)?;
    let mut seqs = find(&archive, &[arguments.id])?;
    if arguments.body {
        // Events with the same message_id have the same body.
        seqs.truncate(1);
    }
    for seq in seqs {
        let entry = whole(&archive, seq)?;
        if arguments.body {
            print_exactly(&entry.event.body)?;
        } else if arguments.json {
            print_json(&line::whole_json(&entry))?;
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

/// One line per field that is present, then the body.
fn readable(entry: &Entry, clock: &Clock) -> String {
    let mut text = String::new();
    let object = line::json(entry, true);
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
