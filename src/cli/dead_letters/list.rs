//! `dead-letters list`: one line for each message.

use std::ops::ControlFlow;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::author::Author;
use super::origin::Holding;
use super::selection::Filters;
use super::summary::Summary;
use super::{Place, Where, look};
use crate::cli::Exit;
use crate::cli::output::{print, print_json, say};
use crate::cli::table::{Column, Table};
use crate::cli::time::age;

pub const AFTER_HELP: &str = "\
WHEN is how long ago. A `!` marks a message that the bridge did not write: its message_id does not belong to \
its source, session and body. That is no proof of the others: whoever may publish there can compute one. Exits with 0 also if nothing matches. What looking means: `deskbridge dead-letters --help`.

Examples:
  deskbridge dead-letters list --reason invalid,malformed
  deskbridge dead-letters list --json --since 1d | jq .session
  deskbridge dead-letters list --queue chat-sessions.unrouted --limit 20";

const WHOLE: u16 = u16::MAX;

const COLUMNS: [Column; 9] = [
    column("ID", WHOLE),
    column("!", WHOLE),
    column("REASON", WHOLE),
    column("STATUS", 6),
    column("WHEN", WHOLE),
    column("SESSION", 8),
    column("TRIES", WHOLE),
    column("ORIGIN", 12),
    column("DETAIL", 12),
];

/// Arguments of `dead-letters list`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) at: Where,
    #[command(flatten)]
    filters: Filters,
    /// At most so many, the oldest first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Looks, gives everything back, prints.
pub async fn run(place: &Place, arguments: &Arguments) -> anyhow::Result<Exit> {
    let dead = arguments.filters.dead(&place.clock)?;
    let mut queue = look::open(place).await?;
    let limit = arguments.limit.unwrap_or(usize::MAX);
    let mut found = Vec::new();
    if limit > 0 {
        let looked = look::each(&mut queue, |letter| {
            let summary = Summary::of(&letter, place.holding());
            if arguments.filters.pass(&summary, dead) {
                found.push(summary);
            }
            if found.len() == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        looked.await.map_err(|error| look::told(place, error))?;
    }
    look::tell_untaken(place, &queue, found.len() < limit);
    let waiting = queue.waiting();
    queue
        .close()
        .await
        .map_err(|error| look::told(place, error))?;
    if found.is_empty() {
        look::tell_none(place, waiting);
    } else if arguments.json {
        print_json(&json(&found))?;
    } else {
        print(&table(&found))?;
        say_foreign(&found);
    }
    Ok(Exit::Done)
}

/// What the mark means, if there is one.
fn say_foreign(found: &[Summary]) {
    let foreign = found.iter().filter(|one| one.author == Author::Other);
    match foreign.count() {
        0 => {}
        1 => say("!: 1 message was not written by the bridge"),
        count => say(format_args!(
            "!: {count} messages were not written by the bridge"
        )),
    }
}

fn json(found: &[Summary]) -> String {
    let line = |summary: &Summary| format!("{}\n", Value::from(summary.json()));
    found.iter().map(line).collect()
}

fn table(found: &[Summary]) -> String {
    let now = Timestamp::now();
    let rows: Vec<_> = found.iter().map(|summary| row(summary, now)).collect();
    Table::of_output(&COLUMNS).whole(&rows)
}

fn row(summary: &Summary, now: Timestamp) -> Vec<String> {
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

const fn column(head: &'static str, least: u16) -> Column {
    Column {
        head,
        least,
        usual: 0,
    }
}

impl Place {
    /// What its messages are judged by.
    pub(super) fn holding(&self) -> Holding<'_> {
        Holding {
            queue: &self.queue,
            dead_letter: &self.config.dead_letter.exchange,
            unrouted: &self.config.unrouted.exchange,
        }
    }
}
