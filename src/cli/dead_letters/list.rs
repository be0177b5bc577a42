//! `dead-letters list`: prints one line per message.

use std::ops::ControlFlow;

use clap::Args;
use deskbridge::ops::dead_letters::{Author, MessageSummary, QueueTarget};
use jiff::Timestamp;
use serde_json::Value;

use super::selection::FilterArguments;
use super::{QueueArguments, say_none, say_unbrowsed};
use crate::cli::Exit;
use crate::cli::output::{print, print_json, say};
use crate::cli::table::{Column, Table};
use crate::cli::time::age;

pub const AFTER_HELP: &str = "\
AGE is the time since the message was dead-lettered, otherwise since it was received. EXCHANGE KEY is where \
`replay` publishes it. A `!` marks a message that the bridge did not write: its \
message_id does not belong to its source, session and body. A message without `!` is not proven to be genuine, \
because anybody who may publish there can compute the id. Exits with 0 also if nothing matches. \
`deskbridge dead-letters --help` says what browsing does to a queue.

Examples:
  deskbridge dead-letters list --reason invalid,malformed
  deskbridge dead-letters list --json --since 1d | jq .session
  deskbridge dead-letters list --queue chat-sessions.unrouted --limit 20";

const WHOLE: u16 = u16::MAX;

const COLUMNS: [Column; 9] = [
    Column::new("ID", WHOLE, 0),
    Column::new("!", WHOLE, 0),
    Column::new("REASON", WHOLE, 0),
    Column::new("STATUS", 6, 0),
    Column::new("AGE", WHOLE, 0),
    Column::new("SESSION", 8, 0),
    Column::new("ATTEMPTS", WHOLE, 0),
    Column::new("EXCHANGE KEY", 12, 0),
    Column::new("DETAIL", 12, 0),
];

/// Arguments of `dead-letters list`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) at: QueueArguments,
    #[command(flatten)]
    filters: FilterArguments,
    /// Print at most N messages, the oldest first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Browses the queue, returns every message to it, and prints those that match.
pub async fn run(target: &QueueTarget, arguments: &Arguments) -> anyhow::Result<Exit> {
    let selection = arguments.filters.selection(&arguments.at.zone.clock()?)?;
    let limit = arguments.limit.unwrap_or(usize::MAX);
    let mut found = Vec::new();
    let visit = |_, summary| {
        if found.len() < limit && selection.selects(&summary) {
            found.push(summary);
        }
        if found.len() < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    let browsed = target.browse(visit).await?;
    if found.len() < limit {
        say_unbrowsed(target, browsed);
    }
    if found.is_empty() {
        say_none(target, browsed.waiting);
    } else if arguments.json {
        print_json(&json(&found))?;
    } else {
        print(&table(&found))?;
        say_foreign(&found);
    }
    Ok(Exit::Done)
}

/// Explains the mark `!` on standard error if it occurs.
fn say_foreign(found: &[MessageSummary]) {
    let foreign = found.iter().filter(|one| one.author == Author::Other);
    match foreign.count() {
        0 => {}
        1 => say("!: 1 message was not written by the bridge"),
        count => say(format_args!(
            "!: {count} messages were not written by the bridge"
        )),
    }
}

fn json(found: &[MessageSummary]) -> String {
    let line = |summary: &MessageSummary| format!("{}\n", Value::from(summary.json()));
    found.iter().map(line).collect()
}

fn table(found: &[MessageSummary]) -> String {
    let now = Timestamp::now();
    let rows: Vec<_> = found.iter().map(|summary| row(summary, now)).collect();
    Table::of_output(&COLUMNS).whole(&rows)
}

fn row(summary: &MessageSummary, now: Timestamp) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.as_deref().unwrap_or("-").to_owned();
    let origin = match &summary.origin {
        Ok(route) => format!("{} {}", route.exchange, route.routing_key),
        Err(_) => "-".into(),
    };
    vec![
        summary.name(),
        summary.author.mark().to_owned(),
        or_dash(&summary.reason),
        or_dash(&summary.status),
        summary.at.map_or_else(|| "-".into(), |at| age(at, now)),
        or_dash(&summary.session),
        summary
            .attempts
            .map_or_else(|| "-".into(), |n| n.to_string()),
        origin,
        summary.detail.clone().unwrap_or_default(),
    ]
}
