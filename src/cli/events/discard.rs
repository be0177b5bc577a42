//! `events discard`: makes events that are exempt from retention subject to it again.

use clap::Args;
use deskbridge::journal::ControlRequest;
use deskbridge::ops::{counted, leave_requests};

use super::filters::Id;
use super::{find, open, open_outbox, unreadable};
use crate::cli::failure::failed;
use crate::cli::output::{ignore_closed_output, print};
use crate::cli::{ConfigArguments, Exit};

const AFTER_HELP: &str = "\
The body of a dead letter with the reason too-large is only in the journal, where its event is exempt from \
retention until it is replayed or discarded. A running bridge discards it shortly afterwards; if none runs, the \
bridge does so at its next start. If one of the events is not exempt, none is discarded.

Example:
  deskbridge events discard 53d46ec3-435e-8633-874a-52aaacb9ecc7";

/// Arguments of `events discard`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// The message ids of the dead letters, or the numbers of the events
    #[arg(value_name = "SEQ|MESSAGE_ID", required = true)]
    ids: Vec<Id>,
}

/// Asks the bridge to discard the events.
pub fn run(layering: &ConfigArguments, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = layering.peek()?;
    let archive = open(&config)?;
    let seqs = find(&archive, &arguments.ids)?;
    let mut others = Vec::new();
    for seq in &seqs {
        let entry = archive.entry(*seq).map_err(unreadable)?;
        if !entry.is_some_and(|entry| entry.is_exempt()) {
            others.push(seq.to_string());
        }
    }
    if !others.is_empty() {
        return Err(failed(
            "discarding events",
            format!("not exempt from retention: {}", others.join(", ")),
            "nothing has to be done: retention deletes them by itself",
        ));
    }
    let mut outbox = open_outbox(&config)?;
    let requests = seqs.iter().copied().map(ControlRequest::Release).collect();
    let is_applied = leave_requests(&mut outbox, requests).map_err(|why| {
        let advice = "check the disk; nothing was changed";
        failed("writing into the journal", why, advice)
    })?;
    let events = counted(seqs.len(), "event");
    let when = if is_applied {
        "subject to retention again"
    } else {
        "will be subject to retention again when the bridge runs"
    };
    ignore_closed_output(print(&format!("{events} {when}\n")))?;
    Ok(Exit::Done)
}
