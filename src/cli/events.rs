//! `events`: searches the journal, with or without a running bridge, and publishes its events
//! again.

mod discard;
mod export;
mod filters;
pub(super) mod line;
mod list;
mod replay;
mod show;

use std::sync::Arc;

use clap::{Args, Subcommand};
use deskbridge::config::Config;
use deskbridge::journal::archive::{Archive, Selection};
use deskbridge::journal::{ControlOutbox, Seq};
use deskbridge::ops::routing;

use super::failure::{cannot_open, failed, unreadable};
use super::output::say;
use super::{ConfigArguments, Exit};
use filters::Id;

const AFTER_HELP: &str = "\
Searches the journal in `journal.dir` and publishes its events again, with or without a running bridge. Run it \
as the user who owns the journal, with the release that the bridge runs. Published and dead-lettered events \
are in the journal for `journal.retention`.

Example:
  deskbridge events list --since 2h --state dead-lettered";

/// Arguments of `events`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: EventsCommand,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// Print one line per event, the oldest first
    List(super::With<list::Arguments>),
    /// Print everything about one event
    Show(super::With<show::Arguments>),
    /// Print events with their bodies, one JSON object per line
    Export(super::With<export::Arguments>),
    /// Publish events again
    Replay(super::With<replay::Arguments>),
    /// Make dead letters that were too large subject to retention again
    Discard(super::With<discard::Arguments>),
}

/// Runs the subcommand.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let layers = |behind: &ConfigArguments| layering.clone().and(behind);
    match &arguments.command {
        EventsCommand::List(with) => list::run(&layers(&with.layering), &with.arguments),
        EventsCommand::Show(with) => show::run(&layers(&with.layering), &with.arguments),
        EventsCommand::Export(with) => export::run(&layers(&with.layering), &with.arguments),
        EventsCommand::Replay(with) => replay::run(&layers(&with.layering), &with.arguments),
        EventsCommand::Discard(with) => discard::run(&layers(&with.layering), &with.arguments),
    }
}

fn open(config: &Config) -> anyhow::Result<Archive> {
    let routing = Arc::new(routing(config)?);
    Archive::open(&config.journal.dir, routing).map_err(|why| cannot_open(config, why))
}

fn open_outbox(config: &Config) -> anyhow::Result<ControlOutbox> {
    ControlOutbox::open(&config.journal.dir).map_err(|why| cannot_open(config, why))
}

/// Reports on standard error if a search takes longer because the archive is incomplete or missing.
fn say_lag(archive: &Archive, selection: &Selection) -> anyhow::Result<()> {
    if let Some(lag) = archive.lag(selection).map_err(unreadable)? {
        let (indexed, events) = (lag.indexed, lag.events);
        say(match lag.why {
            None => format!(
                "the search index (archive.db) is being built: {indexed} of {events} events are indexed; this search reads the rest, \
                 which takes longer"
            ),
            Some(why) => format!(
                "the search index (archive.db) cannot be used ({why}); this search reads all {events} events, which takes longer; \
                 a running bridge builds one"
            ),
        });
    }
    Ok(())
}

/// The events with these ids. It is an error if the journal has no event for one of them.
fn find(archive: &Archive, ids: &[Id]) -> anyhow::Result<Vec<Seq>> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for id in ids {
        let seqs = match id {
            Id::Seq(seq) => archive.entry(*seq).map(|entry| {
                let entry = entry.into_iter();
                entry.map(|entry| entry.seq).collect()
            }),
            Id::Message(message_id) => archive.with_message_id(*message_id),
        };
        let seqs: Vec<Seq> = seqs.map_err(unreadable)?;
        if seqs.is_empty() {
            missing.push(id.to_string());
        }
        found.extend(seqs);
    }
    if missing.is_empty() {
        return Ok(found);
    }
    Err(failed(
        "looking for events",
        format!("the journal has no event {}", missing.join(", ")),
        "`deskbridge events list`; retention may have deleted it",
    ))
}
