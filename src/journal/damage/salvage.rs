//! Reads a damaged database as far as possible. Every readable event of a webhook is copied into
//! the new database, unless a readable row of `completed` lists it.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::FromSql;

use crate::journal::completed::{contains, joined, readable_runs};
use crate::journal::interface::Seq;
use crate::journal::store::Store;
use crate::journal::stored::Part;
use crate::journal::totals::{self, Name};
use crate::journal::{legacy, schema, stored};
use crate::webhook::Event;

/// Events copied in one transaction, and the bytes of their bodies, unless a single body is larger.
const IMPORTED_EVENTS_MAX: usize = 500;
const IMPORTED_BYTES_MAX: usize = 8 << 20;
/// A larger event number is damage: with ten thousand events a second, it takes three thousand
/// years to reach it.
const SEQ_CREDIBLE_MAX: Seq = 1 << 50;
/// Queries that search for rows between lost pages, at most; they take some seconds. A lost root page
/// makes all of them fail.
const SEARCHES_MAX: usize = 1 << 18;

/// Statements that list the pending events. They read the table and its indexes from both ends, to
/// find as many as possible in a damaged database.
const PENDING: [&str; 6] = [
    "SELECT seq FROM pending NOT INDEXED ORDER BY seq",
    "SELECT seq FROM pending NOT INDEXED ORDER BY seq DESC",
    "SELECT seq FROM pending INDEXED BY pending_head WHERE head = 1 ORDER BY route, due, seq",
    "SELECT seq FROM pending INDEXED BY pending_head WHERE head = 1
     ORDER BY route DESC, due DESC, seq DESC",
    "SELECT seq FROM pending INDEXED BY pending_session ORDER BY session, source, seq",
    "SELECT seq FROM pending INDEXED BY pending_session
     ORDER BY session DESC, source DESC, seq DESC",
];

/// Copies the readable events into a new database and counts the lost ones there. `is_torn` says that
/// pages of the database can be older than others.
pub(super) fn import(path: &Path, is_torn: bool, store: &mut Store) -> rusqlite::Result<()> {
    let Ok(damaged) = open(path) else {
        return store.finish_import(0, 0);
    };
    let lost_before = total(&damaged, Name::LostEvents);
    let mut importer = Importer {
        damaged: &damaged,
        store,
        events: Vec::new(),
        bytes: 0,
        imported: 0,
    };
    let pending = importer.import_pending(is_torn)?;
    importer.flush()?;
    let expected = total(&damaged, Name::BacklogEvents).max(pending);
    let lost_now = expected.saturating_sub(importer.imported);
    import_exempt(&damaged, store)?;
    store.finish_import(lost_before + lost_now, last_used(&damaged))
}

/// Whether the schema can be read: it contains the root pages of the tables.
pub(super) fn is_readable(path: &Path) -> bool {
    let count = "SELECT count(*) FROM sqlite_schema";
    let counted = open(path).and_then(|found| found.query_row(count, [], |row| row.get(0)));
    counted.is_ok_and(|tables: i64| tables > 0)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let damaged = schema::open_untouched(path)?;
    // Without this, SQLite refuses to read a file that is shorter than its header says.
    damaged.pragma_update(None, "writable_schema", true)?;
    Ok(damaged)
}

/// Copies events in groups.
struct Importer<'d> {
    damaged: &'d Connection,
    store: &'d mut Store,
    events: Vec<(Seq, Arc<Event>)>,
    bytes: usize,
    imported: u64,
}

