//! Read-only access to the journal for commands, with or without a running bridge. The journal is
//! read in pages. Each page is a short transaction, so that the WAL can be reset in between,
//! however long the journal is.
//!
//! `archive.db` is an index over the journal, filled by a thread of the bridge (`indexer`). It is
//! never trusted: it says which rows to read (`index`), and each event of these rows is compared
//! with the selection here, like every event that is not indexed yet. Without the index, a search
//! returns the same result, but takes longer.

mod document;
mod entry;
mod file;
mod index;
mod indexer;
mod next_range;
mod scan;
mod selection;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use rusqlite::Connection;
use uuid::Uuid;

pub use entry::{Entry, StateDetails};
pub use indexer::Indexer;
pub use selection::{EventState, Selection};

use super::directory::{self, ARCHIVE, DATABASE};
use super::interface::Seq;
use super::schema;
use super::stored::{self, LastPart, Part};
use super::{CommandOpenError, JournalError};
use crate::webhook::routing::Routing;
use entry::States;
use file::Unusable;
pub(super) use file::name_journal;
use index::Index;
use next_range::{Direction, NextRange};
use scan::Scan;
use selection::Bounds;

/// Events read in one transaction; the last row may exceed it.
const SCANNED_MAX: usize = SCANNED_ROWS as usize;
/// The same number as a parameter of SQL statements.
const SCANNED_ROWS: u32 = 1000;
/// Events read first when few are wanted: most events that the archive finds are selected.
const FIRST_EVENTS_MIN: usize = 32;
/// Bytes of bodies in one page; the last event may exceed it.
const PAGE_BYTES_MAX: u64 = 4 << 20;

/// With fewer unindexed events than this, no lag is reported: a search reads them quickly.
const LAG_EVENTS_MIN: Seq = 10_000;

/// A read-only connection to the journal, with its search index.
#[derive(Debug)]
pub struct Archive {
    database: Connection,
    routing: Arc<Routing>,
    index: RefCell<Result<Index, Unusable>>,
}

/// A page of events, in the order of receipt.
#[derive(Debug)]
pub(super) struct Page {
    /// The selected events; may be empty even if there is a next page.
    pub(super) entries: Vec<Entry>,
    /// The `after` of the next page; `None` if this is the last one.
    pub(super) next: Option<Seq>,
}

/// How much of the journal is indexed. A search has to read the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// How many event numbers are indexed, counted from the oldest event in the journal.
    pub indexed: u64,
    /// How many event numbers the journal has, from the oldest event to the newest.
    pub events: u64,
    /// Why the index cannot be used, as text for people; `None` if it can.
    pub why: Option<String>,
}

/// Counts of the selected events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    /// All selected events.
    pub events: u64,
    /// The selected events that are pending.
    pub pending: u64,
}

impl Archive {
    /// Opens the journal in a directory. For pending events without a row in `pending`, `routing`
    /// determines the route to show.
    ///
    /// # Errors
    /// There is no journal, it belongs to another user, or it has the schema of another release.
    pub fn open(dir: &Path, routing: Arc<Routing>) -> Result<Self, CommandOpenError> {
        check(dir)?;
        let database = schema::open_reading(&dir.join(DATABASE))?;
        database.set_prepared_statement_cache_capacity(16);
        let index = RefCell::new(Index::open(dir, &database));
        Ok(Self {
            database,
            routing,
            index,
        })
    }

