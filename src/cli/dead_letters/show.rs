//! `dead-letters show`: prints everything about one message.

use std::fmt::Write;
use std::ops::ControlFlow;

use clap::Args;
use deskbridge::foreign;
use deskbridge::ops::dead_letters::{Author, MessageSummary, QueueTarget, deaths};
use deskbridge::rabbitmq::queue::QueuedMessage;
use serde_json::Value;

use super::{QueueArguments, say_unbrowsed};
use crate::cli::Exit;
use crate::cli::failure::failed;
use crate::cli::output::{print, print_exactly, print_json};
use crate::cli::tail::shown::{indented, properties, with_body};
use crate::cli::time::Clock;

pub const AFTER_HELP: &str = "\
--body prints the exact bytes of the body and nothing else; on a terminal it escapes control characters.

Example:
  deskbridge dead-letters show --body 53d46ec3-435e-8633-874a-52aaacb9ecc7 > corrected.json";

/// Arguments of `dead-letters show`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) at: QueueArguments,
    /// The `message_id`, or #3 for the third message in the queue
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object in one line
    #[arg(long)]
    json: bool,
    /// Print the exact bytes of the body and nothing else
    #[arg(long, conflicts_with = "json")]
    body: bool,
}

/// Browses the queue for the message, returns everything to the queue, and prints the message.
pub async fn run(target: &QueueTarget, arguments: &Arguments) -> anyhow::Result<Exit> {
    let clock = arguments.at.zone.clock()?;
    let mut found = None;
    let visit = |message, summary: MessageSummary| {
        if !summary.is_called(&arguments.id) {
            return ControlFlow::Continue(());
        }
        found = Some((message, summary));
        ControlFlow::Break(())
    };
    let browsed = target.browse(visit).await?;
    let Some((message, summary)) = found else {
        say_unbrowsed(target, browsed);
        return Err(unknown(target, &arguments.id, browsed.waiting));
    };
    if arguments.body {
        print_exactly(&message.received.body)?;
    } else if arguments.json {
        print_json(&json(&message, &summary))?;
    } else {
        let place = format!(
            "{}, {} of {}",
            target.queue, summary.position, browsed.waiting
        );
        print(&readable(&message, &summary, &place, &clock))?;
    }
    Ok(Exit::Done)
}

fn unknown(target: &QueueTarget, id: &str, waiting: u64) -> anyhow::Error {
    failed(
        format!("looking for `{id}` in queue `{}`", target.queue),
        format!("none of the {waiting} messages there has this id"),
        "`deskbridge dead-letters list`; --queue for another queue",
    )
}

/// The summary, the properties as `tail` shows them, all headers, the deaths and the body.
fn json(message: &QueuedMessage, summary: &MessageSummary) -> String {
    let mut object = summary.json();
    object.append(&mut properties(&message.received));
    object.insert("headers".into(), message.headers.clone().into());
    object.insert("history".into(), deaths(message).into());
    with_body(&object.into(), &message.received.body)
}

fn readable(
    message: &QueuedMessage,
    summary: &MessageSummary,
    place: &str,
    clock: &Clock,
) -> String {
    let author = match summary.author {
        Author::Bridge => "the bridge, judging by its id",
        Author::Other => "somebody else: its id does not belong to its source, session and body",
        Author::Unknown => "unknown: it has no body",
    };
    let origin = match &summary.origin {
        Ok(route) => format!("{} {}", route.exchange, route.routing_key),
        Err(why) => format!("unknown: {why}"),
    };
    let or_dash = |text: &Option<String>| Some(text.clone().unwrap_or_else(|| "-".into()));
    let properties = properties(&message.received);
    let of_summary = [
        ("id", Some(summary.name())),
        ("queue", Some(place.to_owned())),
        ("written by", Some(author.to_owned())),
        ("reason", or_dash(&summary.reason)),
        ("detail", summary.detail.clone()),
        ("session", or_dash(&summary.session)),
        ("since", summary.at.map(|at| clock.show_exactly(at))),
        ("was going to", Some(origin)),
    ];
    let of_message = properties
        .iter()
        .map(|(name, value)| (name.as_str(), (!value.is_null()).then(|| plain(value))));
    let mut text = String::new();
    for (name, value) in of_summary.into_iter().chain(of_message) {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<16} {}", foreign::line(&value));
        }
    }
    let headers = message.headers.iter();
    for (name, value) in headers.filter(|(name, _)| *name != "x-death") {
        let (name, value) = (foreign::line(name), plain(value));
        let _ = writeln!(text, "  {name:<20} {}", foreign::line(&value));
    }
    for death in deaths(message) {
        let _ = writeln!(text, "dead-lettered: {}", foreign::line(&death.to_string()));
    }
    let body = &message.received.body;
    let _ = writeln!(text, "body, {} bytes:", body.len());
    text + &indented(body)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}
