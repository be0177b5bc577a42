//! `dead-letters replay`: publishes messages again, and removes each one when a queue has taken it.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use deskbridge::ops::dead_letters::{Action, Destination, QueueTarget, corrected};

use super::{PassArguments, report};
use crate::cli::failure::{failed, usage_error};
use crate::cli::{Exit, queue_name};

pub const AFTER_HELP: &str = "\
Each message goes to the exchange and routing key that it was first published with. It keeps its message_id, \
properties and headers, except the headers that describe how it became a dead letter, and gets the header \
`replayed-at`. Every queue bound there receives it, including one that already had it; consumers recognise it \
by its message_id. It is removed only when the broker has confirmed it and a queue has taken it; otherwise it \
stays, and the command exits with 1.

After Ctrl-C or SIGTERM the command finishes what is in flight. If it is killed, a message is at worst in both \
places. It reports a message as `replayed` once its removal is certain, and as `perhaps replayed` if the \
connection was lost before that.

The headers of a message could be written by anybody who may publish to the queue. Messages are therefore \
published only to exchanges of [routing]. A message that was going to another exchange, or directly to a \
queue, stays, unless --to-exchange NAME sends all selected messages to one exchange, each with its own routing \
key, or --to-queue NAME publishes them into one queue alone. `list` marks messages that the bridge did not write.

--to-queue is for the queue of a consumer that lost messages: other queues do not get them again. The queue \
must exist. It receives them from the default exchange, with its name as the routing key; the user of \
`rabbitmq.urls` needs the permission to write to `amq.default`. `summary` and `list --json` print which queue \
dead-lettered a message.

--body FILE sends the session, or the array of sessions, in FILE in place of one message. They are routed by \
their content, with a message_id of their own and the header `corrected-from`.

Messages with the reason invalid or malformed stay unless they are given a corrected body. Messages with the \
reason too-large have no body in the queue; `deskbridge events replay` sends their events from the journal. \
Messages that return to the queue of `unrouted.exchange`, because no queue is bound for their keys yet, are \
reported, and the command exits with 1.

Examples:
  deskbridge dead-letters replay --reason unroutable,nacked --dry-run
  deskbridge dead-letters replay --all
  deskbridge dead-letters replay --reason rejected --to-queue ticketing
  deskbridge dead-letters replay --queue orders.failed --to-exchange orders --all
  deskbridge dead-letters replay --body corrected.json 53d46ec3-435e-8633-874a-52aaacb9ecc7";

/// Arguments of `dead-letters replay`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) pass: PassArguments,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Publish to this exchange instead of the one that each message was going to; '' is the
    /// default exchange, whose keys are names of queues
    #[arg(long, value_name = "NAME", conflicts_with = "body")]
    to_exchange: Option<String>,
    /// Publish into this queue alone, wherever each message was going to
    #[arg(long, value_name = "NAME", value_parser = queue_name, conflicts_with_all = ["body", "to_exchange"])]
    to_queue: Option<String>,
    /// Send the corrected body in this file in place of one message
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    body: Option<PathBuf>,
}

/// Goes once through the messages that are in the queue now.
pub async fn run(target: &QueueTarget, arguments: &Arguments) -> anyhow::Result<Exit> {
    let pass = &arguments.pass;
    let advice = "give ids, filters such as --reason, or --all; --dry-run shows what would be done";
    let selection = pass.selection.selection(&pass.at.zone.clock()?, advice)?;
    let action = Action::Replay {
        destination: destination(target, arguments)?,
        body: read_body(target, arguments)?,
        is_dry_run: arguments.dry_run,
    };
    report::run(target, &selection, &action, pass.json).await
}

fn destination(target: &QueueTarget, arguments: &Arguments) -> anyhow::Result<Destination> {
    let Some(queue) = &arguments.to_queue else {
        let exchange = arguments.to_exchange.clone();
        return Ok(exchange.map_or(Destination::Original, Destination::Exchange));
    };
    let advice = "--to-queue with the queue of a consumer";
    if *queue == target.queue {
        let problem = format!("--to-queue {queue}: the messages are in this queue already");
        return Err(usage_error(problem, advice));
    }
    if *queue == target.config.dead_letter.exchange {
        let problem = format!("--to-queue {queue}: this is the dead-letter queue");
        return Err(usage_error(problem, advice));
    }
    Ok(Destination::Queue(queue.clone()))
}

fn read_body(target: &QueueTarget, arguments: &Arguments) -> anyhow::Result<Option<Bytes>> {
    let Some(file) = &arguments.body else {
        return Ok(None);
    };
    if arguments.pass.selection.ids.len() != 1 {
        let advice = "`deskbridge dead-letters replay --body FILE ID`";
        return Err(usage_error("--body is for one message", advice));
    }
    let doing = format!("reading the corrected body `{}`", file.display());
    let body = std::fs::read(file).map_err(|why| failed(&doing, why, "name a file"))?;
    let body = Bytes::from(body);
    corrected::check(&target.config, &body).map_err(|why| {
        let advice = "write one chat session with `id` and `status`, or an array of them";
        failed(&doing, why, advice)
    })?;
    Ok(Some(body))
}
