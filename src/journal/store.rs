//! The writer's half of the database: whole groups of webhooks and changes, one transaction each.
//! Knows SQL and the queue's rules, no threads and no time but what it is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, named_params};

use super::rows::{Ack, Change, Committed, Condemned, Held, RouteId, Seq, Settlement};
use super::totals::{Counters, Name};
use crate::telemetry::status::Totals;
use crate::webhook::routing::{Route, Routing};
use crate::webhook::{Content, Event, Reason, Webhook};

/// Routes kept in memory by number; beyond that they are looked up again.
const ROUTES_CACHED_MAX: usize = 10_000;
/// Routing fields longer than this are cut on the disk: no header or key shows more of them.
const FIELD_BYTES_MAX: usize = 1024;
/// Settled events a group may delete in any case.
const EXPIRED_MIN: usize = 64;

/// The only connection that writes.
#[derive(Debug)]
pub(super) struct Store {
    database: Connection,
    routing: Arc<Routing>,
    routes: HashMap<Arc<Route>, RouteId>,
    counters: Counters,
    is_retaining: bool,
    /// How long the last commit took, fsync included.
    pub(super) commit_time: Duration,
}

/// How long, and how much of, what is settled is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retention {
    pub(super) age_max: Duration,
    pub(super) bytes_max: u64,
}

/// What a group of changes and webhooks is made of.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) changes: Vec<Change>,
    pub(super) webhooks: Vec<Webhook>,
}

impl Store {
    /// Takes over an open database. Delays of an earlier process mean nothing to this one's
    /// clock: what was refused is due at once.
    pub(super) fn new(
        database: Connection,
        routing: Arc<Routing>,
        is_retaining: bool,
    ) -> rusqlite::Result<Self> {
        let mut store = Self {
            counters: Counters::load(&database)?,
            database,
            routing,
            routes: HashMap::new(),
            is_retaining,
            commit_time: Duration::ZERO,
        };
        store.in_transaction(|store| {
            store.forget_delays()?;
            store.reroute()
        })?;
        Ok(store)
    }

    pub(super) fn totals(&self) -> Totals {
        self.counters.totals()
    }

    pub(super) fn backlog_bytes(&self) -> u64 {
        u64::try_from(self.counters.get(Name::BacklogBytes)).unwrap_or_default()
    }

    /// Commits a group: its changes first, then its webhooks, so that an event whose predecessor
    /// is settled here is the head of its session.
    pub(super) fn commit(
        &mut self,
        group: &Group,
        now: Timestamp,
        retention: &Retention,
    ) -> rusqlite::Result<Committed> {
        self.in_transaction(|store| {
            let mut committed = Committed::default();
            for change in &group.changes {
                if let Some(ack) = store.change(change, now)? {
                    committed.acks.push(ack);
                }
            }
            for event in group.webhooks.iter().flat_map(|webhook| &webhook.events) {
                let held = store.append(event)?;
                committed.fresh.push(held);
            }
            // Twice what is settled, so that it catches up; never so much that answers wait.
            store.expire(now, retention, EXPIRED_MIN.max(2 * group.changes.len()))?;
            Ok(committed)
        })
    }

    /// Follows a new configuration: every unsettled event gets the route it has by now.
    pub(super) fn set_routing(&mut self, routing: Arc<Routing>) -> rusqlite::Result<()> {
        let before = std::mem::replace(&mut self.routing, routing);
        self.in_transaction(Self::reroute)
            .inspect_err(|_| self.routing = before)
    }

    /// Takes over events of a damaged database; returns how many.
    pub(super) fn carry(&mut self, events: &[Event]) -> rusqlite::Result<u64> {
        self.in_transaction(|store| {
            for event in events {
                store.append(event)?;
            }
            Ok(events.len() as u64)
        })
    }

    /// Remembers that events were lost; returns how many.
    pub(super) fn count_lost(&mut self, events: u64) -> rusqlite::Result<u64> {
        self.in_transaction(|store| {
            store
                .counters
                .add(Name::LostEvents, i64::try_from(events).unwrap_or(i64::MAX));
            Ok(events)
        })
    }

    /// Writes something, to see whether the disk takes it.
    pub(super) fn probe(&mut self) -> rusqlite::Result<()> {
        self.in_transaction(|store| {
            store
                .database
                .execute(
                    "INSERT INTO settings (name, value) VALUES ('probe', '1') ON CONFLICT
                     DO UPDATE SET value = value + 1",
                    [],
                )
                .map(drop)
        })
    }

