//! Gives the rows of `pending` the routes of the current configuration, page by page between other
//! transactions, and ends the delays of an earlier process. Neither reads the whole backlog at
//! once.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::Store;
use crate::failpoint::{self, Failpoint};
use crate::journal::interface::{RouteId, Seq};
use crate::journal::schema::setting;
use crate::journal::stored::{LastPart, Values};
use crate::journal::window::Rerouting;
use crate::webhook::DeadLetterReason;

/// Rows that are rerouted in one transaction.
pub(in crate::journal) const REROUTED_EVENTS_MAX: u32 = 1000;

/// The routes of heads with rows: one seek in the index per route, instead of a read per event.
pub(in crate::journal) fn routes_of_rows(
    database: &Connection,
) -> rusqlite::Result<BTreeSet<RouteId>> {
    database
        .prepare_cached(
            "WITH RECURSIVE found (route) AS (
               SELECT min(route) FROM pending INDEXED BY pending_head WHERE head = 1
               UNION ALL
               SELECT (SELECT min(route) FROM pending INDEXED BY pending_head
                       WHERE head = 1 AND route > found.route)
               FROM found WHERE found.route IS NOT NULL)
             SELECT route FROM found WHERE route IS NOT NULL",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// An event with a row, and its route so far.
struct Queued {
    seq: Seq,
    routed_status: String,
    route_id: RouteId,
    dead_letter_cause: Option<DeadLetterReason>,
    is_head: bool,
}

impl Store {
    /// Ends the delays of an earlier process: time 0 of this process's clock is set to the latest
    /// due time.
    pub(super) fn end_delays(&mut self) -> rusqlite::Result<()> {
        for route_id in routes_of_rows(&self.database)? {
            let latest: i64 = self
                .database
                .prepare_cached(
                    "SELECT max(due) FROM pending INDEXED BY pending_head
                     WHERE head = 1 AND route = ?1",
                )?
                .query_row([route_id], |row| row.get(0))?;
            self.window.due_base = self.window.due_base.max(latest);
        }
        Ok(())
    }

    /// Deletes unused rows of `routes`, but only if `pending` is empty: otherwise it would have to
    /// be read.
    pub(super) fn forget_routes(&mut self) -> rusqlite::Result<()> {
        if self.is_any_pending(Seq::MIN, Seq::MAX)? {
            return Ok(());
        }
        let used = self.window.routes_of_all();
        let used: Vec<String> = used.iter().map(RouteId::to_string).collect();
        let unused = format!("DELETE FROM routes WHERE id NOT IN ({})", used.join(","));
        self.database.execute(&unused, [])?;
        self.routes
            .retain(|_, route_id| used.contains(&route_id.to_string()));
        Ok(())
    }

    /// Starts to reroute if the rows were routed by another configuration, or continues after a
    /// restart. No row is fetched before it has its new route; rows that are inserted later have it
    /// already.
    pub(super) fn begin_reroute(&mut self) -> rusqlite::Result<()> {
        let fingerprint = self.routing.fingerprint();
        if setting(&self.database, "routing")?.as_ref() != Some(&fingerprint) {
            failpoint::pass(Failpoint::JournalRerouteBefore);
            self.set_setting("routing", &fingerprint)?;
            let last: Option<Seq> =
                self.database
                    .query_row("SELECT max(seq) FROM pending", [], |row| row.get(0))?;
            self.window.rerouting = last.map(|last| Rerouting { done: 0, last });
            self.note_reroute()?;
            failpoint::pass(Failpoint::JournalRerouteAfter);
            return Ok(());
        }
        let rest = setting(&self.database, "rerouting")?;
        self.window.rerouting = rest.and_then(|rest| serde_json::from_str(&rest).ok());
        Ok(())
    }

    /// Reroutes the next page of rows; returns the routes of the heads in it. `None` if every row
    /// has its current route.
    pub(in crate::journal) fn reroute(&mut self) -> rusqlite::Result<Option<BTreeSet<RouteId>>> {
        if self.lock_window().rerouting.is_none() {
            return Ok(None);
        }
        self.in_transaction(Self::reroute_page).map(Some)
    }

    fn reroute_page(&mut self) -> rusqlite::Result<BTreeSet<RouteId>> {
        let Some(mut rerouting) = self.window.rerouting else {
            return Ok(BTreeSet::new());
        };
        failpoint::pass(Failpoint::JournalRerouteBefore);
        let (page, mut routes) = (self.queued_in(&rerouting)?, BTreeSet::new());
        let mut part = LastPart::default();
        for queued in &page {
            let route_id = self.reroute_one(queued, &mut part)?;
            if queued.is_head {
                routes.insert(route_id);
            }
        }
        match page.last() {
            Some(last) if page.len() >= REROUTED_EVENTS_MAX as usize => {
                rerouting.done = last.seq;
                self.window.rerouting = Some(rerouting);
            }
            _ => {
                self.window.rerouting = None;
                // Rescheduled heads that became due in the meantime were not fetched either.
                routes = routes_of_rows(&self.database)?;
            }
        }
        self.note_reroute()?;
        failpoint::pass(Failpoint::JournalRerouteAfter);
        Ok(routes)
    }

    fn reroute_one(&mut self, queued: &Queued, part: &mut LastPart) -> rusqlite::Result<RouteId> {
        // An event whose row of `webhooks` is lost becomes a dead letter when it is its turn.
        let Some(part) = part.containing(&self.database, queued.seq)? else {
            return Ok(queued.route_id);
        };
        let event = part.event_without_body(queued.seq);
        let route = match queued.dead_letter_cause {
            Some(reason) => self.routing.dead_letter_route(reason),
            None => self.routing.route(&event),
        };
        let route_id = self.route_id(&route)?;
        let routed_status = self.routing.routed_status(&event);
        if route_id != queued.route_id || routed_status != queued.routed_status {
            self.database
                .prepare_cached("UPDATE pending SET route = ?2, label = ?3 WHERE seq = ?1")?
                .execute((queued.seq, route_id, routed_status))?;
        }
        Ok(route_id)
    }

    fn note_reroute(&self) -> rusqlite::Result<()> {
        let rest = serde_json::to_string(&self.window.rerouting);
        self.set_setting("rerouting", &rest.expect("numbers can be written as JSON"))
    }

    fn set_setting(&self, name: &str, value: &str) -> rusqlite::Result<()> {
        self.database
            .prepare_cached(
                "INSERT INTO settings (name, value) VALUES (?1, ?2)
                 ON CONFLICT DO UPDATE SET value = excluded.value",
            )?
            .execute((name, value))
            .map(drop)
    }

    fn queued_in(&self, rerouting: &Rerouting) -> rusqlite::Result<Vec<Queued>> {
        self.database
            .prepare_cached(
                "SELECT seq, label, route, reason, head FROM pending
                 WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
            )?
            .query_map(
                (rerouting.done, rerouting.last, REROUTED_EVENTS_MAX),
                |row| {
                    let mut values = Values::of(row);
                    let mut dead_letter_cause = values.reason(3, "reason")?;
                    if values.unknown.is_some() {
                        dead_letter_cause = Some(DeadLetterReason::Damaged);
                    }
                    Ok(Queued {
                        seq: row.get(0)?,
                        routed_status: values.needed_text(1, "label")?,
                        route_id: row.get(2)?,
                        dead_letter_cause,
                        is_head: row.get(4)?,
                    })
                },
            )?
            .collect()
    }
}
