//! Runs a pass, prints what it does with each message, and sums up at its end.

use deskbridge::foreign;
use deskbridge::ops::dead_letters::{
    self, Action, Disposition, HandledMessage, MessageSelection, PassResult, QueueTarget,
};
use serde_json::json;
use tokio::sync::mpsc;

use super::{say_none, say_unbrowsed};
use crate::cli::output::{OutputClosed, Printer, say};
use crate::cli::{Exit, interrupt};

/// Runs a pass until it is complete, a signal arrives or the output is closed. Returns the exit
/// code.
///
/// # Errors
/// If the pass ended early because of an error.
pub async fn run(
    target: &QueueTarget,
    selection: &MessageSelection,
    action: &Action,
    is_json: bool,
) -> anyhow::Result<Exit> {
    let (outcome, verb) = match action {
        Action::Discard { .. } => ("discarded", "discarded"),
        Action::Replay { is_dry_run, .. } if *is_dry_run => ("would replay", "would be replayed"),
        Action::Replay { .. } => ("replayed", "replayed"),
    };
    let interrupted = interrupt::listen()?;
    let mut printer = Printer::start(is_json)?;
    let (reports, mut handled) = mpsc::channel(1);
    let printing = async move {
        loop {
            let next = tokio::select! {
                biased;
                () = printer.unread() => return printer,
                next = handled.recv() => next,
            };
            let Some(next) = next else { return printer };
            // A closed output is noticed above.
            let _ = printer.send(line(&next, outcome, is_json)).await;
        }
    };
    let pass = dead_letters::run(target, selection, action, reports, interrupted);
    let (result, mut printer) = tokio::join!(pass, printing);
    let result = result?;
    if let Err(error) = printer.finish().await
        && !error.is::<OutputClosed>()
    {
        say(format_args!("error: {error:#}"));
    }
    let exit = sum_up(target, verb, &result);
    result.error.map_or(Ok(exit), Err)
}

/// Prints a summary on standard error and returns the exit code.
fn sum_up(target: &QueueTarget, verb: &str, result: &PassResult) -> Exit {
    let queue = &target.queue;
    let (done, kept, in_doubt) = (result.done, result.kept, result.in_doubt);
    let Some(browsed) = result.complete else {
        say(format_args!(
            "interrupted: {done} {verb}, everything else is still in queue `{queue}`"
        ));
        if in_doubt > 0 {
            say(format_args!(
                "except {in_doubt} that may be gone: the connection was lost before that was certain"
            ));
        }
        return Exit::No;
    };
    say_unbrowsed(target, browsed);
    for id in &result.missing {
        say(format_args!("queue `{queue}` has no message `{id}`"));
    }
    if done + kept > 0 {
        say(format_args!(
            "{done} {verb}, {kept} kept in queue `{queue}`"
        ));
    } else if result.missing.is_empty() {
        say_none(target, browsed.waiting);
    }
    if let Some(again) = result.unrouted_again {
        let (count, least) = (again.count, if again.is_exact { "" } else { "at least " });
        let (messages, their) = match count {
            1 => ("message is", "its key"),
            _ => ("messages are", "their keys"),
        };
        say(format_args!(
            "{least}{count} {messages} in queue `{queue}` again: no queue is bound for {their} yet (`deskbridge check` shows the bindings)"
        ));
    }
    let is_all_done = done > 0 && kept == 0 && result.missing.is_empty();
    Exit::of(is_all_done && result.unrouted_again.is_none())
}

/// A line about one message, as JSON or for people. `outcome` is that of a message that is done.
fn line(handled: &HandledMessage, outcome: &str, is_json: bool) -> String {
    let summary = &handled.summary;
    let doubt = if handled.is_certain { "" } else { "perhaps " };
    let outcome = format!("{doubt}{outcome}");
    if is_json {
        let mut object = match &handled.disposition {
            Disposition::Done(routes) => json!({
                "outcome": outcome,
                "exchange": routes.first().map(|route| &*route.exchange),
                "routing_key": routes.first().map(|route| &*route.routing_key),
            }),
            Disposition::Kept(why) => json!({"outcome": "kept", "why": why}),
        };
        object["id"] = summary.id.clone().into();
        object["position"] = summary.position.into();
        return format!("{object}\n");
    }
    let name = summary.name();
    let name = foreign::line(&name);
    match &handled.disposition {
        Disposition::Done(routes) => {
            let to = routes.iter().map(|route| match &*route.exchange {
                "" => format!("queue {}", route.routing_key),
                exchange => format!("{exchange} {}", route.routing_key),
            });
            let to = to.collect::<Vec<_>>().join(", ");
            let before = if routes.is_empty() { "" } else { " to " };
            format!("{outcome} {name}{before}{}\n", foreign::line(&to))
        }
        Disposition::Kept(why) => format!("kept {name}: {}\n", foreign::line(why)),
    }
}
