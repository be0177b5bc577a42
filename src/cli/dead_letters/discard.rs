//! `dead-letters discard`: removes messages for good.

use std::io::{IsTerminal, stdin};
use std::ops::ControlFlow;

use clap::Args;
use deskbridge::ops::counted;
use deskbridge::ops::dead_letters::{Action, MessageSelection, QueueTarget};

use super::{PassArguments, report};
use crate::cli::Exit;
use crate::cli::failure::usage_error;
use crate::cli::output::{ask, say};

pub const AFTER_HELP: &str = "\
Asks before it removes anything; without a terminal it needs --yes. The other messages keep their order.

Examples:
  deskbridge dead-letters discard 53d46ec3-435e-8633-874a-52aaacb9ecc7
  deskbridge dead-letters discard --reason malformed --until 30d --yes";

/// Arguments of `dead-letters discard`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) pass: PassArguments,
    /// Discard without asking
    #[arg(long)]
    yes: bool,
}

/// Asks unless `--yes` is given, then goes once through the messages that are in the queue now.
pub async fn run(target: &QueueTarget, arguments: &Arguments) -> anyhow::Result<Exit> {
    let pass = &arguments.pass;
    let advice = "give ids, filters such as --reason, or --all";
    let selection = pass.selection.selection(&pass.at.zone.clock()?, advice)?;
    // At most those that the user agreed to.
    let mut messages_max = u64::MAX;
    if !arguments.yes {
        if !stdin().is_terminal() {
            let advice = "use --yes, after checking with `deskbridge dead-letters list`";
            return Err(usage_error("there is no terminal to ask on", advice));
        }
        messages_max = count(target, &selection).await?;
        if messages_max > 0 && !is_agreed(target, messages_max)? {
            say("nothing was discarded");
            return Ok(Exit::No);
        }
    }
    let action = Action::Discard { messages_max };
    report::run(target, &selection, &action, pass.json).await
}

async fn count(target: &QueueTarget, selection: &MessageSelection) -> anyhow::Result<u64> {
    let mut count = 0;
    let visit = |_, summary| {
        count += u64::from(selection.selects(&summary));
        ControlFlow::Continue(())
    };
    target.browse(visit).await?;
    Ok(count)
}

fn is_agreed(target: &QueueTarget, count: u64) -> anyhow::Result<bool> {
    let messages = counted(count, "message");
    ask(format_args!(
        "discard {messages} of queue `{}` for good? [y/N]",
        target.queue
    ));
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
