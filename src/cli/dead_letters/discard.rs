//! `dead-letters discard`: removes messages for good.

use std::io::{IsTerminal, stdin};
use std::ops::ControlFlow;

use clap::Args;
use deskbridge::rabbitmq::queue::Queue;

use super::interrupt::Interrupt;
use super::report::Report;
use super::summary::Summary;
use super::{Aim, Place, look};
use crate::cli::Exit;
use crate::cli::failure::misused;
use crate::cli::output::{ask, say};

pub const AFTER_HELP: &str = "\
Asks before it removes anything; without a terminal it needs --yes. The others keep their order.

Examples:
  deskbridge dead-letters discard 53d46ec3-435e-8633-874a-52aaacb9ecc7
  deskbridge dead-letters discard --reason malformed --until 30d --yes";

/// Arguments of `dead-letters discard`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) aim: Aim,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Asks if need be, then goes once through what is in the queue.
pub async fn run(place: &Place, arguments: &Arguments) -> anyhow::Result<Exit> {
    if arguments.aim.selection.is_empty() {
        let advice = "ids, filters such as --reason, or --all";
        return Err(misused("which messages?", advice));
    }
    let mut most = u64::MAX;
    if !arguments.yes {
        if !stdin().is_terminal() {
            let advice = "--yes, after a look with `deskbridge dead-letters list`";
            return Err(misused("nobody is there to be asked", advice));
        }
        most = count(place, arguments).await?;
        if most > 0 && !is_agreed(place, most)? {
            say("nothing was discarded");
            return Ok(Exit::No);
        }
    }
    let interrupt = Interrupt::listen()?;
    let mut queue = look::open(place).await?;
    let mut report = Report::new(place, &arguments.aim)?;
    let result = pass(place, arguments, &mut queue, &mut report, &interrupt, most).await;
    let waiting = queue.waiting();
    look::tell_untaken(place, &queue, matches!(result, Ok(true)));
    let closed = report.close(queue).await;
    let end = match result {
        Ok(true) => report.end("discarded", waiting).await,
        _ => report.end_early("discarded").await,
    }?;
    result?;
    closed?;
    Ok(end)
}

/// Whether it came to its end. Removes no more than so many: those that were asked about.
async fn pass(
    place: &Place,
    arguments: &Arguments,
    queue: &mut Queue,
    report: &mut Report<'_>,
    interrupt: &Interrupt,
    most: u64,
) -> anyhow::Result<bool> {
    let dead = arguments.aim.selection.filters.dead(&place.clock)?;
    loop {
        let window = queue.take().await;
        let window = window.map_err(|error| look::told(place, error))?;
        report.tell(queue).await;
        if window.is_empty() {
            return Ok(true);
        }
        for letter in window {
            if interrupt.is_set() || report.is_unread() {
                return Ok(false);
            }
            let summary = Summary::of(&letter, place.holding());
            if !arguments.aim.selection.takes(&summary, dead) || report.count() == most {
                continue;
            }
            report.meet(&summary);
            let removed = queue.remove(&letter).await;
            report.done("discarded", summary, Vec::new(), queue.removed());
            removed.map_err(|error| look::told(place, error))?;
        }
    }
}

async fn count(place: &Place, arguments: &Arguments) -> anyhow::Result<u64> {
    let dead = arguments.aim.selection.filters.dead(&place.clock)?;
    let mut queue = look::open(place).await?;
    let mut count = 0;
    let looked = look::each(&mut queue, |letter| {
        let summary = Summary::of(&letter, place.holding());
        count += u64::from(arguments.aim.selection.takes(&summary, dead));
        ControlFlow::Continue(())
    });
    looked.await.map_err(|error| look::told(place, error))?;
    queue
        .close()
        .await
        .map_err(|error| look::told(place, error))?;
    Ok(count)
}

fn is_agreed(place: &Place, count: u64) -> anyhow::Result<bool> {
    let messages = if count == 1 { "message" } else { "messages" };
    ask(format_args!(
        "discard {count} {messages} of queue `{}` for good? [y/N]",
        place.queue
    ));
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
