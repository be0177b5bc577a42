//! `tail`: prints chat sessions as they are published.

pub(super) mod shown;

use std::time::Duration;

use clap::Args;
use deskbridge::config::Config;
use deskbridge::ops::broker_settings;
use deskbridge::rabbitmq::consumer::{self, Subscription};
use deskbridge::settings;
use deskbridge::webhook::routing::Routing;

use super::failure::failed;
use super::output::{Printer, say};
use super::time::{Clock, Zone};
use super::{ConfigArguments, Exit, interrupt, runtime};

/// How long the command waits at its end until the reader has taken the remaining output.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

const AFTER_HELP: &str = "\
Binds a private queue that is deleted when the command ends. While it is bound, its events count as subscribed: \
they do not go to `chat-sessions.unrouted`. The command ends with its reader (`| head -1`). While the reader \
pauses, up to 16 MiB wait for it. Messages beyond that are not shown; their number is reported on standard error.

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
    /// Print one JSON object per line, with all properties and headers
    #[arg(long)]
    json: bool,
    /// Print the bodies too
    #[arg(long, conflicts_with = "json")]
    body: bool,
    /// Bind to this exchange instead of all exchanges of [routing]; may be given several times
    #[arg(long, value_name = "NAME")]
    exchange: Vec<String>,
    /// End after N messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Subscribes and prints until Ctrl-C, until `--count` is reached, or until the output is closed.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let clock = arguments.zone.clock()?;
    let config = layering.peek_at_broker()?;
    let settings = broker_settings(&config)?;
    let exchanges = exchanges(&config, arguments);
    runtime()?.block_on(async {
        let subscribed = consumer::subscribe(&settings, &exchanges, &arguments.keys).await;
        let subscription = subscribed.map_err(|why| {
            failed(
                "subscribing",
                why,
                "run `deskbridge check`; `deskbridge serve` declares the exchanges",
            )
        })?;
        let interrupted = interrupt::listen()?;
        say(format_args!(
            "waiting for {} on {}",
            arguments.keys.join(" "),
            exchanges.join(" ")
        ));
        let mut printer = Printer::start(arguments.json)?;
        let result = tokio::select! {
            result = follow(subscription, arguments, &clock, &mut printer) => result,
            () = interrupted.cancelled() => Ok(Exit::Done),
        };
        // A reader that is still reading gets everything that was received.
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
    let routing = settings::routing(config).ok();
    let exchanges = routing.iter().flat_map(Routing::exchanges);
    exchanges.map(ToString::to_string).collect()
}
