//! Which events are completed, as runs of event numbers: one row of `completed` per commit.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::interface::Seq;
use super::stored::{Values, timestamp};

/// The smallest and the largest number of a row differ by less than this. The rows that may contain
/// a number are therefore found by a range of the index.
const SPAN_MAX: Seq = 1 << 18;

/// The rows that may contain a number of a range.
const CONTAINING: &str = "SELECT at, runs FROM completed INDEXED BY completed_last
    WHERE last >= ?1 AND last < ?2 AND first <= ?3 ORDER BY last";

/// Adjacent closed rows are joined until a run has this size; a run is deleted in one step.
const CLOSED_BYTES: i64 = 64 << 10;

/// Runs of event numbers in ascending order, each with its first and its last number.
pub(super) type Runs = Vec<(Seq, Seq)>;

/// What one transaction completes.
#[derive(Debug, Default)]
pub(super) struct Completion {
    runs: Runs,
    /// Webhooks, or parts of them, whose last pending event was completed.
    closed: Vec<Closed>,
}

/// Adjacent rows of `webhooks` whose events are all completed: first and last event, and the bytes
/// that the rows take on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Closed(pub(super) Seq, pub(super) Seq, pub(super) i64);

/// A row of `completed` that was read.
struct Row {
    at: Timestamp,
    runs: Runs,
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let mut values = Values::of(row);
        let at = values.number(0, "at")?.and_then(timestamp);
        let runs = read(&values.needed_text(1, "runs")?);
        if runs.is_none() {
            tracing::error!("unknown value in the journal; its events will be published again");
        }
        Ok(Self {
            at: at.unwrap_or_default(),
            runs: runs.unwrap_or_default(),
        })
    }
}

impl Completion {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.closed.is_empty()
    }

    pub(super) fn completed(&mut self, seq: Seq) {
        self.runs.push((seq, seq));
    }

    pub(super) fn closed(&mut self, first: Seq, last: Seq, bytes: i64) {
        self.closed.push(Closed(first, last, bytes));
    }

    /// Writes the rows that follow the row with the given id, and returns the id of the last one.
    /// Ids are never reused, although SQLite would do so. Runs inside the caller's transaction.
    pub(super) fn write(
        self,
        database: &Connection,
        mut id: i64,
        now: Timestamp,
    ) -> rusqlite::Result<i64> {
        let closed = joined_closed(self.closed);
        let mut rows: Vec<Runs> = Vec::new();
        for run in joined(self.runs) {
            match rows.last_mut() {
                Some(row) if run.1 - row[0].0 < SPAN_MAX => row.push(run),
                _ => rows.push(vec![run]),
            }
        }
        if rows.is_empty() && !closed.is_empty() {
            rows.push(Vec::new());
        }
        let mut statement = database.prepare_cached(
            "INSERT INTO completed (id, first, last, at, runs, closed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let count = rows.len();
        for (index, runs) in rows.into_iter().enumerate() {
            // A closed webhook need not be listed in the row that lists its events.
            let is_last = index + 1 == count;
            let closed = if is_last { &*closed } else { &[] };
            let bounds = runs.first().zip(runs.last());
            let bounds = bounds.map_or((0, 0), |(first, last)| (first.0, last.1));
            let at = now.as_microsecond();
            id += 1;
            statement.execute((id, bounds.0, bounds.1, at, write(&runs), write(closed)))?;
        }
        Ok(id)
    }
}

/// The completed events from a number on, as unordered runs; some may be before it.
pub(super) fn runs_since(database: &Connection, first: Seq) -> rusqlite::Result<Runs> {
    let mut statement = database.prepare_cached(CONTAINING)?;
    let mut rows = statement.query((first, Seq::MAX, Seq::MAX))?;
    let mut runs = Runs::new();
    while let Some(row) = rows.next()? {
        runs.extend(Row::read(row)?.runs);
    }
    Ok(runs)
}

/// Parses the `runs` of a damaged database; a text that cannot be parsed is skipped.
pub(super) fn readable_runs(texts: impl IntoIterator<Item = String>) -> Runs {
    let runs = texts.into_iter().filter_map(|text| read(&text));
    runs.flatten().collect()
}

/// Whether sorted runs contain a number.
pub(super) fn contains(runs: &[(Seq, Seq)], seq: Seq) -> bool {
    let behind = runs.partition_point(|(_, last)| *last < seq);
    runs.get(behind).is_some_and(|run| run.0 <= seq)
}

