//! One transaction of the archive: adding a batch of events, or removing what retention has
//! deleted.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::journal::archive::document::Documents;
use crate::journal::archive::file::{PARTITION_EVENTS, Progress, numbers};
use crate::journal::interface::Seq;
use crate::journal::stored::{self, Part, columns};

/// Events in one batch. If fewer are waiting, they are left to the next batch, so that SQLite
/// writes full pages. A search reads that many unindexed events in about 10 ms.
pub(super) const BATCH_EVENTS: usize = 4096;
/// Bytes of bodies in one batch; the last row may exceed it.
const BATCH_BYTES: usize = 16 << 20;
/// Events in one span; the last row may exceed it.
const SPAN_EVENTS: usize = 1024;
/// A batch that is not full is indexed when its first event is this old.
const BATCH_AGE: Duration = Duration::from_mins(10);
/// Rows read in one snapshot of the journal, at most.
const SNAPSHOT_ROWS: i64 = 128;
/// Duration of a snapshot, at most.
const SNAPSHOT_TIME: Duration = Duration::from_millis(10);
/// A row with more bytes of bodies is recorded as not indexed; every search reads it.
const INDEXED_BYTES_MAX: usize = 512 << 10;
/// A partition with this many rows left or fewer is dropped.
const LEFT_ROWS_MAX: usize = 256;

const ROWS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM webhooks w WHERE w.first > ?1 ORDER BY w.first LIMIT ?2"
);

/// Why a batch was not written. Nothing of it was.
#[derive(Debug)]
pub(super) enum Error {
    Journal(rusqlite::Error),
    Archive(rusqlite::Error),
    OtherJournal,
}

/// Only errors of the journal are marked as such.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Archive(error)
    }
}

/// The result of a batch that met no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// There are too few events for a batch.
    Nothing,
    /// The journal received events in the meantime.
    WhileBusy,
    /// The journal received no events in the meantime, or the thread is asked to end.
    WhileIdle,
}

/// What the batch has added so far.
struct Added {
    progress: Progress,
    events: usize,
    bytes: usize,
    span: Option<Span>,
    documents: Documents,
}

/// A run of consecutive events, with the range of their times of receipt.
struct Span {
    first: Seq,
    last: Seq,
    events: usize,
    received_min: i64,
    received_max: i64,
}

/// Adds a batch of about `events` events, if there are enough for one.
pub(super) fn index(
    archive: &mut Connection,
    journal: &Connection,
    events: usize,
    is_stopped: impl Fn() -> bool,
) -> Result<Done, Error> {
    let progress = Progress::read(archive)?;
    if !progress.is_of(journal).map_err(Error::Journal)? {
        return Err(Error::OtherJournal);
    }
    let newest = || stored::newest(journal).map_err(Error::Journal);
    let newest_before = newest()?;
    let waiting = usize::try_from(newest_before - progress.indexed).unwrap_or_default();
    let is_enough = waiting >= events
        || waiting > 0 && is_old(journal, progress.indexed).map_err(Error::Journal)?;
    if !is_enough {
        return Ok(Done::Nothing);
    }
    let transaction = archive.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut added = Added {
        progress,
        events: 0,
        bytes: 0,
        span: None,
        documents: Documents::default(),
    };
    while added.events < events && added.bytes < BATCH_BYTES {
        let before = added.events;
        added.read(&transaction, journal, events)?;
        if added.events == before {
            break;
        }
        if is_stopped() {
            // Dropping the transaction rolls it back.
            return Ok(Done::WhileIdle);
        }
    }
    if added.events == 0 {
        return Ok(Done::Nothing);
    }
    added.end_span(&transaction)?;
    added.progress.write(&transaction)?;
    transaction.commit()?;
    Ok(if newest()? == newest_before {
        Done::WhileIdle
    } else {
        Done::WhileBusy
    })
}

/// Whether the first event after this number is old enough for a batch that is not full.
fn is_old(journal: &Connection, indexed: Seq) -> rusqlite::Result<bool> {
    let received = "SELECT received_at FROM webhooks WHERE first > ?1 ORDER BY first LIMIT 1";
    let received: Option<i64> = journal
        .prepare_cached(received)?
        .query_row([indexed], |row| row.get(0))
        .optional()?;
    let now = jiff::Timestamp::now().as_microsecond();
    let age_max = i64::try_from(BATCH_AGE.as_micros()).unwrap_or(i64::MAX);
    Ok(received.is_some_and(|received| now.saturating_sub(received) >= age_max))
}

impl Added {
    /// Adds some rows of the journal, read in one snapshot.
    fn read(
        &mut self,
        archive: &Transaction<'_>,
        journal: &Connection,
        events_max: usize,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let mut rows = journal.prepare_cached(ROWS).map_err(Error::Journal)?;
        let mut rows = rows
            .query((self.progress.last_first, SNAPSHOT_ROWS))
            .map_err(Error::Journal)?;
        while let Some(row) = rows.next().map_err(Error::Journal)? {
            let part = Part::read(row).map_err(Error::Journal)?;
            self.add(archive, &part)?;
            if self.events >= events_max
                || self.bytes >= BATCH_BYTES
                || began.elapsed() >= SNAPSHOT_TIME
            {
                break;
            }
        }
        Ok(())
    }

