//! `tail`: prints chat sessions as they pass.

pub(super) mod shown;

use std::time::Duration;

use clap::Args;
use deskbridge::config::Config;
use deskbridge::rabbitmq::Settings;
use deskbridge::rabbitmq::consumer::{self, Subscription};
use deskbridge::webhook::routing::Routing;

use super::failure::failed;
use super::output::{Printer, say};
use super::time::{Clock, Zone};
use super::{Exit, Layering, runtime};

/// How long its end waits for the reader.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

const AFTER_HELP: &str = "\
Binds a private queue that is gone with this command. As long as it is bound, the events it sees count \
as subscribed: they do not go to `chat-sessions.unrouted`. It ends with its reader (`| head -1`). While the \
reader pauses, up to 16 MiB wait for it; what is received beyond that is not shown, and counted on standard error.

Examples:
  deskbridge tail                          everything
  deskbridge tail chat-session.missed chat-session.callback
  deskbridge tail --json --count 1 'chat-session.#'";

/// Arguments of `tail`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Binding keys: * is one word, # any number
    #[arg(value_name = "KEY", default_value = "#")]
    keys: Vec<String>,
    #[command(flatten)]
    zone: Zone,
    /// One JSON object a line, with all properties and headers
    #[arg(long)]
    json: bool,
    /// Print the bodies too
    #[arg(long, conflicts_with = "json")]
    body: bool,
    /// Exchange to bind to, instead of every exchange of [routing]; may be given several times
    #[arg(long, value_name = "NAME")]
    exchange: Vec<String>,
    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Subscribes and prints until it is interrupted or has seen enough.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let clock = arguments.zone.clock()?;
    let config = layering.peek_at_broker()?;
    let settings = Settings::from_config(&config)
        .map_err(|why| failed("reading `rabbitmq.urls`", why, "`deskbridge config show`"))?;
    let exchanges = exchanges(&config, arguments);
    runtime()?.block_on(async {
        let subscribed = consumer::subscribe(&settings, &exchanges, &arguments.keys).await;
        let subscription = subscribed.map_err(|why| {
            failed("subscribing", why, "is the broker up (`deskbridge check`), and has `deskbridge serve` declared its exchanges?")
        })?;
        say(format_args!("waiting for {} on {}", arguments.keys.join(" "), exchanges.join(" ")));
        let mut printer = Printer::start(arguments.json)?;
        let result = tokio::select! {
            result = follow(subscription, arguments, &clock, &mut printer) => result,
            _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
        };
        // Of what has come, a reader that reads gets all.
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, printer.finish()).await;
        printer.say_unshown();
        result
    })
}

async fn follow(
    mut subscription: Subscription,
    arguments: &Arguments,
    clock: &Clock,
    printer: &mut Printer,
) -> anyhow::Result<Exit> {
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let received = tokio::select! {
            () = printer.unread() => return Err(printer.error()),
            received = subscription.next() => received,
        };
        let received = received
            .map_err(|why| failed("receiving", why, "run it again when the broker is back"))?;
        let text = if arguments.json {
            shown::json(&received)
        } else {
            shown::readable(&received, arguments.body, clock)
        };
        left -= u64::from(printer.offer(text));
    }
    drop(subscription);
    printer.finish().await?;
    Ok(Exit::Done)
}

fn exchanges(config: &Config, arguments: &Arguments) -> Vec<String> {
    if !arguments.exchange.is_empty() {
        return arguments.exchange.clone();
    }
    let routing = Routing::new(&config.routing, &config.dead_letter).ok();
    let exchanges = routing.iter().flat_map(Routing::exchanges);
    exchanges.map(ToString::to_string).collect()
}
