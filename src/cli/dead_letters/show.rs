//! `dead-letters show`: all of one message.

use std::fmt::Write;
use std::ops::ControlFlow;

use clap::Args;
use deskbridge::rabbitmq::queue::Letter;
use deskbridge::telemetry::foreign;
use serde_json::Value;

use super::author::Author;
use super::origin::deaths;
use super::selection::is_called;
use super::summary::Summary;
use super::{Place, Where, look};
use crate::cli::Exit;
use crate::cli::failure::failed;
use crate::cli::output::{print, print_exactly, print_json};
use crate::cli::tail::shown::{indented, properties, with_body};

pub const AFTER_HELP: &str = "\
The ID is the message_id, or #3 for the third message in the queue. --body prints the exact bytes and \
nothing else; on a terminal, what it would obey is escaped.

Example:
  deskbridge dead-letters show --body 53d46ec3-435e-8633-874a-52aaacb9ecc7 > corrected.json";

/// Arguments of `dead-letters show`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) at: Where,
    /// The `message_id`, or #3 for the third message in the queue
    #[arg(value_name = "ID")]
    id: String,
    /// One JSON object in one line
    #[arg(long)]
    json: bool,
    /// The body alone, byte for byte
    #[arg(long, conflicts_with = "json")]
    body: bool,
}

/// Looks for it, gives everything back, prints.
pub async fn run(place: &Place, arguments: &Arguments) -> anyhow::Result<Exit> {
    let mut queue = look::open(place).await?;
    let mut found = None;
    let looked = look::each(&mut queue, |letter| {
        let summary = Summary::of(&letter, place.holding());
        if is_called(&summary, &arguments.id) {
            found = Some((letter, summary));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    looked.await.map_err(|error| look::told(place, error))?;
    look::tell_untaken(place, &queue, found.is_none());
    let waiting = queue.waiting();
    queue
        .close()
        .await
        .map_err(|error| look::told(place, error))?;
    let Some((letter, summary)) = found else {
        return Err(unknown(place, &arguments.id, waiting));
    };
    if arguments.body {
        print_exactly(&letter.received.body)?;
    } else if arguments.json {
        print_json(&json(&letter, &summary))?;
    } else {
        print(&readable(&letter, &summary, place, waiting))?;
    }
    Ok(Exit::Done)
}

fn unknown(place: &Place, id: &str, waiting: u64) -> anyhow::Error {
    failed(
        format!("looking for `{id}` in queue `{}`", place.queue),
        format!("it is none of the {waiting} messages there"),
        "`deskbridge dead-letters list`; --queue for another queue",
    )
}

/// The message as `tail` tells of it, with all headers, and what it comes to.
fn json(letter: &Letter, summary: &Summary) -> String {
    let mut object = summary.json();
    object.append(&mut properties(&letter.received));
    object.insert("headers".into(), letter.headers.clone().into());
    object.insert("history".into(), deaths(letter).into());
    with_body(object, &letter.received.body)
}

fn readable(letter: &Letter, summary: &Summary, place: &Place, waiting: u64) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<16} {}", foreign::line(value));
    };
    line("id", &summary.name());
    let at = format!("{}, {} of {waiting}", place.queue, summary.position);
    line("queue", &at);
    line(
        "written by",
        match summary.author {
            Author::Bridge => "the bridge, as far as its id tells",
            Author::Other => {
                "somebody else: its id does not belong to its source, session and body"
            }
            Author::Unknown => "unknown: it has no body",
        },
    );
    line("reason", summary.reason.as_deref().unwrap_or("-"));
    if let Some(detail) = &summary.detail {
        line("detail", detail);
    }
    line("session", summary.session.as_deref().unwrap_or("-"));
    if let Some(at) = summary.at {
        line("since", &place.clock.show_exactly(at));
    }
    match &summary.origin {
        Ok(route) => line(
            "was going to",
            &format!("{} {}", route.exchange, route.routing_key),
        ),
        Err(why) => line("was going to", &format!("unknown: {why}")),
    }
    for (name, value) in properties(&letter.received) {
        if !value.is_null() {
            line(&name, &plain(&value));
        }
    }
    let headers = letter.headers.iter().filter(|(name, _)| *name != "x-death");
    for (name, value) in headers {
        let _ = writeln!(
            text,
            "  {:<20} {}",
            foreign::line(name),
            foreign::line(&plain(value))
        );
    }
    for death in deaths(letter) {
        let _ = writeln!(text, "died: {}", foreign::line(&death.to_string()));
    }
    let body = &letter.received.body;
    let _ = writeln!(text, "body, {} bytes:", body.len());
    text + &indented(body)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned)
}