/// When these events were completed; pending ones are left out. Stops as soon as all of them are
/// found.
pub(super) fn completed_at(
    database: &Connection,
    mut wanted: BTreeSet<Seq>,
) -> rusqlite::Result<BTreeMap<Seq, Timestamp>> {
    let mut found = BTreeMap::new();
    let (Some(first), Some(last)) = (wanted.first().copied(), wanted.last().copied()) else {
        return Ok(found);
    };
    let mut statement = database.prepare_cached(CONTAINING)?;
    let mut rows = statement.query((first, last.saturating_add(SPAN_MAX), last))?;
    while !wanted.is_empty()
        && let Some(row) = rows.next()?
    {
        let row = Row::read(row)?;
        for (first, last) in row.runs {
            let completed: Vec<Seq> = wanted.range(first..=last).copied().collect();
            for seq in completed {
                wanted.remove(&seq);
                found.insert(seq, row.at);
            }
        }
    }
    Ok(found)
}

/// Sorts runs, and joins those that overlap or touch.
pub(super) fn joined(mut runs: Runs) -> Runs {
    runs.sort_unstable();
    runs.dedup_by(|next, run| {
        let is_adjacent = run.1 + 1 >= next.0;
        if is_adjacent {
            run.1 = run.1.max(next.1);
        }
        is_adjacent
    });
    runs
}

/// Joins adjacent rows of `webhooks`, up to a limit of size: a run is deleted in one step.
fn joined_closed(mut parts: Vec<Closed>) -> Vec<Closed> {
    parts.sort_unstable();
    parts.dedup_by(|next, run| {
        let is_joined = run.1 + 1 == next.0 && run.2 < CLOSED_BYTES;
        if is_joined {
            (run.1, run.2) = (next.1, run.2 + next.2);
        }
        is_joined
    });
    parts
}

pub(super) fn write(runs: &[impl Serialize]) -> String {
    serde_json::to_string(runs).expect("numbers can be written as JSON")
}

/// `None` if the text is not what this release writes.
pub(super) fn read_closed(text: &str) -> Option<Vec<Closed>> {
    serde_json::from_str(text).ok()
}

/// `None` if the text is not what this release writes.
fn read(text: &str) -> Option<Runs> {
    let runs: Runs = serde_json::from_str(text).ok()?;
    let is_run = |run: &(Seq, Seq)| run.0 <= run.1;
    let are_apart = |runs: &[(Seq, Seq)]| runs[0].1 < runs[1].0;
    (runs.iter().all(is_run) && runs.windows(2).all(are_apart)).then_some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::tests::support::Bench;

    fn completion(seqs: &[Seq]) -> Completion {
        let mut completion = Completion::default();
        for seq in seqs {
            completion.completed(*seq);
        }
        completion
    }

    #[test]
    fn runs_encode_exactly_their_numbers() {
        let bench = Bench::new();
        let database = bench.store.database();
        let far = SPAN_MAX + 7;
        let now = bench.now;
        let completed = |first, last| {
            let all = (1..12).chain([far - 1, far, far + 1]);
            let wanted = all.filter(|seq| (first..=last).contains(seq));
            let found = completed_at(database, wanted.collect()).unwrap();
            assert!(found.values().all(|at| *at == now));
            found.into_keys().collect::<Vec<_>>()
        };
        let seqs = completion(&[7, 5, 6, 9, far]);
        assert_eq!(seqs.write(database, 0, now), Ok(2));
        assert_eq!(completed(1, far), [5, 6, 7, 9, far]);
        completion(&[8]).write(database, 2, now).unwrap();
        let count = bench.number("SELECT count(*) FROM completed");
        assert_eq!(count, 3, "what is far away has a row of its own");
        assert_eq!(completed(1, far), [5, 6, 7, 8, 9, far]);
        assert_eq!(completed(8, 8), [8]);
        assert_eq!(completed(far, far), [far]);
        let runs = joined(runs_since(database, 8).unwrap());
        assert_eq!(runs, [(5, 9), (far, far)], "rows that may have it");
    }

    #[test]
    fn invalid_runs_are_not_decoded() {
        for text in [
            "",
            "[[1]]",
            "[[2,1]]",
            "[[1,5],[5,6]]",
            "[[3,4],[1,2]]",
            "7",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read("[[1,1],[3,9]]"), Some(vec![(1, 1), (3, 9)]));
    }
}
