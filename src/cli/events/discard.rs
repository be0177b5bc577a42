//! `events discard`: events that are exempt from retention are given up to it.

use clap::Args;
use deskbridge::journal::{Seq, Wish};

use super::filters::Id;
use super::{find, leave, open, open_wishes, unreadable};
use crate::cli::failure::failed;
use crate::cli::output::{even_unread, print};
use crate::cli::{Exit, Layering};

const AFTER_HELP: &str = "\
A dead letter that was too large for the broker has no body: the event stays in the journal, exempt from \
retention, until it is replayed or discarded. The running bridge does it, at its next look; without one \
it happens when the bridge starts. Either all of the events are discarded or, if one of them is not \
exempt, none.

Example:
  deskbridge events discard 17";

/// Arguments of `events discard`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {
    /// Numbers of the events, as in the header `journal-event`
    #[arg(value_name = "SEQ", required = true, value_parser = clap::value_parser!(i64).range(1..))]
    seqs: Vec<Seq>,
}

/// Discards them.
pub fn run(layering: &Layering, arguments: &Arguments) -> anyhow::Result<Exit> {
    let config = layering.peek()?;
    let archive = open(&config)?;
    let ids: Vec<Id> = arguments.seqs.iter().copied().map(Id::Seq).collect();
    let seqs = find(&archive, &ids)?;
    let mut others = Vec::new();
    for seq in &seqs {
        let entry = archive.entry(*seq).map_err(unreadable)?;
        if !entry.is_some_and(|entry| entry.is_kept()) {
            others.push(seq.to_string());
        }
    }
    if !others.is_empty() {
        return Err(failed(
            "discarding events",
            format!("not exempt from retention: {}", others.join(", ")),
            "nothing is to be done: retention deletes them by itself",
        ));
    }
    let mut wishes = open_wishes(&config)?;
    let wanted = seqs.iter().copied().map(Wish::Release).collect();
    let is_granted = leave(&mut wishes, wanted).map_err(|why| {
        let advice = "look at the disk; nothing was changed";
        failed("writing into the journal", why, advice)
    })?;
    let (events, when) = match (seqs.len(), is_granted) {
        (1, true) => ("1 event".to_owned(), "given up to retention"),
        (1, false) => (
            "1 event".to_owned(),
            "will be given up to retention when the bridge runs",
        ),
        (count, true) => (format!("{count} events"), "given up to retention"),
        (count, false) => (
            format!("{count} events"),
            "will be given up to retention when the bridge runs",
        ),
    };
    even_unread(print(&format!("{events} {when}\n")))?;
    Ok(Exit::Done)
}