    fn add(&mut self, archive: &Transaction<'_>, part: &Part) -> rusqlite::Result<()> {
        let envelope = &part.envelope;
        // A damaged row may contain no event, or claim the numbers of other rows.
        let last = if part.is_sound() {
            part.last()
        } else {
            part.first
        };
        if part.is_indexable(INDEXED_BYTES_MAX) {
            let partition = part.first.div_euclid(PARTITION_EVENTS);
            begin_partition(archive, partition)?;
            let insert = format!("INSERT INTO words_{partition} (rowid, words) VALUES (?1, ?2)");
            archive
                .prepare_cached(&insert)?
                .execute((part.first, self.documents.of(part)))?;
        } else {
            archive
                .prepare_cached("INSERT INTO unindexed (first) VALUES (?1)")?
                .execute([part.first])?;
        }
        let received_at = envelope.received_at.as_microsecond();
        let events = part.events.max(1) as usize;
        let span = self.span.get_or_insert(Span {
            first: part.first,
            last,
            events: 0,
            received_min: received_at,
            received_max: received_at,
        });
        span.last = last;
        span.events += events;
        span.received_min = span.received_min.min(received_at);
        span.received_max = span.received_max.max(received_at);
        if span.events >= SPAN_EVENTS {
            self.end_span(archive)?;
        }
        self.events += events;
        self.bytes += usize::try_from(part.size).unwrap_or(usize::MAX);
        self.progress.indexed = last;
        self.progress.last_first = part.first;
        self.progress.last_webhook = envelope.webhook_id;
        Ok(())
    }

    fn end_span(&mut self, archive: &Transaction<'_>) -> rusqlite::Result<()> {
        let Some(span) = self.span.take() else {
            return Ok(());
        };
        archive
            .prepare_cached(
                "INSERT INTO spans (first, last, received_min, received_max)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute((span.first, span.last, span.received_min, span.received_max))
            .map(drop)
    }
}

/// Deletes what retention has deleted in the journal: spans, and whole partitions. The few rows
/// that are left of a partition are recorded as not indexed, so that searches read them.
pub(super) fn forget(archive: &mut Connection, journal: &Connection) -> Result<(), Error> {
    let transaction = archive.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let current = Progress::read(&transaction)?
        .indexed
        .div_euclid(PARTITION_EVENTS);
    let before = "SELECT number FROM partitions WHERE number >= ?1 AND number < ?2";
    let partitions = numbers(&transaction, before, (0, current))?;
    for partition in partitions {
        let first = partition * PARTITION_EVENTS;
        let last = first + PARTITION_EVENTS - 1;
        let some = "SELECT first FROM webhooks WHERE first BETWEEN ?1 AND ?2 LIMIT 257";
        let left = numbers(journal, some, (first, last)).map_err(Error::Journal)?;
        if left.len() <= LEFT_ROWS_MAX {
            end_partition(&transaction, partition, &left)?;
        }
    }
    let all = "SELECT first FROM unindexed";
    for first in numbers(&transaction, all, [])? {
        let is_there = "SELECT first FROM webhooks WHERE first = ?1";
        let is_there = numbers(journal, is_there, [first]).map_err(Error::Journal)?;
        if is_there.is_empty() {
            transaction.execute("DELETE FROM unindexed WHERE first = ?1", [first])?;
        }
    }
    let oldest = "SELECT coalesce(min(first), 0) FROM webhooks";
    let oldest: Seq = journal
        .query_row(oldest, [], |row| row.get(0))
        .map_err(Error::Journal)?;
    transaction.execute("DELETE FROM spans WHERE last < ?1", [oldest])?;
    Ok(transaction.commit()?)
}

/// Creates the table of a partition, unless it exists.
fn begin_partition(archive: &Connection, number: Seq) -> rusqlite::Result<()> {
    let insert = "INSERT OR IGNORE INTO partitions (number) VALUES (?1)";
    if archive.prepare_cached(insert)?.execute([number])? == 0 {
        return Ok(());
    }
    // Without positions and copies of the texts, because the journal has the texts. A partition has
    // 16 batches, and FTS5 merges 16 segments at a time, so each word is written about twice.
    archive.execute_batch(&format!(
        "CREATE VIRTUAL TABLE words_{number} USING fts5
           (words, content = '', columnsize = 0, detail = none, tokenize = 'ascii');
         INSERT INTO words_{number} (words_{number}, rank) VALUES ('automerge', 16);
         INSERT INTO words_{number} (words_{number}, rank) VALUES ('crisismerge', 64);"
    ))
}

fn end_partition(archive: &Connection, number: Seq, left: &[Seq]) -> rusqlite::Result<()> {
    let insert = "INSERT OR IGNORE INTO unindexed (first) VALUES (?1)";
    for first in left {
        archive.prepare_cached(insert)?.execute([first])?;
    }
    archive.execute("DELETE FROM partitions WHERE number = ?1", [number])?;
    archive.execute_batch(&format!("DROP TABLE words_{number}"))
}
