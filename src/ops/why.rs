//! Where the events of a session are, and what keeps them there: the journal, the running bridge and
//! the broker's management API, compared.

mod diagnosis;

use uuid::Uuid;

pub use self::diagnosis::{Diagnosis, Evidence};
use super::check;
use super::running_bridge::{self, Answered};
use crate::config::Config;
use crate::journal::JournalError;
use crate::journal::archive::{Archive, Entry, Selection};

/// Events that are explained at most, the newest ones.
const EVENTS_MAX: usize = 200;

/// The events of a session, or of every session that an event with this `message_id` belongs to.
///
/// # Errors
/// The journal cannot be read.
pub fn events(archive: &Archive, asked: &str) -> Result<Vec<Entry>, JournalError> {
    if let Ok(message_id) = Uuid::try_parse(asked) {
        let with_id = Selection {
            message_id: Some(message_id),
            ..Selection::default()
        };
        let found = archive.last(&with_id, EVENTS_MAX)?;
        let sessions = found.iter().filter_map(|entry| entry.event.session());
        let mut sessions: Vec<_> = sessions.map(ToOwned::to_owned).collect();
        sessions.dedup();
        if !sessions.is_empty() {
            return of_sessions(archive, sessions);
        }
        // Also a reject, which has no session. A session id may be a UUID, too.
        if !found.is_empty() {
            return Ok(found);
        }
    }
    of_sessions(archive, vec![asked.to_owned()])
}

fn of_sessions(archive: &Archive, sessions: Vec<String>) -> Result<Vec<Entry>, JournalError> {
    let selection = Selection {
        sessions,
        ..Selection::default()
    };
    archive.last(&selection, EVENTS_MAX)
}

/// Queries the running bridge and the broker's management API about these events.
pub async fn inspect(config: &Config, entries: Vec<Entry>) -> Evidence {
    let (running, snapshot) = tokio::join!(running_bridge::ask(config), check::snapshot(config));
    Evidence {
        entries,
        running: running.map(|answered| answered.map(|Answered { status, .. }| status)),
        snapshot,
        retention: config.journal.retention,
    }
}
