//! The journal's counters: changed in the same transactions as what they count, so that
//! accepted = published + dead-lettered + backlog at every moment and across restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::Connection;

use crate::telemetry::status::Totals;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Accepted,
    Published,
    DeadLettered,
    BacklogEvents,
    BacklogBytes,
    RetainedBytes,
    LostEvents,
    NextSeq,
}

const NAMES: [(Name, &str); 8] = [
    (Name::Accepted, "accepted"),
    (Name::Published, "published"),
    (Name::DeadLettered, "dead_lettered"),
    (Name::BacklogEvents, "backlog_events"),
    (Name::BacklogBytes, "backlog_bytes"),
    (Name::RetainedBytes, "retained_bytes"),
    (Name::LostEvents, "lost_events"),
    (Name::NextSeq, "next_seq"),
];

type Key = (Name, Arc<str>, Arc<str>);

/// The counters of one database, with what changed since they were last written.
#[derive(Debug, Clone)]
pub(super) struct Counters {
    values: BTreeMap<Key, i64>,
    changed: BTreeSet<Key>,
    none: Arc<str>,
}

impl Counters {
    pub(super) fn empty() -> Self {
        Self {
            values: BTreeMap::new(),
            changed: BTreeSet::new(),
            none: Arc::from(""),
        }
    }

    pub(super) fn load(database: &Connection) -> rusqlite::Result<Self> {
        let mut counters = Self::empty();
        let mut statement = database.prepare("SELECT name, source, label, value FROM totals")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let Some((name, _)) = NAMES.iter().find(|(_, text)| *text == name) else {
                continue;
            };
            let key = (
                *name,
                row.get::<_, Arc<str>>(1)?,
                row.get::<_, Arc<str>>(2)?,
            );
            counters.values.insert(key, row.get(3)?);
        }
        Ok(counters)
    }

    /// Writes what has changed; part of the caller's transaction.
    pub(super) fn store(&mut self, database: &Connection) -> rusqlite::Result<()> {
        let mut statement = database.prepare_cached(
            "INSERT INTO totals (name, source, label, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?;
        for key in std::mem::take(&mut self.changed) {
            let (_, text) = NAMES
                .iter()
                .find(|(name, _)| *name == key.0)
                .expect("all are named");
            statement.execute((text, &key.1, &key.2, self.values[&key]))?;
        }
        Ok(())
    }

    pub(super) fn add(&mut self, name: Name, by: i64) {
        let none = self.none.clone();
        self.add_labelled(name, &none, &none.clone(), by);
    }

    pub(super) fn add_labelled(
        &mut self,
        name: Name,
        source: &Arc<str>,
        label: &Arc<str>,
        by: i64,
    ) {
        let key = (name, source.clone(), label.clone());
        self.changed.insert(key.clone());
        *self.values.entry(key).or_default() += by;
    }

    pub(super) fn get(&self, name: Name) -> i64 {
        let none = self.none.clone();
        self.values
            .get(&(name, none.clone(), none))
            .copied()
            .unwrap_or_default()
    }

    /// The counts as the rest of the program sees them.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for ((name, source, label), value) in &self.values {
            let value = u64::try_from(*value).unwrap_or_default();
            let label = label.clone();
            match name {
                Name::Accepted => drop(totals.accepted.insert((source.clone(), label), value)),
                Name::Published => drop(totals.published.insert(label, value)),
                Name::DeadLettered => drop(totals.dead_lettered.insert(label, value)),
                Name::BacklogEvents => totals.backlog_events = value,
                Name::BacklogBytes => totals.backlog_bytes = value,
                Name::LostEvents => totals.lost_events = value,
                Name::RetainedBytes | Name::NextSeq => {}
            }
        }
        totals
    }
}
