//! The journal's counters. They change in the same transactions as what they count, so accepted =
//! published + dead-lettered + backlog at every moment and across restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension};

use super::stored;
use crate::telemetry::status::Totals;

/// The number of counter names.
const NAMES: usize = 10;

/// The name of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Accepted,
    Published,
    DeadLettered,
    BacklogEvents,
    /// Estimated as in `disk_size`.
    BacklogBytes,
    /// Estimated as in `disk_size`.
    RetainedBytes,
    LostEvents,
    /// Events published again by an operator.
    Replayed,
    /// The largest event number that was used so far.
    LastSeq,
    /// The window contains no event before this number.
    WindowFirst,
}

impl Name {
    /// Every name and its text, in the order of the variants.
    const ALL: [(Self, &'static str); NAMES] = [
        (Self::Accepted, "accepted"),
        (Self::Published, "published"),
        (Self::DeadLettered, "dead_lettered"),
        (Self::BacklogEvents, "backlog_events"),
        (Self::BacklogBytes, "backlog_disk_bytes"),
        (Self::RetainedBytes, "retained_disk_bytes"),
        (Self::LostEvents, "lost_events"),
        (Self::Replayed, "replayed"),
        (Self::LastSeq, "last_seq"),
        (Self::WindowFirst, "window_first"),
    ];

    fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The stored value of a counter without source and label.
pub(super) fn read(database: &Connection, name: Name) -> rusqlite::Result<Option<i64>> {
    database
        .prepare_cached("SELECT value FROM totals WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()
}

/// Name, source and label of a counter; source and label are empty where they do not apply.
type CounterKey = (Name, Arc<str>, Arc<str>);

/// The counters of one database. Those without source and label change several times with every
/// event, so they are stored in arrays.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) committed: Counts,
    /// A copy of the committed values without source and label.
    plain: [i64; NAMES],
    /// The changes of the current transaction.
    added: CounterValues,
    none: Arc<str>,
    /// Whether the database had a value for each plain counter.
    known: [bool; NAMES],
}

/// The values after the last commit, for every thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Arc<Mutex<CounterValues>>);

#[derive(Debug, Default)]
struct CounterValues {
    plain: [i64; NAMES],
    labelled: BTreeMap<CounterKey, i64>,
}

impl Counters {
    pub(super) fn load(database: &Connection) -> rusqlite::Result<Self> {
        let (mut values_found, mut known) = (CounterValues::default(), [false; NAMES]);
        let mut statement = database.prepare("SELECT name, source, label, value FROM totals")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut values = stored::Values::of(row);
            let text = values.needed_text(0, "name")?;
            let source: Arc<str> = values.needed_text(1, "source")?.into();
            let label: Arc<str> = values.needed_text(2, "label")?.into();
            let value = values.number(3, "value")?.unwrap_or(-1);
            let name = Name::ALL.into_iter().find(|(_, known)| *known == text);
            let (Some((name, _)), 0..) = (name, value) else {
                tracing::error!(
                    name = text,
                    source = &*source,
                    label = &*label,
                    value,
                    "journal counter damaged; it restarts at 0"
                );
                continue;
            };
            if source.is_empty() && label.is_empty() {
                known[name as usize] = true;
                values_found.plain[name as usize] = value;
            } else {
                values_found.labelled.insert((name, source, label), value);
            }
        }
        Ok(Self {
            plain: values_found.plain,
            committed: Counts(Arc::new(Mutex::new(values_found))),
            added: CounterValues::default(),
            none: Arc::from(""),
            known,
        })
    }

    /// Writes the changed counters, inside the caller's transaction.
    pub(super) fn store(&self, database: &Connection) -> rusqlite::Result<()> {
        let mut statement = database.prepare_cached(
            "INSERT INTO totals (name, source, label, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?;
        for (name, text) in Name::ALL {
            if self.added.plain[name as usize] != 0 {
                statement.execute((text, "", "", self.get(name)))?;
            }
        }
        let committed = self.committed.lock();
        for (key, by) in &self.added.labelled {
            let committed = committed.labelled.get(key);
            let value = committed.copied().unwrap_or_default() + by;
            statement.execute((key.0.as_str(), &key.1, &key.2, value))?;
        }
        Ok(())
    }

    /// Whether the database had a value for this counter when it was loaded.
    pub(super) fn is_known(&self, name: Name) -> bool {
        self.known[name as usize]
    }

    /// Applies the changes of the transaction, which is on disk.
    pub(super) fn commit(&mut self) {
        let added = std::mem::take(&mut self.added);
        for (value, by) in self.plain.iter_mut().zip(added.plain) {
            *value += by;
        }
        let mut committed = self.committed.lock();
        committed.plain = self.plain;
        for (key, by) in added.labelled {
            *committed.labelled.entry(key).or_default() += by;
        }
    }

    /// Discards the changes of a transaction that was rolled back.
    pub(super) fn roll_back(&mut self) {
        self.added = CounterValues::default();
    }

    pub(super) fn add(&mut self, name: Name, by: i64) {
        self.added.plain[name as usize] += by;
    }

    pub(super) fn set(&mut self, name: Name, value: i64) {
        self.add(name, value - self.get(name));
    }

    /// Sets a counter, unless it has a larger value.
    pub(super) fn raise(&mut self, name: Name, value: i64) {
        self.set(name, value.max(self.get(name)));
    }

    pub(super) fn add_of_source(&mut self, name: Name, source: &Arc<str>, label: &Arc<str>) {
        let key = (name, source.clone(), label.clone());
        *self.added.labelled.entry(key).or_default() += 1;
    }

    pub(super) fn add_labelled(&mut self, name: Name, label: &Arc<str>) {
        let key = (name, self.none.clone(), label.clone());
        *self.added.labelled.entry(key).or_default() += 1;
    }

    /// The value including the changes of the current transaction.
    pub(super) fn get(&self, name: Name) -> i64 {
        self.plain[name as usize] + self.added.plain[name as usize]
    }
}

impl Counts {
    /// The counts in the form that the rest of the program uses.
    pub(super) fn totals(&self) -> Totals {
        let values = self.lock();
        let count = |value: i64| u64::try_from(value).unwrap_or_default();
        let plain = |name: Name| count(values.plain[name as usize]);
        let mut totals = Totals {
            backlog_events: plain(Name::BacklogEvents),
            backlog_bytes: plain(Name::BacklogBytes),
            lost_events: plain(Name::LostEvents),
            replayed: plain(Name::Replayed),
            ..Totals::default()
        };
        for ((name, source, label), value) in &values.labelled {
            let (label, value) = (label.clone(), count(*value));
            match name {
                Name::Accepted => drop(totals.accepted.insert((source.clone(), label), value)),
                Name::Published => drop(totals.published.insert(label, value)),
                Name::DeadLettered => drop(totals.dead_lettered.insert(label, value)),
                _ => {}
            }
        }
        totals
    }

    pub(super) fn is_backlog_empty(&self) -> bool {
        self.lock().plain[Name::BacklogEvents as usize] <= 0
    }

    fn lock(&self) -> MutexGuard<'_, CounterValues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
