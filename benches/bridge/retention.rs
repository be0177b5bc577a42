//! A bridge whose journal is filled to `retention_bytes`, so that each new event causes the
//! deletion of an old one; next to it a bridge with an empty journal, and the forwarder.

use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::place::{ARRAY, CONNECTIONS, Place};
use crate::rounds::{Case, in_turn, told};
use crate::sender::Load;
use crate::settings::Settings;
use crate::subject::Subject;

const QUEUE: &str = "quorum";
const RETENTION_MIB: usize = 128;
/// Sessions per load while the journal is being filled.
const FILL: usize = 30_000;
/// A lower bound of a session's size on disk.
const SESSION_BYTES_MIN: usize = 1_000;
const FULL: &str = "bridge-full";
const CASES: [Case; 3] = [
    (FULL, QUEUE, ARRAY, CONNECTIONS),
    ("bridge", QUEUE, ARRAY, CONNECTIONS),
    ("forwarder", QUEUE, ARRAY, CONNECTIONS),
];

/// Measures all cases.
pub async fn measure(place: &Place, settings: &Settings) -> Value {
    let full = full(place).await;
    let rounds = in_turn(settings.rounds, &CASES, async |case| {
        let other = match case.0 {
            FULL => None,
            name => Some(Subject::usual(place, name).await),
        };
        let subject = other.as_ref().unwrap_or(&full);
        place.subscribe(QUEUE).await;
        subject.warm_up(place, QUEUE, settings.sessions).await;
        let before = oldest(place);
        let load = Load::new(subject.address(), settings.sessions, ARRAY, CONNECTIONS);
        let round = subject.serve(place, QUEUE, load).await;
        match other {
            Some(other) => other.end().await,
            None => assert_deleted(oldest(place) - before, settings.sessions),
        }
        round
    })
    .await;
    full.end().await;
    json!({
        "retention_mib": RETENTION_MIB,
        "cases": CASES.map(|case| told(case, &rounds)),
    })
}

/// A bridge that has begun to delete old events.
async fn full(place: &Place) -> Subject {
    let toml = format!("journal.retention_bytes = \"{RETENTION_MIB}MiB\"");
    let subject = Subject::bridge(place, &journal(place), &toml).await;
    place.subscribe(QUEUE).await;
    let loads_max = (RETENTION_MIB << 20) / (SESSION_BYTES_MIN * FILL) + 1;
    for _ in 0..loads_max {
        let load = Load::new(subject.address(), FILL, ARRAY, CONNECTIONS);
        subject.serve(place, QUEUE, load).await;
        if oldest(place) > 1 {
            return subject;
        }
    }
    panic!("the bridge keeps more than {RETENTION_MIB} MiB of completed events");
}

/// Panics unless at least half as many old events were deleted as new ones were received.
fn assert_deleted(deleted: i64, sessions: usize) {
    let deleted = usize::try_from(deleted).unwrap_or_default();
    assert!(
        deleted >= sessions / 2,
        "{sessions} events came in, {deleted} old ones were deleted"
    );
}

fn journal(place: &Place) -> PathBuf {
    place.dir.join("bench-journal-full")
}

/// The number of the oldest event in the full journal; the first event ever has number 1.
fn oldest(place: &Place) -> i64 {
    let path = journal(place).join("journal.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let database = database.expect("a journal");
    let oldest = database.query_row("SELECT min(first) FROM webhooks", [], |row| row.get(0));
    oldest.expect("a journal with webhooks")
}
