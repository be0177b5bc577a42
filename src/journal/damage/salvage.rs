//! Reads what is readable of a damaged database, from both ends of every table and index that
//! knows it.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::journal::rows::Seq;
use crate::journal::schema;
use crate::journal::store::Store;
use crate::journal::stored::{self, columns};
use crate::webhook::Event;

/// Events carried over in one transaction, and their bodies, unless one alone is larger.
const CARRIED_EVENTS_MAX: usize = 500;
const CARRIED_BYTES_MAX: usize = 8 << 20;
/// A larger number is damage: ten thousand events a second would need three thousand years.
const SEQ_CREDIBLE_MAX: Seq = 1 << 50;

/// Copies what is readable into a new database and counts there what is lost.
pub(super) fn carry_over(path: &Path, store: &mut Store) -> rusqlite::Result<()> {
    let Ok(damaged) = open(path) else {
        return store.carried(0, 0);
    };
    let lost_before = total(&damaged, "lost_events");
    let (lost_now, last_unsettled) = carry_unsettled(&damaged, store)?;
    let last_kept = carry_kept(&damaged, store)?;
    let last_used = last_used(&damaged).max(last_unsettled).max(last_kept);
    store.carried(lost_before + lost_now, last_used)
}

/// Whether it can be said where its tables begin.
pub(super) fn is_readable(path: &Path) -> bool {
    let count = "SELECT count(*) FROM sqlite_schema";
    let counted = open(path).and_then(|found| found.query_row(count, [], |row| row.get(0)));
    counted.is_ok_and(|tables: i64| tables > 0)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let damaged = schema::open_untouched(path)?;
    // Or a file that is shorter than it should be is not read at all.
    damaged.pragma_update(None, "writable_schema", true)?;
    Ok(damaged)
}

/// Says how many are lost, and the last number.
fn carry_unsettled(damaged: &Connection, store: &mut Store) -> rusqlite::Result<(u64, Seq)> {
    let seqs = unsettled(damaged);
    let expected = total(damaged, "backlog_events").max(seqs.len() as u64);
    let (mut carried, mut last, mut bytes, mut events) = (0, 0, 0, Vec::new());
    for seq in seqs {
        let Some(event) = event(damaged, seq) else {
            continue;
        };
        carried += 1;
        last = seq;
        bytes += event.body.len();
        events.push((seq, event));
        if events.len() >= CARRIED_EVENTS_MAX || bytes >= CARRIED_BYTES_MAX {
            store.carry(std::mem::take(&mut events))?;
            bytes = 0;
        }
    }
    store.carry(events)?;
    Ok((expected.saturating_sub(carried), last))
}

/// Dead letters without a body name an event of the journal; it must still be found there.
fn carry_kept(damaged: &Connection, store: &mut Store) -> rusqlite::Result<Seq> {
    let mut last = 0;
    for (seq, at) in readable(damaged, "SELECT seq, at FROM settled WHERE kept = 1") {
        if let Some(event) = event(damaged, seq) {
            store.carry_kept(seq, &event, stored::timestamp(at).unwrap_or_default())?;
            last = last.max(seq);
        }
    }
    Ok(last)
}

/// The unsettled events that the table or any of its indexes still knows.
fn unsettled(damaged: &Connection) -> BTreeSet<Seq> {
    [
        "SELECT seq, 0 FROM pending NOT INDEXED ORDER BY seq",
        "SELECT seq, 0 FROM pending NOT INDEXED ORDER BY seq DESC",
        "SELECT seq, 0 FROM pending INDEXED BY pending_head WHERE head = 1
         ORDER BY route, due, seq",
        "SELECT seq, 0 FROM pending INDEXED BY pending_head WHERE head = 1
         ORDER BY route DESC, due DESC, seq DESC",
        "SELECT seq, 0 FROM pending INDEXED BY pending_session
         ORDER BY session, source, seq",
        "SELECT seq, 0 FROM pending INDEXED BY pending_session
         ORDER BY session DESC, source DESC, seq DESC",
    ]
    .into_iter()
    .flat_map(|statement| readable(damaged, statement))
    .map(|(seq, _)| seq)
    .collect()
}

/// The rows before the first that cannot be read.
fn readable(damaged: &Connection, statement: &str) -> Vec<(Seq, i64)> {
    let Ok(mut statement) = damaged.prepare(statement) else {
        return Vec::new();
    };
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.map_or_else(|_| Vec::new(), |rows| rows.map_while(Result::ok).collect())
}

/// The last number that is known to have been used.
fn last_used(damaged: &Connection) -> Seq {
    let counted = Seq::try_from(total(damaged, "last_seq")).unwrap_or_default();
    [
        "SELECT seq, 0 FROM events ORDER BY seq DESC LIMIT 1",
        "SELECT seq, 0 FROM settled ORDER BY seq DESC LIMIT 1",
    ]
    .into_iter()
    .flat_map(|statement| readable(damaged, statement))
    .map(|(seq, _)| seq)
    .chain([counted])
    // More than could ever be counted is not a number that was used.
    .filter(|seq| *seq < SEQ_CREDIBLE_MAX)
    .max()
    .unwrap_or_default()
}

fn total(damaged: &Connection, name: &str) -> u64 {
    let statement = "SELECT value FROM totals WHERE name = ?1";
    let value = damaged
        .query_row(statement, [name], |row| row.get::<_, i64>(0))
        .optional();
    let value = value.ok().flatten().unwrap_or_default();
    u64::try_from(value).unwrap_or_default()
}

fn event(damaged: &Connection, seq: Seq) -> Option<Event> {
    let statement = concat!("SELECT ", columns!(), " FROM events e WHERE seq = ?1");
    damaged
        .prepare_cached(statement)
        .and_then(|mut statement| statement.query_row([seq], stored::read))
        .ok()
        .map(|stored| stored.event)
}
