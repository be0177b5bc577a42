//! Events come in: one row of what was received, one of its place in the queue.

use std::sync::Arc;

use rusqlite::OptionalExtension;

use super::{Name, Store, stored};
use crate::failpoint::{self, Place};
use crate::journal::rows::{Held, RouteId, Seq};
use crate::journal::weight;
use crate::webhook::Event;
use crate::webhook::routing::Route;

/// Routes kept in memory by number; beyond that they are looked up again.
const ROUTES_CACHED_MAX: usize = 10_000;

pub(in crate::journal) const FIRST_OF: &str =
    "SELECT seq, route FROM pending WHERE source = ?1 AND session = ?2 ORDER BY seq LIMIT 1";

impl Store {
    pub(super) fn append(&mut self, event: &Event) -> rusqlite::Result<Held> {
        failpoint::pass(Place::JournalAppendBefore);
        let seq = self.counters.get(Name::LastSeq) + 1;
        let source = &event.envelope.source;
        let bytes = i64::try_from(event.body.len()).unwrap_or(i64::MAX);
        let label: Arc<str> = Arc::from(self.routing.routed_status(event));
        let route = self.routing.route(event);
        let route_id = self.route_id(&route)?;
        let is_head = match event.session() {
            Some(session) => self.first_of(source, session)?.is_none(),
            None => true,
        };
        if let Some(session) = event.session() {
            self.sessions.came(source, session);
        }
        stored::write(&self.database, seq, event)?;
        self.database
            .prepare_cached(
                "INSERT INTO pending (seq, source, session, bytes, label, route, head, due, attempts)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0)",
            )?
            .execute((seq, source, event.session(), bytes, &label, route_id, is_head))?;
        self.counters.add(Name::LastSeq, 1);
        self.counters.add(Name::BacklogEvents, 1);
        self.counters.add(Name::BacklogBytes, weight::of_row(bytes));
        self.counters.add_of_source(Name::Accepted, source, &label);
        failpoint::pass(Place::JournalAppendAfter);
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
            is_whole: true,
        })
    }

    /// The first unsettled event of a session, and its route.
    pub(super) fn first_of(
        &self,
        source: &str,
        session: &str,
    ) -> rusqlite::Result<Option<(Seq, RouteId)>> {
        if !self.sessions.may_wait(source, session) {
            return Ok(None);
        }
        self.database
            .prepare_cached(FIRST_OF)?
            .query_row((source, session), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    pub(super) fn route_id(&mut self, route: &Arc<Route>) -> rusqlite::Result<RouteId> {
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
}
