//! `dead-letters summary`: counts messages by reason, queue, exchange and key.

use std::ops::ControlFlow;

use clap::Args;
use deskbridge::ops::counted;
use deskbridge::ops::dead_letters::{Group, Groups, MessageSummary, QueueTarget, Tally};
use jiff::Timestamp;
use serde_json::json;

use super::selection::FilterArguments;
use super::{QueueArguments, say_none, say_unbrowsed};
use crate::cli::Exit;
use crate::cli::output::{print, print_json, say};
use crate::cli::table::{Column, Table};
use crate::cli::time::age;

pub const AFTER_HELP: &str = "\
QUEUE is the queue that dead-lettered the messages, for example because a consumer rejected them; `-` if the \
bridge did. `dead-letters replay --to-queue` sends them there again. EXCHANGE KEY is where `replay` publishes \
them without it. OLDEST and NEWEST are the times since the first and the last of them was dead-lettered, \
otherwise received. Exits with 0 also if nothing matches. `deskbridge dead-letters --help` says what browsing \
does to a queue.

Examples:
  deskbridge dead-letters summary
  deskbridge dead-letters summary --since 1d --json
  deskbridge dead-letters summary --queue chat-sessions.unrouted";

const WHOLE: u16 = u16::MAX;

const COLUMNS: [Column; 6] = [
    Column::new("COUNT", WHOLE, 0),
    Column::new("REASON", 10, 0),
    Column::new("OLDEST", WHOLE, 0),
    Column::new("NEWEST", WHOLE, 0),
    Column::new("QUEUE", 8, 0),
    Column::new("EXCHANGE KEY", 12, 0),
];

/// Arguments of `dead-letters summary`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) at: QueueArguments,
    #[command(flatten)]
    filters: FilterArguments,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Browses the queue, returns every message to it, and prints the counts of those that match.
pub async fn run(target: &QueueTarget, arguments: &Arguments) -> anyhow::Result<Exit> {
    let selection = arguments.filters.selection(&arguments.at.zone.clock()?)?;
    let mut groups = Groups::default();
    let visit = |_, summary: MessageSummary| {
        if selection.selects(&summary) {
            groups.add(&summary);
        }
        ControlFlow::Continue(())
    };
    let browsed = target.browse(visit).await?;
    say_unbrowsed(target, browsed);
    let total = groups.total();
    if total.count == 0 {
        say_none(target, browsed.waiting);
        return Ok(Exit::Done);
    }
    let sorted = groups.sorted();
    if arguments.json {
        print_json(&json(&sorted)?)?;
        return Ok(Exit::Done);
    }
    let now = Timestamp::now();
    let rows: Vec<_> = sorted.iter().map(|one| row(one, now)).collect();
    print(&Table::of_output(&COLUMNS).whole(&rows))?;
    let messages = counted(total.count, "message");
    let (oldest, newest) = (
        age_or_dash(total.oldest, now),
        age_or_dash(total.newest, now),
    );
    say(format_args!(
        "{messages} in queue `{}`, oldest {oldest}, newest {newest}",
        target.queue
    ));
    Ok(Exit::Done)
}

fn json(groups: &[(&Group, Tally)]) -> serde_json::Result<String> {
    let mut lines = String::new();
    for (group, tally) in groups {
        let mut object = serde_json::to_value(group)?;
        object["count"] = tally.count.into();
        object["oldest"] = json!(tally.oldest.map(|at| format!("{at:.3}")));
        object["newest"] = json!(tally.newest.map(|at| format!("{at:.3}")));
        lines.push_str(&object.to_string());
        lines.push('\n');
    }
    Ok(lines)
}

fn row((group, tally): &(&Group, Tally), now: Timestamp) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.as_deref().unwrap_or("-").to_owned();
    let origin = match (&group.original_exchange, &group.original_routing_key) {
        (Some(exchange), Some(key)) => format!("{exchange} {key}"),
        _ => "-".into(),
    };
    vec![
        tally.count.to_string(),
        or_dash(&group.reason),
        age_or_dash(tally.oldest, now),
        age_or_dash(tally.newest, now),
        or_dash(&group.original_queue),
        origin,
    ]
}

fn age_or_dash(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "-".into(), |at| age(at, now))
}
