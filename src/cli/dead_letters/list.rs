//! `dead-letters list`: one line for each message.

use std::ops::ControlFlow;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::origin::Holding;
use super::selection::Filters;
use super::summary::Summary;
use super::{Place, Where, look};
use crate::cli::table::{self, Column};
use crate::cli::tail::shown::printable;
use crate::cli::time::age;
use crate::cli::{Exit, print};

pub const AFTER_HELP: &str = "\
WHEN is how long ago. Exits with 0 also if nothing matches. What looking means: `deskbridge dead-letters --help`.

Examples:
  deskbridge dead-letters list --reason invalid,malformed
  deskbridge dead-letters list --json --since 1d | jq .session
  deskbridge dead-letters list --queue chat-sessions.unrouted --limit 20";

const WHOLE: usize = usize::MAX;

const COLUMNS: [Column; 8] = [
    column("ID", WHOLE),
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
    let mut queue = look::open(place).await?;
    let limit = arguments.limit.unwrap_or(usize::MAX);
    let mut found = Vec::new();
    if limit > 0 {
        let looked = look::each(&mut queue, |letter| {
            let summary = Summary::of(&letter, place.holding());
            if arguments.filters.pass(&summary) {
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
        print(&json(&found))?;
    } else {
        print(&table(&found))?;
    }
    Ok(Exit::Done)
}

fn json(found: &[Summary]) -> String {
    let line = |summary: &Summary| format!("{}\n", Value::from(summary.json()));
    found.iter().map(line).collect()
}

fn table(found: &[Summary]) -> String {
    let now = Timestamp::now();
    let rows: Vec<_> = found.iter().map(|summary| row(summary, now)).collect();
    table::layout(&COLUMNS, &rows, table::width())
}

fn row(summary: &Summary, now: Timestamp) -> Vec<String> {
    let or_dash = |text: &Option<String>| printable(text.as_deref().unwrap_or("-"));
    let origin = match &summary.origin {
        Ok(route) => printable(&format!("{} {}", route.exchange, route.routing_key)),
        Err(_) => "-".into(),
    };
    vec![
        printable(&summary.name()),
        or_dash(&summary.reason),
        or_dash(&summary.status),
        summary.at.map_or_else(|| "-".into(), |at| age(at, now)),
        or_dash(&summary.session),
        summary
            .attempts
            .map_or_else(|| "-".into(), |n| n.to_string()),
        origin,
        printable(summary.detail.as_deref().unwrap_or_default()),
    ]
}

const fn column(head: &'static str, least: usize) -> Column {
    Column { head, least }
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
