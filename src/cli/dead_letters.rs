//! `dead-letters`: browses the dead-letter queue or another queue, replays and discards messages.

mod discard;
mod list;
mod replay;
mod report;
mod selection;
mod show;
mod summary;

use clap::{Args, Subcommand};
use deskbridge::ops::dead_letters::{Browsed, QueueTarget};

use self::selection::SelectionArguments;
use super::output::say;
use super::time::Zone;
use super::{ConfigArguments, Exit, runtime};

const AFTER_HELP: &str = "\
Browsing removes nothing. Messages are held for a moment, in order, and go back to their place when the \
command ends. If the command is killed they go back too, but behind messages that were browsed earlier. \
While they are held, consumers of the queue do not get them.

A quorum queue counts every delivery, even if the message is returned. Browsing the bridge's own queues \
costs nothing. A queue with a small delivery limit (RabbitMQ 4 has 20 unless another one is set) is refused \
without --force: each time, every message that is browsed uses up one delivery, and after the last one \
RabbitMQ drops or dead-letters it. A limit set by a policy is not seen. Streams cannot be browsed.

A command sees at most the messages that were in the queue when it began, each once.

Examples:
  deskbridge dead-letters summary
  deskbridge dead-letters list --reason unroutable --since 2h
  deskbridge dead-letters replay --queue chat-sessions.unrouted --status missed";

/// Arguments of `dead-letters`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// Print one line per message
    #[command(after_help = list::AFTER_HELP)]
    List(list::Arguments),
    /// Count messages by reason, queue, exchange and key
    #[command(after_help = summary::AFTER_HELP)]
    Summary(summary::Arguments),
    /// Print everything about one message
    #[command(after_help = show::AFTER_HELP)]
    Show(show::Arguments),
    /// Publish messages again, and remove each one when a queue has taken it
    #[command(after_help = replay::AFTER_HELP)]
    Replay(replay::Arguments),
    /// Remove messages for good
    #[command(after_help = discard::AFTER_HELP)]
    Discard(discard::Arguments),
}

/// Which queue to browse.
#[derive(Debug, Args)]
struct QueueArguments {
    #[command(flatten)]
    layering: ConfigArguments,
    /// Browse this queue instead of the dead-letter queue, for example chat-sessions.unrouted
    #[arg(long, value_name = "NAME")]
    queue: Option<String>,
    /// Browse even if that uses up deliveries of the messages
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    zone: Zone,
}

/// Common arguments of `replay` and `discard`: which messages, and how the result is printed.
#[derive(Debug, Args)]
struct PassArguments {
    #[command(flatten)]
    at: QueueArguments,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let target = |at: &QueueArguments| {
        let config = layering.clone().and(&at.layering).peek_at_broker()?;
        QueueTarget::new(config, at.queue.as_deref(), at.force)
    };
    let runtime = runtime()?;
    match &arguments.command {
        DeadLettersCommand::List(list) => runtime.block_on(list::run(&target(&list.at)?, list)),
        DeadLettersCommand::Summary(summary) => {
            runtime.block_on(summary::run(&target(&summary.at)?, summary))
        }
        DeadLettersCommand::Show(show) => runtime.block_on(show::run(&target(&show.at)?, show)),
        DeadLettersCommand::Replay(replay) => {
            runtime.block_on(replay::run(&target(&replay.pass.at)?, replay))
        }
        DeadLettersCommand::Discard(discard) => {
            runtime.block_on(discard::run(&target(&discard.pass.at)?, discard))
        }
    }
}

/// Reports on standard error that nothing matches.
fn say_none(target: &QueueTarget, waiting: u64) {
    let queue = &target.queue;
    match waiting {
        0 => say(format_args!("queue `{queue}` has no message that is ready")),
        1 => say(format_args!(
            "the one message in queue `{queue}` does not match"
        )),
        _ => say(format_args!(
            "none of the {waiting} messages in queue `{queue}` matches"
        )),
    }
}

/// Reports on standard error that the queue holds more messages than one pass can browse.
fn say_unbrowsed(target: &QueueTarget, browsed: Browsed) {
    if browsed.unbrowsed > 0 {
        say(format_args!(
            "the last {} messages in queue `{}` were not browsed: there are too many for one pass",
            browsed.unbrowsed, target.queue
        ));
    }
}