impl Importer<'_> {
    /// Copies pending events; returns how many are known to be pending, readable or not.
    fn import_pending(&mut self, is_torn: bool) -> rusqlite::Result<u64> {
        let statements = PENDING.into_iter();
        let mut pending: BTreeSet<Seq> = statements
            .flat_map(|statement| readable(self.damaged, statement))
            .collect();
        if legacy::is_legacy(self.damaged) {
            for seq in &pending {
                if let Some(event) = legacy::event(self.damaged, *seq) {
                    self.add(*seq, event)?;
                }
            }
            return Ok(pending.len() as u64);
        }
        let completed = completed(self.damaged, is_torn);
        for first in firsts(self.damaged) {
            let Ok(Some(part)) = Part::containing(self.damaged, first) else {
                continue;
            };
            for seq in part.seqs() {
                // An event with a row in `pending` is pending, even if `completed` lists it.
                if contains(&completed, seq) && !pending.contains(&seq) {
                    continue;
                }
                pending.insert(seq);
                if let Ok(stored) = part.stored(self.damaged, seq) {
                    self.add(seq, stored.event)?;
                }
            }
        }
        Ok(pending.len() as u64)
    }

    fn add(&mut self, seq: Seq, event: impl Into<Arc<Event>>) -> rusqlite::Result<()> {
        let event = event.into();
        self.bytes += event.body.len();
        self.events.push((seq, event));
        if self.events.len() >= IMPORTED_EVENTS_MAX || self.bytes >= IMPORTED_BYTES_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> rusqlite::Result<()> {
        self.imported += self.events.len() as u64;
        self.store.import(&self.events)?;
        self.events.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// The first event numbers of the rows of `webhooks` that can be reached, in order. If a page is
/// lost, the rows around it are searched for in smaller and smaller ranges.
fn firsts(damaged: &Connection) -> BTreeSet<Seq> {
    let ends = [
        "SELECT first FROM webhooks ORDER BY first",
        "SELECT first FROM webhooks ORDER BY first DESC",
    ];
    let mut found: BTreeSet<Seq> = ends
        .into_iter()
        .flat_map(|statement| readable(damaged, statement))
        .filter(|first| *first < SEQ_CREDIBLE_MAX)
        .collect();
    let last = found.last().copied().max(Some(last_used(damaged)));
    let mut ranges = VecDeque::from_iter(last.map(|last| (0, last)));
    for _ in 0..SEARCHES_MAX {
        let Some((from, to)) = ranges.pop_front() else {
            break;
        };
        match firsts_between(damaged, from, to) {
            Ok(firsts) => found.extend(firsts),
            Err(_) if from < to => {
                let middle = from + (to - from) / 2;
                ranges.extend([(from, middle), (middle + 1, to)]);
            }
            Err(_) => {}
        }
    }
    found
}

fn firsts_between(damaged: &Connection, from: Seq, to: Seq) -> rusqlite::Result<Vec<Seq>> {
    let rows = "SELECT first FROM webhooks WHERE first BETWEEN ?1 AND ?2 ORDER BY first";
    let mut rows = damaged.prepare_cached(rows)?;
    rows.query_map((from, to), |row| row.get(0))?.collect()
}

/// The events that are known to be completed, as sorted runs.
fn completed(damaged: &Connection, is_torn: bool) -> Vec<(Seq, Seq)> {
    let texts = [
        "SELECT runs FROM completed NOT INDEXED ORDER BY id",
        "SELECT runs FROM completed NOT INDEXED ORDER BY id DESC",
    ];
    let texts = texts.into_iter();
    let mut runs = readable_runs(texts.flat_map(|statement| readable(damaged, statement)));
    // Reads every row of the table.
    let whole = damaged.query_row("SELECT total(seq) FROM pending NOT INDEXED", [], |_| Ok(()));
    if whole.is_ok() && !is_torn {
        // Every event before `window_first` is completed or has a row in `pending`.
        let window_first = Seq::try_from(total(damaged, Name::WindowFirst)).unwrap_or_default();
        runs.push((0, window_first - 1));
    }
    joined(runs)
}

/// Copies the events whose only body is in the journal: their dead letters refer to them by number.
fn import_exempt(damaged: &Connection, store: &mut Store) -> rusqlite::Result<()> {
    let is_legacy = legacy::is_legacy(damaged);
    let exempt = if is_legacy {
        "SELECT seq, at FROM settled WHERE kept = 1"
    } else {
        "SELECT o.seq, (SELECT c.at FROM completed c WHERE c.last >= o.seq AND c.first <= o.seq)
         FROM outcomes o WHERE o.kept = 1"
    };
    let exempt: Vec<(Seq, Option<i64>)> =
        readable_as(damaged, exempt, |row| Ok((row.get(0)?, row.get(1)?)));
    for (seq, at) in exempt {
        let event = if is_legacy {
            legacy::event(damaged, seq)
        } else {
            event(damaged, seq)
        };
        if let Some(event) = event {
            let at = at.and_then(stored::timestamp).unwrap_or_default();
            store.import_exempt(seq, &event.into(), at)?;
        }
    }
    Ok(())
}

fn event(damaged: &Connection, seq: Seq) -> Option<Event> {
    let part = Part::containing(damaged, seq).ok().flatten()?;
    let stored = part.stored(damaged, seq).ok()?;
    (!stored.is_damaged).then_some(stored.event)
}

/// The first values of the rows up to the first one that cannot be read.
fn readable<T: FromSql>(damaged: &Connection, statement: &str) -> Vec<T> {
    readable_as(damaged, statement, |row| row.get(0))
}

fn readable_as<T>(
    damaged: &Connection,
    statement: &str,
    read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
) -> Vec<T> {
    let Ok(mut statement) = damaged.prepare(statement) else {
        return Vec::new();
    };
    let rows = statement.query_map([], read);
    rows.map_or_else(|_| Vec::new(), |rows| rows.map_while(Result::ok).collect())
}

/// The largest event number that is known to have been used.
fn last_used(damaged: &Connection) -> Seq {
    let counted = Seq::try_from(total(damaged, Name::LastSeq)).unwrap_or_default();
    [
        "SELECT seq FROM events ORDER BY seq DESC LIMIT 1",
        "SELECT seq FROM settled ORDER BY seq DESC LIMIT 1",
        "SELECT first + events - 1 FROM webhooks ORDER BY first DESC LIMIT 1",
        "SELECT last FROM completed ORDER BY last DESC LIMIT 1",
    ]
    .into_iter()
    .flat_map(|statement| readable(damaged, statement))
    .chain([counted])
    // A larger number than can ever be reached was not used; it is damage.
    .filter(|seq| *seq < SEQ_CREDIBLE_MAX)
    .max()
    .unwrap_or_default()
}

fn total(damaged: &Connection, name: Name) -> u64 {
    let value = totals::read(damaged, name).ok().flatten();
    u64::try_from(value.unwrap_or_default()).unwrap_or_default()
}
