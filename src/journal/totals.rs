//! The journal's counters: changed in the same transactions as what they count, so that
//! accepted = published + dead-lettered + backlog at every moment and across restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::stored;
use crate::telemetry::status::Totals;

/// How many names there are.
const NAMES: usize = 9;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Accepted,
    Published,
    DeadLettered,
    BacklogEvents,
    /// As `weight` says.
    BacklogBytes,
    /// As `weight` says.
    RetainedBytes,
    LostEvents,
    /// Events published again by an operator.
    Replayed,
    /// The largest seq in use so far.
    LastSeq,
}

impl Name {
    const ALL: [Self; NAMES] = [
        Self::Accepted,
        Self::Published,
        Self::DeadLettered,
        Self::BacklogEvents,
        Self::BacklogBytes,
        Self::RetainedBytes,
        Self::LostEvents,
        Self::Replayed,
        Self::LastSeq,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Published => "published",
            Self::DeadLettered => "dead_lettered",
            Self::BacklogEvents => "backlog_events",
            Self::BacklogBytes => "backlog_disk_bytes",
            Self::RetainedBytes => "retained_disk_bytes",
            Self::LostEvents => "lost_events",
            Self::Replayed => "replayed",
            Self::LastSeq => "last_seq",
        }
    }
}

/// What is counted, of which source, with which label; empty where that does not matter.
type Key = (Name, Arc<str>, Arc<str>);

/// The counters of one database. Those without source and label change several times with every
/// event: they have places of their own.
#[derive(Debug)]
pub(super) struct Counters {
    committed: Counts,
    /// A copy of the committed values without source and label.
    plain: [i64; NAMES],
    /// What the transaction under way adds.
    added: Values,
    none: Arc<str>,
    /// Which of the plain ones were in the database.
    known: [bool; NAMES],
}

/// The values after the last commit, for every thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(Arc<Mutex<Values>>);

#[derive(Debug, Default)]
struct Values {
    plain: [i64; NAMES],
    labelled: BTreeMap<Key, i64>,
}

impl Counters {
    pub(super) fn load(database: &Connection) -> rusqlite::Result<Self> {
        let (mut values_found, mut known) = (Values::default(), [false; NAMES]);
        let mut statement = database.prepare("SELECT name, source, label, value FROM totals")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut values = stored::Values::of(row);
            let text = values.needed_text(0, "name")?;
            let source: Arc<str> = values.needed_text(1, "source")?.into();
            let label: Arc<str> = values.needed_text(2, "label")?.into();
            let value = values.number(3, "value")?.unwrap_or(-1);
            let name = Name::ALL.into_iter().find(|name| name.as_str() == text);
            let (Some(name), 0..) = (name, value) else {
                tracing::error!(
                    name = text,
                    source = &*source,
                    label = &*label,
                    value,
                    "a counter of the journal is damaged; it counts from 0"
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
            added: Values::default(),
            none: Arc::from(""),
            known,
        })
    }

    /// Writes what has changed; part of the caller's transaction.
    pub(super) fn store(&self, database: &Connection) -> rusqlite::Result<()> {
        let mut statement = database.prepare_cached(
            "INSERT INTO totals (name, source, label, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?;
        for name in Name::ALL {
            if self.added.plain[name as usize] != 0 {
                statement.execute((name.as_str(), "", "", self.get(name)))?;
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

    /// Whether the database had a value of it.
    pub(super) fn is_known(&self, name: Name) -> bool {
        self.known[name as usize]
    }

    /// The transaction is on the disk.
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

    /// The transaction was not to be.
    pub(super) fn roll_back(&mut self) {
        self.added = Values::default();
    }

    pub(super) fn add(&mut self, name: Name, by: i64) {
        self.added.plain[name as usize] += by;
    }

    pub(super) fn add_of_source(&mut self, name: Name, source: &Arc<str>, label: &Arc<str>) {
        let key = (name, source.clone(), label.clone());
        *self.added.labelled.entry(key).or_default() += 1;
    }

    pub(super) fn add_labelled(&mut self, name: Name, label: &Arc<str>) {
        let key = (name, self.none.clone(), label.clone());
        *self.added.labelled.entry(key).or_default() += 1;
    }

    /// The value with what the transaction under way adds.
    pub(super) fn get(&self, name: Name) -> i64 {
        self.plain[name as usize] + self.added.plain[name as usize]
    }

    pub(super) fn counts(&self) -> &Counts {
        &self.committed
    }
}

impl Counts {
    /// The counts as the rest of the program sees them.
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

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
