//! `events list`: prints events in the order of receipt.

use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use deskbridge::journal::Seq;
use deskbridge::journal::archive::{Archive, Entry, Selection};

use super::filters::Filters;
use super::line::{self, Table};
use super::{open, routing, unreadable};
use crate::cli::{Exit, Layering, print, runtime};

/// How often new events are looked for.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

const AFTER_HELP: &str = "\
Oldest first. A state is one of unsettled (it waits for the broker), published, dead-lettered. It \
is what the bridge has done with the event and stays as it is: a dead letter that was replayed or discarded \
(`deskbridge dead-letters`) is dead-lettered here for ever, since that happens in RabbitMQ. Finding nothing is \
no error.

Examples:
  deskbridge events list --session 1530162945-9852
  deskbridge events list --since 2h --until 30m --status missed --json
  deskbridge events list --limit 20 --follow";

/// Arguments of `events list`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(flatten)]
    filters: Filters,
    /// Only the last N of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: Option<u32>,
    /// Go on with new ones as they are received, until Ctrl-C
    #[arg(long, conflicts_with_all = ["until", "state"])]
    follow: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints what is selected.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = layering.peek()?;
    let archive = open(&config)?;
    let selection = arguments.filters.selection(&routing(&config)?);
    let mut list = List {
        archive,
        selection,
        table: (!arguments.json).then(Table::of_output),
        is_begun: false,
    };
    let newest = list.archive.newest().map_err(unreadable)?;
    list.selection.seq_max = Some(newest);
    match arguments.limit {
        Some(limit) => list.print_last(limit as usize)?,
        None => drop(list.print_after(0)?),
    }
    if arguments.follow {
        list.selection.seq_max = None;
        return runtime()?.block_on(list.follow(newest));
    }
    if !list.is_begun {
        eprintln!("no such event in `{}`", config.journal.dir.display());
        if arguments.filters.has_session() {
            eprintln!(
                "an invalid element is not found by its session: `deskbridge events list --status invalid`"
            );
        }
    }
    Ok(Exit::Done)
}

struct List {
    archive: Archive,
    selection: Selection,
    table: Option<Table>,
    is_begun: bool,
}

impl List {
    async fn follow(mut self, newest: Seq) -> anyhow::Result<Exit> {
        let mut after = newest;
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
                () = tokio::time::sleep(FOLLOW_PAUSE) => {}
            }
            // Before what is selected is read, so that nothing falls in between.
            let newest = self.archive.newest().map_err(unreadable)?;
            self.selection.seq_max = Some(newest);
            self.print_after(after)?;
            after = after.max(newest);
        }
    }

    fn print_last(&mut self, events_max: usize) -> anyhow::Result<()> {
        let entries = self.archive.last(&self.selection, events_max);
        self.print(&entries.map_err(unreadable)?)
    }

    fn print_after(&mut self, after: Seq) -> anyhow::Result<()> {
        let mut next = Some(after);
        while let Some(after) = next {
            let page = self.archive.page(&self.selection, after, false);
            let page = page.map_err(unreadable)?;
            self.print(&page.entries)?;
            next = page.next;
        }
        Ok(())
    }

    fn print(&mut self, entries: &[Entry]) -> anyhow::Result<()> {
        let mut text = String::new();
        if let Some(table) = self.table
            && !self.is_begun
            && !entries.is_empty()
        {
            text.push_str(&table.head());
        }
        self.is_begun |= !entries.is_empty();
        for entry in entries {
            match self.table {
                Some(table) => text.push_str(&table.row(entry)),
                None => drop(writeln!(text, "{}", line::json(entry))),
            }
        }
        print(&text)
    }
}
