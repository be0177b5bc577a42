//! `pause` and `resume`: stop and start publishing, while webhooks are accepted.

use clap::Args;
use deskbridge::config::Config;
use deskbridge::journal::PauseFile;
use deskbridge::telemetry::status::Pause;
use jiff::Timestamp;

use super::failure::{cannot_open, usage_error};
use super::output::say;
use super::time::{Clock, Zone};
use super::{ConfigArguments, Exit};

const PAUSE_HELP: &str = "\
While publishing is paused, webhooks are accepted and their events wait in the journal; `journal.backlog_bytes_max` \
still applies. What is in flight is not affected. A pause survives restarts. It is shown by `deskbridge status`, in \
/status, in the metric `deskbridge_paused` and in the log. A running bridge notices it within a second, a stopped one \
at its next start. Without a routing key, everything is paused, dead letters too.

Run it as the user who owns the journal.

Examples:
  deskbridge pause
  deskbridge pause chat-session.missed
  deskbridge pause --exchange chat-sessions.dead-letter";

const RESUME_HELP: &str = "\
Without a routing key and exchange, all pauses end. Otherwise the pause ends that was set with the same ones. The \
events that have waited are published in order.

Run it as the user who owns the journal.

Examples:
  deskbridge resume
  deskbridge resume chat-session.missed";

/// Which routes a command applies to.
#[derive(Debug, Clone, Default, Args)]
pub struct Routes {
    /// Only routes with this routing key, such as chat-session.missed
    #[arg(value_name = "KEY")]
    routing_key: Option<String>,
    /// Only routes of this exchange
    #[arg(long, value_name = "NAME")]
    exchange: Option<String>,
}

/// Arguments of `pause`.
#[derive(Debug, Args)]
#[command(after_help = PAUSE_HELP)]
pub struct PauseArguments {
    #[command(flatten)]
    routes: Routes,
    #[command(flatten)]
    zone: Zone,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
#[command(after_help = RESUME_HELP)]
pub struct ResumeArguments {
    #[command(flatten)]
    routes: Routes,
    #[command(flatten)]
    zone: Zone,
}

/// Adds a pause, unless it is already in force.
pub fn pause(layering: &ConfigArguments, arguments: &PauseArguments) -> anyhow::Result<Exit> {
    let (config, clock) = (layering.peek()?, arguments.zone.clock()?);
    let wanted = arguments.routes.pause(clock.now());
    let mut since = wanted.since;
    change(&config, |pauses| {
        match pauses.iter().find(|one| is_same(one, &wanted)) {
            Some(known) => since = known.since,
            None => pauses.push(wanted.clone()),
        }
        Ok(())
    })?;
    let what = wanted.subject();
    say(format_args!(
        "{what} paused since {}; `deskbridge resume` publishes again",
        clock.show(since)
    ));
    Ok(Exit::Done)
}

/// Removes a pause, or all of them.
pub fn resume(layering: &ConfigArguments, arguments: &ResumeArguments) -> anyhow::Result<Exit> {
    let (config, clock) = (layering.peek()?, arguments.zone.clock()?);
    let wanted = arguments.routes.pause(clock.now());
    let mut ended = Vec::new();
    change(&config, |pauses| {
        let is_ended = |one: &mut Pause| wanted.is_of_everything() || is_same(one, &wanted);
        ended = pauses.extract_if(.., is_ended).collect();
        if ended.is_empty() && !wanted.is_of_everything() {
            return Err(not_paused(&wanted, pauses, &clock));
        }
        Ok(())
    })?;
    for pause in &ended {
        say(format_args!(
            "{} resumed; was paused since {}",
            pause.subject(),
            clock.show(pause.since)
        ));
    }
    if ended.is_empty() {
        say("nothing was paused");
    }
    Ok(Exit::Done)
}

fn change(
    config: &Config,
    change: impl FnOnce(&mut Vec<Pause>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let file = PauseFile::of(&config.journal.dir);
    file.change(change)
        .map_err(|why| cannot_open(config, why))?
}

fn not_paused(wanted: &Pause, pauses: &[Pause], clock: &Clock) -> anyhow::Error {
    let known = pauses
        .iter()
        .map(|one| format!("{} since {}", one.subject(), clock.show(one.since)));
    let known: Vec<_> = known.collect();
    let advice = if known.is_empty() {
        "nothing is paused".into()
    } else {
        format!("paused: {}", known.join(", "))
    };
    usage_error(format!("{} is not paused", wanted.subject()), advice)
}

impl Routes {
    fn pause(&self, since: Timestamp) -> Pause {
        let text = |text: &Option<String>| text.as_deref().map(Into::into);
        Pause {
            exchange: text(&self.exchange),
            routing_key: text(&self.routing_key),
            since,
        }
    }
}

fn is_same(one: &Pause, other: &Pause) -> bool {
    (&one.exchange, &one.routing_key) == (&other.exchange, &other.routing_key)
}
