//! How the result of a replay is printed.

use deskbridge::foreign;
use deskbridge::journal::JournalError;
use deskbridge::ops::counted;
use deskbridge::ops::replay::{Ended, ReplayCounts, UNCONFIRMED};

/// The line for standard output.
pub fn confirmed(counts: &ReplayCounts) -> String {
    format!("{} confirmed\n", counted(counts.confirmed, "event"))
}

/// Lines for standard error about everything that was not confirmed.
pub fn unconfirmed(counts: &ReplayCounts) -> String {
    let about = |count: u64, what: &str| {
        (count > 0).then(|| format!("{} {what}\n", counted(count, "event")))
    };
    let failures = counts.first_failures.iter().map(|failure| {
        let reason = foreign::line(&failure.reason);
        format!("  event {}: {reason}\n", failure.seq)
    });
    let has_more = counts.failures > counts.first_failures.len() as u64;
    let ended = ended(&counts.ended).map(|sentence| {
        format!("{sentence}; events that are replayed again have the same message_id\n")
    });
    [
        about(
            counts.pending,
            "left to the bridge, which has still to publish them",
        ),
        about(
            counts.rejects,
            "left out: not chat sessions, but invalid or malformed",
        ),
        about(counts.failures, "not replayed:"),
        Some(failures.collect()),
        has_more.then(|| "  …\n".to_owned()),
        about(
            counts.unknown,
            "published but not confirmed: they may or may not have arrived",
        ),
        ended,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn ended(ended: &Ended) -> Option<String> {
    match ended {
        Ended::Complete => None,
        Ended::Interrupted => Some("interrupted".into()),
        Ended::BrokerAway => {
            Some("the connection to the broker was lost and did not come back".into())
        }
        Ended::Unconfirmed => Some(UNCONFIRMED.into()),
        Ended::Unreadable(JournalError::Locked(why)) => Some(why.clone()),
        Ended::Unreadable(why) => Some(format!("{why} failed: check the journal's disk")),
    }
}
