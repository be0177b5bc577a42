//! The journal's counters: changed in the same transactions as what they count, so that
//! accepted = published + dead-lettered + backlog at every moment and across restarts.

use std::collections::BTreeMap;
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
    /// Events published again by an operator.
    Replayed,
    /// The largest seq in use so far.
    LastSeq,
}

impl Name {
    const ALL: [Self; 9] = [
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
            Self::BacklogBytes => "backlog_bytes",
            Self::RetainedBytes => "retained_bytes",
            Self::LostEvents => "lost_events",
            Self::Replayed => "replayed",
            Self::LastSeq => "last_seq",
        }
    }
}

/// What is counted, of which source, with which label; empty where that does not matter.
type Key = (Name, Arc<str>, Arc<str>);

/// The counters of one database.
#[derive(Debug)]
pub(super) struct Counters {
    /// After the last commit.
    committed: BTreeMap<Key, i64>,
    /// What the transaction under way adds.
    added: BTreeMap<Key, i64>,
    none: Arc<str>,
}

impl Counters {
    pub(super) fn load(database: &Connection) -> rusqlite::Result<Self> {
        let mut counters = Self {
            committed: BTreeMap::new(),
            added: BTreeMap::new(),
            none: Arc::from(""),
        };
        let mut statement = database.prepare("SELECT name, source, label, value FROM totals")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text: String = row.get(0)?;
            let name = Name::ALL.into_iter().find(|name| name.as_str() == text);
            if let Some(name) = name {
                let key = (name, row.get(1)?, row.get(2)?);
                counters.committed.insert(key, row.get(3)?);
            }
        }
        Ok(counters)
    }

    /// Writes what has changed; part of the caller's transaction.
    pub(super) fn store(&self, database: &Connection) -> rusqlite::Result<()> {
        if self.added.is_empty() {
            return Ok(());
        }
        let mut statement = database.prepare_cached(
            "INSERT INTO totals (name, source, label, value) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?;
        for (key, by) in &self.added {
            let value = self.committed.get(key).copied().unwrap_or_default() + by;
            statement.execute((key.0.as_str(), &key.1, &key.2, value))?;
        }
        Ok(())
    }

    /// The transaction is on the disk.
    pub(super) fn commit(&mut self) {
        while let Some((key, by)) = self.added.pop_first() {
            *self.committed.entry(key).or_default() += by;
        }
    }

    /// The transaction was not to be.
    pub(super) fn roll_back(&mut self) {
        self.added.clear();
    }

    pub(super) fn add(&mut self, name: Name, by: i64) {
        let key = (name, self.none.clone(), self.none.clone());
        *self.added.entry(key).or_default() += by;
    }

    pub(super) fn add_of_source(&mut self, name: Name, source: &Arc<str>, label: &Arc<str>) {
        let key = (name, source.clone(), label.clone());
        *self.added.entry(key).or_default() += 1;
    }

    pub(super) fn add_labelled(&mut self, name: Name, label: &Arc<str>) {
        let key = (name, self.none.clone(), label.clone());
        *self.added.entry(key).or_default() += 1;
    }

    /// The value with what the transaction under way adds.
    pub(super) fn get(&self, name: Name) -> i64 {
        let key = (name, self.none.clone(), self.none.clone());
        let of = |values: &BTreeMap<Key, i64>| values.get(&key).copied().unwrap_or_default();
        of(&self.committed) + of(&self.added)
    }

    /// The counts of the last commit as the rest of the program sees them.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for ((name, source, label), value) in &self.committed {
            let value = u64::try_from(*value).unwrap_or_default();
            let label = label.clone();
            match name {
                Name::Accepted => drop(totals.accepted.insert((source.clone(), label), value)),
                Name::Published => drop(totals.published.insert(label, value)),
                Name::DeadLettered => drop(totals.dead_lettered.insert(label, value)),
                Name::BacklogEvents => totals.backlog_events = value,
                Name::BacklogBytes => totals.backlog_bytes = value,
                Name::LostEvents => totals.lost_events = value,
                Name::Replayed => totals.replayed = value,
                Name::RetainedBytes | Name::LastSeq => {}
            }
        }
        totals
    }
}
