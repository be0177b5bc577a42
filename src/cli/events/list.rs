//! `events list`: prints events in the order of receipt.

use std::time::Duration;

use clap::Args;
use deskbridge::journal::Seq;
use deskbridge::journal::archive::{Archive, Entry, Selection};

use super::filters::Filters;
use super::{line, open, routing, unreadable};
use crate::cli::output::{Printer, print, print_json, say};
use crate::cli::table::Table;
use crate::cli::time::{Clock, Zone};
use crate::cli::{Exit, Layering, runtime};

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
  deskbridge events list --since 'yesterday 14:05' --until today
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
    #[command(flatten)]
    zone: Zone,
    /// One JSON object a line, times in UTC
    #[arg(long)]
    json: bool,
}

/// Prints what is selected.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let clock = arguments.zone.clock()?;
    let config = layering.peek()?;
    let archive = open(&config)?;
    let selection = arguments.filters.selection(&routing(&config)?, &clock)?;
    let mut list = List {
        archive,
        selection,
        table: (!arguments.json).then(line::table),
        clock,
        is_begun: false,
    };
    let newest = list.archive.newest().map_err(unreadable)?;
    list.selection.seq_max = Some(newest);
    match arguments.limit {
        Some(limit) => list.print_last(limit as usize)?,
        None => list.print_all()?,
    }
    if arguments.follow {
        list.selection.seq_max = None;
        return runtime()?.block_on(async {
            tokio::select! {
                result = list.follow(newest) => result,
                _ = tokio::signal::ctrl_c() => Ok(Exit::Done),
            }
        });
    }
    if !list.is_begun {
        say(format_args!(
            "no such event in `{}`",
            config.journal.dir.display()
        ));
        if arguments.filters.has_session() {
            say(
                "an invalid element is not found by its session: `deskbridge events list --status invalid`",
            );
        }
    }
    Ok(Exit::Done)
}

struct List {
    archive: Archive,
    selection: Selection,
    table: Option<Table>,
    clock: Clock,
    is_begun: bool,
}

impl List {
    async fn follow(mut self, newest: Seq) -> anyhow::Result<Exit> {
        let mut printer = Printer::start(self.table.is_none())?;
        let mut after = newest;
        loop {
            tokio::select! {
                () = printer.unread() => return Err(printer.error()),
                () = tokio::time::sleep(FOLLOW_PAUSE) => {}
            }
            // Before what is selected is read, so that nothing falls in between.
            let newest = self.archive.newest().map_err(unreadable)?;
            self.selection.seq_max = Some(newest);
            let mut next = Some(after);
            while let Some(after) = next {
                let page = self.archive.page(&self.selection, after, false);
                let page = page.map_err(unreadable)?;
                if !page.entries.is_empty() {
                    let text = self.text(&page.entries);
                    printer.send(text).await?;
                }
                next = page.next;
            }
            after = after.max(newest);
        }
    }

    fn print_last(&mut self, events_max: usize) -> anyhow::Result<()> {
        let entries = self.archive.last(&self.selection, events_max);
        self.print(&entries.map_err(unreadable)?)
    }

    fn print_all(&mut self) -> anyhow::Result<()> {
        let mut next = Some(0);
        while let Some(after) = next {
            let page = self.archive.page(&self.selection, after, false);
            let page = page.map_err(unreadable)?;
            self.print(&page.entries)?;
            next = page.next;
        }
        Ok(())
    }

    fn print(&mut self, entries: &[Entry]) -> anyhow::Result<()> {
        let text = self.text(entries);
        if self.table.is_some() {
            print(&text)
        } else {
            print_json(&text)
        }
    }

    fn text(&mut self, entries: &[Entry]) -> String {
        let is_first = !self.is_begun && !entries.is_empty();
        self.is_begun |= is_first;
        match self.table {
            Some(table) => {
                let rows: Vec<_> = entries
                    .iter()
                    .map(|entry| line::row(entry, &self.clock))
                    .collect();
                table.page(&rows, is_first)
            }
            None => entries.iter().fold(String::new(), |text, entry| {
                text + &line::json(entry).to_string() + "\n"
            }),
        }
    }
}
