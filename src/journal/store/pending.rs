//! The rows of `pending`: events that were rejected or have waited for long, and those that wait
//! behind them.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{OptionalExtension, named_params};

use super::{Name, Store, disk_size};
use crate::journal::interface::{RouteId, Seq};
use crate::journal::window::Waiting;
use crate::webhook::Event;
use crate::webhook::routing::Route;

/// Route numbers cached in memory; when there are more, the cache is cleared.
const ROUTES_CACHED_MAX: usize = 10_000;

pub(in crate::journal) const FIRST_OF: &str =
    "SELECT seq, route FROM pending WHERE source = ?1 AND session = ?2 ORDER BY seq LIMIT 1";

/// The source and the session of an event; a reject has no session.
type Owner = (Arc<str>, Option<Arc<str>>);

impl Store {
    /// The entry of an event in the window, with its current route.
    pub(super) fn waiting(
        &mut self,
        event: &Event,
        routed_status: Arc<str>,
        bytes: u64,
    ) -> rusqlite::Result<Waiting> {
        let route = self.routing.route(event);
        let route_id = self.route_id(&route)?;
        let session = event.session_id().cloned();
        Ok(Waiting::new(
            session,
            routed_status,
            (route_id, route),
            bytes,
        ))
    }

    /// Gives an event a row in `pending`.
    pub(super) fn insert_pending(
        &mut self,
        seq: Seq,
        source: &str,
        event: &Waiting,
        is_head: bool,
    ) -> rusqlite::Result<()> {
        self.database
            .prepare_cached(
                "INSERT INTO pending (seq, source, session, bytes, label, route, head, due, attempts)
                 VALUES (:seq, :source, :session, :bytes, :label, :route, :head, 0, 0)",
            )?
            .execute(named_params! {
                ":seq": seq,
                ":source": source,
                ":session": event.session,
                ":bytes": disk_size::signed(event.bytes),
                ":label": event.routed_status,
                ":route": event.route_id,
                ":head": is_head,
            })?;
        if let Some(part) = self.window.part_mut(seq) {
            part.has_rows = true;
        }
        if let Some(session) = &event.session {
            self.window.sessions_with_rows.row_added(source, session);
        }
        self.counters
            .add(Name::BacklogBytes, disk_size::PENDING_BYTES);
        Ok(())
    }

    /// Deletes the row of an event, and returns its source and session. `None` if there is no row.
    pub(super) fn delete_pending(&mut self, seq: Seq) -> rusqlite::Result<Option<Owner>> {
        // Two statements, because RETURNING would build a temporary table with pages of its own
        // each time.
        let found: Option<Owner> = self
            .database
            .prepare_cached("SELECT source, session FROM pending WHERE seq = ?1")?
            .query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((source, session)) = &found {
            self.delete("DELETE FROM pending WHERE seq = ?1", seq)?;
            if let Some(session) = session {
                self.window.sessions_with_rows.row_removed(source, session);
            }
            self.counters
                .add(Name::BacklogBytes, -disk_size::PENDING_BYTES);
        }
        Ok(found)
    }

    /// Gives rows to the oldest events that have been in the window for `age`, and to the later
    /// events of their sessions.
    pub(super) fn give_rows_to_aged(
        &mut self,
        age: Duration,
        events_max: usize,
    ) -> rusqlite::Result<()> {
        for seq in self.window.older_than(age, events_max) {
            self.give_rows_from(seq)?;
        }
        Ok(())
    }

    /// Gives rows to an event of the window and to the later events of its session there.
    pub(super) fn give_rows_from(&mut self, seq: Seq) -> rusqlite::Result<()> {
        let chain = self.window.remove_chain(seq);
        for (position, left) in chain.iter().enumerate() {
            self.insert_pending(left.seq, &left.source, &left.event, position == 0)?;
        }
        Ok(())
    }

    /// The first event of a session that has a row in `pending`, and its route.
    pub(super) fn first_pending(
        &self,
        source: &str,
        session: &str,
    ) -> rusqlite::Result<Option<(Seq, RouteId)>> {
        if !self.window.sessions_with_rows.may_contain(source, session) {
            return Ok(None);
        }
        self.database
            .prepare_cached(FIRST_OF)?
            .query_row((source, session), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    /// Makes the first event of a session with a row its head; returns its route.
    pub(super) fn promote(&self, source: &str, session: &str) -> rusqlite::Result<Option<RouteId>> {
        let Some((next, route_id)) = self.first_pending(source, session)? else {
            return Ok(None);
        };
        self.database
            .prepare_cached("UPDATE pending SET head = 1 WHERE seq = ?1")?
            .execute([next])?;
        Ok(Some(route_id))
    }

    /// Whether any event of the range has a row in `pending`.
    pub(super) fn is_any_pending(&self, first: Seq, last: Seq) -> rusqlite::Result<bool> {
        self.database
            .prepare_cached("SELECT 1 FROM pending WHERE seq BETWEEN ?1 AND ?2")?
            .exists((first, last))
    }

    pub(super) fn route_id(&mut self, route: &Arc<Route>) -> rusqlite::Result<RouteId> {
        if let Some(id) = self.routes.get(route) {
            return Ok(*id);
        }
        // Queries before it inserts: reading the window back must work on a full disk, too.
        let known = self
            .database
            .prepare_cached("SELECT id FROM routes WHERE exchange = ?1 AND routing_key = ?2")?
            .query_row((&route.exchange, &route.routing_key), |row| row.get(0))
            .optional()?;
        let id = if let Some(id) = known {
            id
        } else {
            self.database
                .prepare_cached("INSERT INTO routes (exchange, routing_key) VALUES (?1, ?2)")?
                .execute((&route.exchange, &route.routing_key))?;
            self.database.last_insert_rowid()
        };
        if self.routes.len() >= ROUTES_CACHED_MAX {
            self.routes.clear();
        }
        self.routes.insert(route.clone(), id);
        Ok(id)
    }

    pub(super) fn delete(&self, statement: &str, seq: Seq) -> rusqlite::Result<()> {
        self.database
            .prepare_cached(statement)?
            .execute([seq])
            .map(drop)
    }
}