    /// How far the index is behind, for a search for a selection. `None` if only a little is not
    /// indexed, or if the index does not help with this selection.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn lag(&self, selection: &Selection) -> Result<Option<Lag>, JournalError> {
        if !index::helps_with(selection) {
            return Ok(None);
        }
        let oldest = "SELECT coalesce(min(first), 1) FROM webhooks";
        let oldest: Seq = self.database.query_row(oldest, [], |row| row.get(0))?;
        let events = self.newest()? - oldest + 1;
        let index = self.index.borrow();
        let index = index.as_ref();
        let indexed = index.map_or(0, |index| index.indexed().unwrap_or_default());
        let indexed = (indexed - oldest + 1).max(0);
        if events - indexed < LAG_EVENTS_MIN {
            return Ok(None);
        }
        Ok(Some(Lag {
            indexed: indexed.unsigned_abs(),
            events: events.unsigned_abs(),
            why: index.err().map(ToString::to_string),
        }))
    }

    /// Returns the selected events after a number, as one page; with or without bodies.
    pub(super) fn page(
        &self,
        selection: &Selection,
        after: Seq,
        with_bodies: bool,
    ) -> Result<Page, JournalError> {
        self.in_snapshot(|| {
            let last = Seq::MAX;
            let bounds = Bounds { after, last };
            let scan = self.scan(selection, bounds, Direction::Forward, SCANNED_MAX)?;
            let mut page = Page {
                entries: Vec::new(),
                next: scan.rest,
            };
            let (mut bytes, mut part) = (0, LastPart::default());
            for mut entry in self.entries(selection, &scan)? {
                let seq = entry.seq;
                if with_bodies && let Some(part) = part.containing(&self.database, seq)? {
                    entry.event = part.stored(&self.database, seq)?.event;
                    bytes += entry.bytes;
                }
                page.entries.push(entry);
                if bytes >= PAGE_BYTES_MAX {
                    page.next = Some(seq);
                    break;
                }
            }
            Ok(page)
        })
    }

    /// The pages of the selected events after a number, to the last one or the first error.
    pub fn pages(
        &self,
        selection: &Selection,
        after: Seq,
        with_bodies: bool,
    ) -> impl Iterator<Item = Result<Vec<Entry>, JournalError>> {
        let mut next = Some(after);
        std::iter::from_fn(move || {
            let page = self.page(selection, next?, with_bodies);
            next = page.as_ref().ok().and_then(|page| page.next);
            Some(page.map(|page| page.entries))
        })
    }

    /// Returns the newest selected events, at most `events_max`, in the order of receipt, without
    /// bodies.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn last(
        &self,
        selection: &Selection,
        events_max: usize,
    ) -> Result<Vec<Entry>, JournalError> {
        let mut found = Vec::new();
        let mut last = Some(Seq::MAX);
        let mut page_events = events_max.clamp(FIRST_EVENTS_MIN, SCANNED_MAX);
        while let Some(end) = last
            && found.len() < events_max
        {
            last = self.in_snapshot(|| {
                let bounds = Bounds {
                    after: 0,
                    last: end,
                };
                let scan = self.scan(selection, bounds, Direction::Backward, page_events)?;
                let mut entries = self.entries(selection, &scan)?;
                entries.reverse();
                found.extend(entries);
                Ok(scan.rest)
            })?;
            page_events = SCANNED_MAX.min(2 * page_events);
        }
        found.truncate(events_max);
        found.reverse();
        Ok(found)
    }

    /// Counts the selected events.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn survey(&self, selection: &Selection) -> Result<Survey, JournalError> {
        let mut survey = Survey::default();
        for entries in self.pages(selection, 0, false) {
            for entry in entries? {
                survey.events += 1;
                survey.pending += u64::from(entry.state() == EventState::Pending);
            }
        }
        Ok(survey)
    }

    /// Returns one event with its body; `None` if the journal does not have it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn entry(&self, seq: Seq) -> Result<Option<Entry>, JournalError> {
        self.in_snapshot(|| {
            let Some(part) = Part::containing(&self.database, seq)? else {
                return Ok(None);
            };
            let states = States::of(&self.database, &[seq])?;
            let event = part.stored(&self.database, seq)?.event;
            Ok(Some(states.entry(
                seq,
                event,
                part.length(seq),
                &self.routing,
            )))
        })
    }

    /// Returns the numbers of the events with this `message_id`. There are several if an event was
    /// received more than once.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn with_message_id(&self, message_id: Uuid) -> Result<Vec<Seq>, JournalError> {
        let selection = Selection {
            message_id: Some(message_id),
            ..Selection::default()
        };
        let mut found = Vec::new();
        for entries in self.pages(&selection, 0, false) {
            found.extend(entries?.into_iter().map(|entry| entry.seq));
        }
        Ok(found)
    }

    /// Returns the number of the newest event; 0 if the journal is empty.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn newest(&self) -> Result<Seq, JournalError> {
        self.in_snapshot(|| stored::newest(&self.database))
    }

    /// Reads the next rows of `webhooks` within bounds that may contain a selected event, with
    /// about `events` events.
    fn scan(
        &self,
        selection: &Selection,
        bounds: Bounds,
        direction: Direction,
        events: usize,
    ) -> rusqlite::Result<Scan> {
        let within = selection.bounds();
        let bounds = Bounds {
            after: bounds.after.max(within.after),
            last: bounds.last.min(within.last),
        };
        let next_range = self.indexed_stretch(selection, bounds, direction);
        let next_range = next_range.or_shorter(&self.database, selection, bounds, direction)?;
        Scan::of(&self.database, &next_range, bounds, direction, events)
    }

    /// The stretch that the index suggests. Without an index, or when it can no longer be read, the
    /// stretch contains all rows within the bounds.
    fn indexed_stretch(
        &self,
        selection: &Selection,
        bounds: Bounds,
        direction: Direction,
    ) -> NextRange {
        let mut index = self.index.borrow_mut();
        let found = index
            .as_ref()
            .map(|index| index.next_range(selection, bounds, direction));
        match found {
            Ok(Ok(next_range)) => next_range,
            Ok(Err(error)) => {
                *index = Err(Unusable::of(Path::new(ARCHIVE), error));
                NextRange::all(bounds)
            }
            Err(_) => NextRange::all(bounds),
        }
    }

    /// Returns the selected events of the scanned rows, in order, without bodies.
    fn entries(&self, selection: &Selection, scan: &Scan) -> rusqlite::Result<Vec<Entry>> {
        let events = scan.events().filter_map(|(part, seq)| {
            let event = part.event_without_body(seq);
            selection.selects(seq, &event).then_some((part, seq, event))
        });
        // Collected first, because most events are not selected and their states need not be read.
        let events: Vec<_> = events.collect();
        let seqs: Vec<Seq> = events.iter().map(|(_, seq, _)| *seq).collect();
        let states = States::of(&self.database, &seqs)?;
        let mut entries = Vec::new();
        for (part, seq, event) in events {
            let entry = states.entry(seq, event, part.length(seq), &self.routing);
            if selection.selects_state(entry.state()) && self.has_text(selection, part, seq)? {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn has_text(&self, selection: &Selection, part: &Part, seq: Seq) -> rusqlite::Result<bool> {
        let search = &selection.search;
        Ok(search.is_empty() || search.selects(&part.stored(&self.database, seq)?.event))
    }

    fn in_snapshot<T>(
        &self,
        read: impl FnOnce() -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        self.database.execute_batch("BEGIN")?;
        let result = read();
        self.database.execute_batch("COMMIT")?;
        Ok(result?)
    }
}

/// Checks that the directory has a journal and that this user may read it.
pub(super) fn check(dir: &Path) -> Result<(), CommandOpenError> {
    let found = fs::symlink_metadata(dir.join(DATABASE));
    if found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Err(CommandOpenError::Missing(dir.to_owned()));
    }
    Ok(directory::check_access(dir)?)
}
