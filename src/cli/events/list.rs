//! `events list`: prints one line per event, in the order of receipt.

use std::time::Duration;

use clap::Args;
use deskbridge::journal::Seq;
use deskbridge::journal::archive::{Archive, Entry, Selection};
use deskbridge::ops::routing;

use super::filters::{Filters, after_help};
use super::{line, open, say_lag, unreadable};
use crate::cli::output::{Printer, print_as, say};
use crate::cli::table::Table;
use crate::cli::time::{Clock, Zone};
use crate::cli::{ConfigArguments, Exit, interrupt, runtime};

/// Pause between two reads of new events with `--follow`.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

const AFTER_HELP: &str = "\
Events are printed in the order of receipt, the oldest first. The state is what the bridge did with the event. \
A dead letter that was replayed or discarded with `deskbridge dead-letters` stays dead-lettered here, because \
that happens in RabbitMQ. Exits with 0 also if nothing was found.

Examples:
  deskbridge events list --session 1530162945-9852
  deskbridge events list --since 2h --until 30m --status missed --json
  deskbridge events list --since 'yesterday 14:05' --until today
  deskbridge events list --company 'kauri timber' --grep printer
  deskbridge events list --limit 20 --follow";

/// Arguments of `events list`.
#[derive(Debug, Args)]
#[command(after_help = after_help(AFTER_HELP))]
pub struct Arguments {
    #[command(flatten)]
    filters: Filters,
    /// Print only the last N events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: Option<u32>,
    /// Continue with new events as they are received, until Ctrl-C
    #[arg(long, conflicts_with_all = ["until", "state"])]
    follow: bool,
    #[command(flatten)]
    zone: Zone,
    /// Print one JSON object per line, times in UTC
    #[arg(long)]
    json: bool,
}

/// Prints the selected events.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let clock = arguments.zone.clock()?;
    let config = layering.peek()?;
    let archive = open(&config)?;
    let mut selection = arguments.filters.selection(&routing(&config)?, &clock)?;
    let newest = archive.newest().map_err(unreadable)?;
    selection.seq_max = Some(newest);
    say_lag(&archive, &selection)?;
    let mut lines = Lines {
        table: (!arguments.json).then(line::table),
        clock,
        is_begun: false,
    };
    match arguments.limit {
        Some(limit) => {
            let entries = archive.last(&selection, limit as usize);
            lines.print(&entries.map_err(unreadable)?)?;
        }
        None => {
            for entries in archive.pages(&selection, 0, false) {
                lines.print(&entries.map_err(unreadable)?)?;
            }
        }
    }
    if arguments.follow {
        return runtime()?.block_on(async {
            let interrupted = interrupt::listen()?;
            tokio::select! {
                result = follow(&archive, selection, newest, lines) => result,
                () = interrupted.cancelled() => Ok(Exit::Done),
            }
        });
    }
    if !lines.is_begun {
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

async fn follow(
    archive: &Archive,
    mut selection: Selection,
    newest: Seq,
    mut lines: Lines,
) -> anyhow::Result<Exit> {
    let mut printer = Printer::start(lines.table.is_none())?;
    let mut after = newest;
    loop {
        tokio::select! {
            () = printer.unread() => return Err(printer.error()),
            () = tokio::time::sleep(FOLLOW_PAUSE) => {}
        }
        // Read before the pages, so that no event between the two reads is skipped.
        let newest = archive.newest().map_err(unreadable)?;
        selection.seq_max = Some(newest);
        for entries in archive.pages(&selection, after, false) {
            let entries = entries.map_err(unreadable)?;
            if !entries.is_empty() {
                printer.send(lines.text(&entries)).await?;
            }
        }
        after = after.max(newest);
    }
}

/// The lines of a table, or of JSON.
struct Lines {
    table: Option<Table>,
    clock: Clock,
    is_begun: bool,
}

impl Lines {
    fn print(&mut self, entries: &[Entry]) -> anyhow::Result<()> {
        print_as(self.table.is_none(), &self.text(entries))
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
                text + &line::json(entry, false).to_string() + "\n"
            }),
        }
    }
}
