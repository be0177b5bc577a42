//! `dead-letters`: looks into the dead-letter queue or another one, replays and discards.

mod again;
mod author;
mod corrected;
mod destination;
mod discard;
mod interrupt;
mod list;
mod look;
mod origin;
mod replay;
mod report;
mod selection;
mod show;
mod summary;

use clap::{Args, Subcommand};
use deskbridge::config::Config;
use deskbridge::rabbitmq::Settings;

use self::selection::Selection;
use super::failure::failed;
use super::time::{Clock, Zone};
use super::{Exit, Layering, runtime};

const AFTER_HELP: &str = "\
Looking takes nothing away: messages are held for a moment, in order, and go back to their place when \
the command ends; if it is killed too, but then behind others that were looked at before. Meanwhile consumers of the queue do not get them.

A quorum queue counts every delivery, also one that is given back. The bridge's own queues have no limit \
that matters. A queue whose limit does (RabbitMQ 4 has 20 unless told otherwise) is refused unless --force: \
each look uses up one delivery of every message it takes, and after the last one a message is dropped or \
dead-lettered. A limit that a policy sets is not seen. Streams cannot be looked into.

Each pass sees at most the messages that were in the queue when it began, each once.

Examples:
  deskbridge dead-letters list --reason unroutable --since 2h
  deskbridge dead-letters show 53d46ec3-435e-8633-874a-52aaacb9ecc7
  deskbridge dead-letters replay --all --dry-run
  deskbridge dead-letters replay --queue chat-sessions.unrouted --status missed
  deskbridge dead-letters replay --body corrected.json 53d46ec3-435e-8633-874a-52aaacb9ecc7
  deskbridge dead-letters discard --until 30d --yes";

/// Arguments of `dead-letters`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One line for each message
    #[command(after_help = list::AFTER_HELP)]
    List(list::Arguments),
    /// All of one message
    #[command(after_help = show::AFTER_HELP)]
    Show(show::Arguments),
    /// Publish messages again where they were going, and remove them when a queue has them
    #[command(after_help = replay::AFTER_HELP)]
    Replay(replay::Arguments),
    /// Remove messages for good
    #[command(after_help = discard::AFTER_HELP)]
    Discard(discard::Arguments),
}

/// Which queue.
#[derive(Debug, Args)]
struct Where {
    #[command(flatten)]
    layering: Layering,
    /// Another queue than the one of `dead_letter.exchange`, such as chat-sessions.unrouted
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Look even if that uses up deliveries of the messages
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    zone: Zone,
}

/// What is done something with, and how that is told.
#[derive(Debug, Args)]
struct Aim {
    #[command(flatten)]
    at: Where,
    #[command(flatten)]
    selection: Selection,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// A queue with what is known of it, and how to get there.
struct Place {
    config: Config,
    settings: Settings,
    queue: String,
    is_forced: bool,
    clock: Clock,
}

/// Does it.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let place = |at: &Where| Place::new(&layering.clone().and(&at.layering), at);
    let runtime = runtime()?;
    match &arguments.what {
        What::List(list) => runtime.block_on(list::run(&place(&list.at)?, list)),
        What::Show(show) => runtime.block_on(show::run(&place(&show.at)?, show)),
        What::Replay(replay) => runtime.block_on(replay::run(&place(&replay.aim.at)?, replay)),
        What::Discard(discard) => runtime.block_on(discard::run(&place(&discard.aim.at)?, discard)),
    }
}

impl Place {
    fn new(layering: &Layering, at: &Where) -> anyhow::Result<Self> {
        let clock = at.zone.clock()?;
        let config = layering.peek_at_broker()?;
        let settings = Settings::from_config(&config)
            .map_err(|why| failed("reading `rabbitmq.urls`", why, "`deskbridge config show`"))?;
        let configured = &config.dead_letter.exchange;
        Ok(Self {
            queue: at.queue.as_ref().unwrap_or(configured).clone(),
            is_forced: at.force,
            clock,
            config,
            settings,
        })
    }
}