    /// When the oldest unsettled event was received.
    pub(super) fn oldest(&self) -> rusqlite::Result<Option<Timestamp>> {
        let micros: Option<i64> = self
            .database
            .prepare_cached(
                "SELECT received_at FROM events WHERE seq = (SELECT min(seq) FROM pending)",
            )?
            .query_row([], |row| row.get(0))
            .optional()?;
        Ok(micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()))
    }

    /// Copies the WAL into the database; says whether all of it could be.
    pub(super) fn checkpoint(&self) -> rusqlite::Result<bool> {
        self.database
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok(row.get::<_, i64>(1)? == row.get::<_, i64>(2)?)
            })
    }

    /// Gives free pages back to the file system, at most `pages_max` of them; returns how many
    /// are left.
    pub(super) fn shrink(&self, pages_max: u32) -> rusqlite::Result<i64> {
        let free = |store: &Self| {
            store
                .database
                .pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0))
        };
        let used: i64 = self
            .database
            .pragma_query_value(None, "page_count", |row| row.get(0))?;
        // Some free pages are good to have: the next backlog need not grow the file.
        if free(self)? * 4 < used || used < 4096 {
            return Ok(0);
        }
        self.database
            .execute_batch(&format!("PRAGMA incremental_vacuum({pages_max})"))?;
        free(self)
    }

    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let before = self.counters.clone();
        self.database.execute_batch("BEGIN IMMEDIATE")?;
        let result = work(self).and_then(|done| {
            self.counters.store(&self.database)?;
            let began = Instant::now();
            self.database.execute_batch("COMMIT")?;
            self.commit_time = began.elapsed();
            Ok(done)
        });
        if result.is_err() {
            self.counters = before;
            self.routes.clear();
            if !self.database.is_autocommit() {
                // SQLite has perhaps rolled back by itself; then this is refused.
                let _ = self.database.execute_batch("ROLLBACK");
            }
        }
        result
    }

    /// Deletes the oldest settled events that are too old or too many, at most `limit` of them.
    fn expire(
        &mut self,
        now: Timestamp,
        retention: &Retention,
        limit: usize,
    ) -> rusqlite::Result<()> {
        let before = now
            .as_microsecond()
            .saturating_sub(i64::try_from(retention.age_max.as_micros()).unwrap_or(i64::MAX));
        let bytes_max = i64::try_from(retention.bytes_max).unwrap_or(i64::MAX);
        for _ in 0..limit {
            let Some((seq, at, bytes)) = self.oldest_settled()? else {
                break;
            };
            if at > before && self.counters.get(Name::RetainedBytes) <= bytes_max {
                break;
            }
            self.delete("DELETE FROM settled WHERE seq = ?1", seq)?;
            self.delete("DELETE FROM events WHERE seq = ?1", seq)?;
            self.counters.add(Name::RetainedBytes, -bytes);
        }
        Ok(())
    }

    fn oldest_settled(&self) -> rusqlite::Result<Option<(Seq, i64, i64)>> {
        self.database
            .prepare_cached(
                "SELECT seq, at, bytes FROM settled WHERE kept = 0 ORDER BY at LIMIT 1",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()
    }

    fn append(&mut self, event: &Event) -> rusqlite::Result<Held> {
        let seq = self.counters.get(Name::NextSeq) + 1;
        let route = self.routing.route(event);
        let route_id = self.route_id(&route)?;
        let label: Arc<str> = Arc::from(self.routing.routed_status(event));
        let is_head = match event.session() {
            Some(session) => self.next_of(&event.envelope.source, session)?.is_none(),
            None => true,
        };
        self.insert_event(seq, event)?;
        self.database
            .prepare_cached(
                "INSERT INTO pending (seq, source, session, bytes, label, route, head, due, attempts)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0)",
            )?
            .execute((
                seq,
                &event.envelope.source,
                event.session(),
                size(event),
                &label,
                route_id,
                is_head,
            ))?;
        self.counters.add(Name::NextSeq, 1);
        self.counters.add(Name::BacklogEvents, 1);
        self.counters.add(Name::BacklogBytes, size(event));
        self.counters
            .add_labelled(Name::Accepted, &event.envelope.source, &label, 1);
        Ok(Held {
            seq,
            event: Arc::new(event.clone()),
            label,
            route,
            route_id,
            is_head,
            attempts: 0,
            condemned: None,
            is_damaged: false,
        })
    }

    fn insert_event(&self, seq: Seq, event: &Event) -> rusqlite::Result<()> {
        let (fields, reject) = match &event.content {
            Content::Session(fields) => (Some(fields), None),
            Content::Reject(reject) => (None, Some(reject)),
        };
        let envelope = &event.envelope;
        self.database
            .prepare_cached(
                "INSERT INTO events VALUES (:seq, :webhook_id, :webhook_index, :source,
                 :received_at, :traceparent, :tracestate, :message_id, :session, :status,
                 :session_type, :previous_status, :company, :reject_reason, :reject_detail, :body)",
            )?
            .execute(named_params! {
                ":seq": seq,
                ":webhook_id": envelope.webhook_id.as_bytes(),
                ":webhook_index": event.index,
                ":source": envelope.source,
                ":received_at": envelope.received_at.as_microsecond(),
                ":traceparent": envelope.traceparent,
                ":tracestate": envelope.tracestate,
                ":message_id": event.message_id.as_bytes(),
                ":session": fields.map(|fields| fields.session.as_str()),
                ":status": fields.map(|fields| cut(&fields.status)),
                ":session_type": fields.and_then(|fields| fields.session_type.as_deref()).map(cut),
                ":previous_status":
                    fields.and_then(|fields| fields.previous_status.as_deref()).map(cut),
                ":company": fields.and_then(|fields| fields.company.as_deref()).map(cut),
                ":reject_reason": reject.map(|reject| reject.reason.as_str()),
                ":reject_detail": reject.map(|reject| reject.detail.as_str()),
                ":body": event.body.as_ref(),
            })?;
        Ok(())
    }

    fn change(&mut self, change: &Change, now: Timestamp) -> rusqlite::Result<Option<Ack>> {
        match change {
            Change::Settle {
                seq,
                label,
                settlement,
                attempts,
            } => self.settle(*seq, label, *settlement, *attempts, now),
            Change::Defer {
                seq,
                due_ms,
                attempts,
                condemned,
            } => self.defer(*seq, *due_ms, *attempts, condemned.as_ref()),
        }
    }

    /// `None` if the event is not pending any more.
    fn settle(
        &mut self,
        seq: Seq,
        label: &Arc<str>,
        settlement: Settlement,
        attempts: u32,
        now: Timestamp,
    ) -> rusqlite::Result<Option<Ack>> {
        let found = self
            .database
            .prepare_cached("DELETE FROM pending WHERE seq = ?1 RETURNING source, session, bytes")?
            .query_row([seq], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, Option<String>>(1)?,
                    row.get::<_, i64>(2)?,
                ))
            })
            .optional()?;
        let Some((source, session, bytes)) = found else {
            return Ok(None);
        };
        let promoted = match session {
            Some(session) => self.promote(&source, &session)?,
            None => None,
        };
        if self.is_retaining || settlement.is_kept() {
            self.retain(seq, settlement, attempts, bytes, now)?;
        } else {
            self.delete("DELETE FROM events WHERE seq = ?1", seq)?;
        }
        self.counters.add(Name::BacklogEvents, -1);
        self.counters.add(Name::BacklogBytes, -bytes);
        let none = Arc::from("");
        match settlement {
            Settlement::Published => self.counters.add_labelled(Name::Published, &none, label, 1),
            Settlement::DeadLettered(reason) => {
                let reason = Arc::from(reason.as_str());
                self.counters
                    .add_labelled(Name::DeadLettered, &none, &reason, 1);
            }
        }
        Ok(Some(Ack::Settled { seq, promoted }))
    }

    fn retain(
        &mut self,
        seq: Seq,
        settlement: Settlement,
        attempts: u32,
        bytes: i64,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let is_kept = settlement.is_kept();
        self.database
            .prepare_cached("INSERT INTO settled VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute((
                seq,
                now.as_microsecond(),
                settlement.as_str(),
                attempts,
                bytes,
                is_kept,
            ))?;
        if !is_kept {
            self.counters.add(Name::RetainedBytes, bytes);
        }
        Ok(())
    }

    fn promote(&self, source: &str, session: &str) -> rusqlite::Result<Option<RouteId>> {
        let Some(next) = self.next_of(source, session)? else {
            return Ok(None);
        };
        self.database
            .prepare_cached("UPDATE pending SET head = 1 WHERE seq = ?1 RETURNING route")?
            .query_row([next], |row| row.get(0))
            .map(Some)
    }

    fn next_of(&self, source: &str, session: &str) -> rusqlite::Result<Option<Seq>> {
        self.database
            .prepare_cached(
                "SELECT seq FROM pending WHERE source = ?1 AND session = ?2 ORDER BY seq LIMIT 1",
            )?
            .query_row((source, session), |row| row.get(0))
            .optional()
    }

    fn defer(
        &mut self,
        seq: Seq,
        due_ms: u64,
        attempts: u32,
        condemned: Option<&Condemned>,
    ) -> rusqlite::Result<Option<Ack>> {
        let due = i64::try_from(due_ms).unwrap_or(i64::MAX);
        let route_id = match condemned {
            Some(letter) => {
                let route = self.routing.dead_letter_route(letter.reason);
                let route_id = self.route_id(&route)?;
                self.database
                    .prepare_cached(
                        "UPDATE pending SET due = ?2, attempts = ?3, route = ?4, reason = ?5,
                         detail = ?6, at = ?7 WHERE seq = ?1 RETURNING route",
                    )?
                    .query_row(
                        (
                            seq,
                            due,
                            attempts,
                            route_id,
                            letter.reason.as_str(),
                            &letter.detail,
                            letter.at.as_microsecond(),
                        ),
                        |row| row.get(0),
                    )
                    .optional()?
            }
            None => self
                .database
                .prepare_cached(
                    "UPDATE pending SET due = ?2, attempts = ?3 WHERE seq = ?1 RETURNING route",
                )?
                .query_row((seq, due, attempts), |row| row.get(0))
                .optional()?,
        };
        Ok(route_id.map(|route_id| Ack::Deferred {
            seq,
            route_id,
            due_ms,
        }))
    }

    fn route_id(&mut self, route: &Arc<Route>) -> rusqlite::Result<RouteId> {
        if let Some(id) = self.routes.get(route) {
            return Ok(*id);
        }
        let id = self
            .database
            .prepare_cached(
                "INSERT INTO routes (exchange, routing_key) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET exchange = excluded.exchange RETURNING id",
            )?
            .query_row((&route.exchange, &route.routing_key), |row| row.get(0))?;
        if self.routes.len() >= ROUTES_CACHED_MAX {
            self.routes.clear();
        }
        self.routes.insert(route.clone(), id);
        Ok(id)
    }

    fn forget_delays(&mut self) -> rusqlite::Result<()> {
        self.database.execute_batch(
            "UPDATE pending SET due = 0 WHERE head = 1 AND due > 0;
             DELETE FROM routes WHERE id NOT IN (SELECT route FROM pending);",
        )
    }

    /// Gives every unsettled event the route it has by the configuration of now. Dead letters keep
    /// theirs unless their exchange has another name.
    fn reroute(&mut self) -> rusqlite::Result<()> {
        // Ordered maps throughout: the same configuration has the same text.
        let configuration = format!("{:?}", self.routing);
        if self.routing_of_the_rows()?.as_ref() == Some(&configuration) {
            return Ok(());
        }
        let mut after = 0;
        loop {
            let page = self.pending_after(after)?;
            let Some((last, ..)) = page.last() else { break };
            after = *last;
            for (seq, event, reason) in page {
                let route = match reason {
                    Some(reason) => self.routing.dead_letter_route(reason),
                    None => self.routing.route(&event),
                };
                let route_id = self.route_id(&route)?;
                let label = self.routing.routed_status(&event).to_owned();
                self.database
                    .prepare_cached("UPDATE pending SET route = ?2, label = ?3 WHERE seq = ?1")?
                    .execute((seq, route_id, label))?;
            }
        }
        self.database.execute(
            "INSERT INTO settings (name, value) VALUES ('routing', ?1)
             ON CONFLICT DO UPDATE SET value = excluded.value",
            [configuration],
        )?;
        Ok(())
    }

    fn routing_of_the_rows(&self) -> rusqlite::Result<Option<String>> {
        self.database
            .query_row(
                "SELECT value FROM settings WHERE name = 'routing'",
                [],
                |row| row.get(0),
            )
            .optional()
    }

    fn pending_after(&self, seq: Seq) -> rusqlite::Result<Vec<(Seq, Event, Option<Reason>)>> {
        self.database
            .prepare_cached(
                "SELECT e.*, p.reason FROM pending p JOIN events e USING (seq)
                 WHERE p.seq > ?1 ORDER BY p.seq LIMIT 100",
            )?
            .query_map([seq], |row| {
                let reason: Option<String> = row.get("reason")?;
                let reason = reason.and_then(|reason| Reason::from_name(&reason));
                Ok((row.get("seq")?, super::reader::event(row)?, reason))
            })?
            .collect()
    }

    fn delete(&self, statement: &str, seq: Seq) -> rusqlite::Result<()> {
        self.database
            .prepare_cached(statement)?
            .execute([seq])
            .map(drop)
    }
}

fn size(event: &Event) -> i64 {
    i64::try_from(event.body.len()).unwrap_or(i64::MAX)
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(FIELD_BYTES_MAX)]
}
