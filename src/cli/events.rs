//! `events`: looks into the journal beside a running bridge, or without one, and publishes again
//! what it holds.

mod discard;
mod filters;
mod line;
mod list;
mod replay;
mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use deskbridge::config::Config;
use deskbridge::journal::archive::Archive;
use deskbridge::journal::{Seq, TakeError, VisitError, Wish, WishList};
use deskbridge::webhook::routing::Routing;

use super::failure::failed;
use super::{Exit, Layering};
use filters::Id;

const AFTER_HELP: &str = "\
Works on the journal in `journal.dir`, beside a running bridge or without one, as the user who owns it. \
Events that are settled are kept for `journal.retention`.

Example:
  deskbridge events list --since 2h --state dead-lettered";

/// Arguments of `events`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print events in the order of receipt
    List(super::With<list::Arguments>),
    /// Print everything about one event
    Show(super::With<show::Arguments>),
    /// Publish events again
    Replay(super::With<replay::Arguments>),
    /// Give events that are exempt from retention up to it
    Discard(super::With<discard::Arguments>),
}

/// Runs the command behind the command.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let layers = |behind: &Layering| layering.clone().and(behind);
    match &arguments.what {
        What::List(with) => list::run(&layers(&with.layering), &with.arguments),
        What::Show(with) => show::run(&layers(&with.layering), &with.arguments),
        What::Replay(with) => replay::run(&layers(&with.layering), &with.arguments),
        What::Discard(with) => discard::run(&layers(&with.layering), &with.arguments),
    }
}

/// How long to wait for a running bridge: some of its ticks.
const GRANT_PATIENCE: Duration = Duration::from_secs(2);

fn open(config: &Config) -> anyhow::Result<Archive> {
    Archive::open(&config.journal.dir).map_err(|why| cannot_open(config, why))
}

fn open_wishes(config: &Config) -> anyhow::Result<WishList> {
    WishList::open(&config.journal.dir).map_err(|why| cannot_open(config, why))
}

fn cannot_open(config: &Config, why: VisitError) -> anyhow::Error {
    let advice = match &why {
        VisitError::Missing(_) => {
            "is it the bridge's configuration (--config), and has the bridge ever been started?"
        }
        VisitError::Directory(_) => "run it as the user of the bridge, on the bridge's machine",
        VisitError::Schema(_) => {
            "use the release that the bridge runs; an older journal is brought up to date by `deskbridge serve`"
        }
        VisitError::Sqlite(_) => "look at the disk and at the bridge's log",
    };
    let dir = config.journal.dir.display();
    failed(format!("opening the journal in `{dir}`"), why, advice)
}

fn unreadable(why: TakeError) -> anyhow::Error {
    failed(
        "reading the journal",
        why,
        "look at the disk and at the bridge's log",
    )
}

fn routing(config: &Config) -> anyhow::Result<Routing> {
    Routing::new(&config.routing, &config.dead_letter).map_err(|errors| {
        let problem = errors.iter().map(ToString::to_string);
        let problem = problem.collect::<Vec<_>>().join("; ");
        failed("reading `routing`", problem, "`deskbridge check`")
    })
}

/// The events of these ids; an id that is not there is an error.
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

/// Leaves wishes for the bridge's writer; says whether it has granted them.
fn leave(wishes: &mut WishList, wanted: Vec<Wish>) -> Result<bool, TakeError> {
    wishes.leave(wanted)?;
    let begin = std::time::Instant::now();
    while begin.elapsed() < GRANT_PATIENCE {
        if wishes.is_granted()? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}
