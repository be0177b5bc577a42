//! `events export`: prints events with their bodies, one JSON object per line.

use clap::Args;
use deskbridge::ops::routing;

use super::filters::{Filters, after_help};
use super::{line, open, say_lag, unreadable};
use crate::cli::output::print_json;
use crate::cli::time::Zone;
use crate::cli::{ConfigArguments, Exit};

const AFTER_HELP: &str = "\
Prints the events that were in the journal when the command began, the oldest first. Each line is what \
`events show --json` prints: the fields of the event, its state, and its body.

Examples:
  deskbridge events export > events.ndjson
  deskbridge events export --since yesterday --status missed | jq .body";

/// Arguments of `events export`.
#[derive(Debug, Args)]
#[command(after_help = after_help(AFTER_HELP))]
pub struct Arguments {
    #[command(flatten)]
    filters: Filters,
    #[command(flatten)]
    zone: Zone,
}

/// Prints the selected events.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let clock = arguments.zone.clock()?;
    let config = layering.peek()?;
    let archive = open(&config)?;
    let mut selection = arguments.filters.selection(&routing(&config)?, &clock)?;
    selection.seq_max = Some(archive.newest().map_err(unreadable)?);
    say_lag(&archive, &selection)?;
    for entries in archive.pages(&selection, 0, true) {
        let entries = entries.map_err(unreadable)?;
        let lines: String = entries.iter().map(line::whole_json).collect();
        if !lines.is_empty() {
            print_json(&lines)?;
        }
    }
    Ok(Exit::Done)
}
