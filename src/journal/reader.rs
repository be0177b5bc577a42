//! The forwarder's half of the database: takes the next events of a route. What a take costs
//! depends on what it takes, not on how much is parked.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, StatementStatus};
use uuid::Uuid;

use super::rows::{Condemned, Held, RouteId, Seq};
use super::schema::{self, SchemaError};
use crate::webhook::routing::Route;
use crate::webhook::{Content, Envelope, Event, Fields, Reason, Reject, identity};

/// Followers of one session handed out with its head.
const FOLLOWERS_MAX: usize = 32;
/// One more, to see whether there are more.
const FOLLOWERS_SOUGHT: i64 = 33;

/// What to take from a route.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which route.
    pub route_id: RouteId,
    /// Heads that are known already.
    pub skip: HashSet<Seq>,
    /// Events at most.
    pub events_max: usize,
    /// Bytes of bodies at most; one event is handed out whatever its size.
    pub bytes_max: u64,
    /// The forwarder's clock: what is due later stays.
    pub now_ms: u64,
}

/// The next events of a route.
#[derive(Debug, Default)]
pub struct Taken {
    /// Heads with what follows in their sessions.
    pub runs: Vec<Run>,
    /// Whether more of the route is due now.
    pub has_more: bool,
    /// When the next of its refused heads is due.
    pub next_due_ms: Option<u64>,
}

/// The first unsettled events of one session, in order; not empty.
#[derive(Debug)]
pub struct Run {
    /// The events; the first is the session's head.
    pub events: Vec<Held>,
    /// Whether the session has more than these.
    pub has_more: bool,
}

/// A connection that only reads.
#[derive(Debug)]
pub(super) struct Reader {
    database: Connection,
    steps: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, SchemaError> {
        let database = schema::open_reading(path)?;
        database.set_prepared_statement_cache_capacity(16);
        Ok(Self { database, steps: 0 })
    }

    /// The routes that have something to publish.
    pub(super) fn routes(&self) -> rusqlite::Result<Vec<RouteId>> {
        // A loose scan of the index: one seek a route, not one row an event.
        self.database
            .prepare(
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

    /// Takes the next events of a route, all from one snapshot: refused ones that are due again
    /// first, at most half of the window, so that neither they nor the others starve.
    pub(super) fn take(&mut self, request: &Request) -> rusqlite::Result<Taken> {
        self.database.execute_batch("BEGIN")?;
        let taken = self.take_in_snapshot(request);
        self.database.execute_batch("COMMIT")?;
        taken
    }

    /// Steps of SQLite's virtual machine so far.
    #[cfg(test)]
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    fn take_in_snapshot(&mut self, request: &Request) -> rusqlite::Result<Taken> {
        let due = self.due_heads(request)?;
        let fresh_max = request.events_max.saturating_sub(due.len());
        let (fresh, has_more) = self.fresh_heads(request, fresh_max)?;
        let mut taken = Taken {
            has_more: has_more || due.len() >= due_max(request),
            next_due_ms: self.next_due(request)?,
            ..Taken::default()
        };
        let (mut events, mut bytes) = (0, 0);
        for seq in due.into_iter().chain(fresh) {
            if events >= request.events_max || (events > 0 && bytes >= request.bytes_max) {
                taken.has_more = true;
                break;
            }
            let Some(run) = self.run(seq, request, &mut events, &mut bytes)? else {
                continue;
            };
            taken.runs.push(run);
        }
        Ok(taken)
    }

    fn due_heads(&mut self, request: &Request) -> rusqlite::Result<Vec<Seq>> {
        let mut statement = self.database.prepare_cached(
            "SELECT seq FROM pending INDEXED BY pending_head
             WHERE head = 1 AND route = ?1 AND due > 0 AND due <= ?2 ORDER BY due, seq",
        )?;
        let mut rows = statement.query((request.route_id, clock(request.now_ms)))?;
        let mut found = Vec::new();
        while found.len() < due_max(request) {
            let Some(row) = rows.next()? else { break };
            let seq = row.get(0)?;
            if !request.skip.contains(&seq) {
                found.push(seq);
            }
        }
        drop(rows);
        self.steps += steps_of(&statement);
        Ok(found)
    }

    fn fresh_heads(&mut self, request: &Request, max: usize) -> rusqlite::Result<(Vec<Seq>, bool)> {
        let mut statement = self.database.prepare_cached(
            "SELECT seq FROM pending INDEXED BY pending_head
             WHERE head = 1 AND route = ?1 AND due = 0 ORDER BY seq",
        )?;
        let mut rows = statement.query([request.route_id])?;
        let mut found = Vec::new();
        let mut has_more = false;
        while let Some(row) = rows.next()? {
            let seq = row.get(0)?;
            if request.skip.contains(&seq) {
                continue;
            }
            if found.len() >= max {
                has_more = true;
                break;
            }
            found.push(seq);
        }
        drop(rows);
        self.steps += steps_of(&statement);
        Ok((found, has_more))
    }

    fn next_due(&mut self, request: &Request) -> rusqlite::Result<Option<u64>> {
        let mut statement = self.database.prepare_cached(
            "SELECT due FROM pending INDEXED BY pending_head
             WHERE head = 1 AND route = ?1 AND due > ?2 ORDER BY due LIMIT 1",
        )?;
        let due: Option<i64> = statement
            .query_row((request.route_id, clock(request.now_ms)), |row| row.get(0))
            .optional()?;
        self.steps += steps_of(&statement);
        Ok(due.and_then(|due| u64::try_from(due).ok()))
    }

    /// A head and what follows it; `None` if it is gone.
    fn run(
        &mut self,
        head: Seq,
        request: &Request,
        events: &mut usize,
        bytes: &mut u64,
    ) -> rusqlite::Result<Option<Run>> {
        let Some(first) = self.held(head)? else {
            return Ok(None);
        };
        *events += 1;
        *bytes += first.event.body.len() as u64;
        let mut run = Run {
            events: Vec::new(),
            has_more: false,
        };
        let followers = match first.event.session() {
            Some(session) => self.followers(&first.event.envelope.source, session, head)?,
            None => Vec::new(),
        };
        run.events.push(first);
        for seq in followers {
            let is_full = *events >= request.events_max || *bytes >= request.bytes_max;
            if is_full || run.events.len() > FOLLOWERS_MAX {
                run.has_more = true;
                break;
            }
            let Some(follower) = self.held(seq)? else {
                break;
            };
            *events += 1;
            *bytes += follower.event.body.len() as u64;
            run.events.push(follower);
        }
        Ok(Some(run))
    }

    fn followers(&mut self, source: &str, session: &str, head: Seq) -> rusqlite::Result<Vec<Seq>> {
        let mut statement = self.database.prepare_cached(
            "SELECT seq FROM pending WHERE source = ?1 AND session = ?2 AND seq > ?3
             ORDER BY seq LIMIT ?4",
        )?;
        let found = statement
            .query_map((source, session, head, FOLLOWERS_SOUGHT), |row| row.get(0))?
            .collect();
        self.steps += steps_of(&statement);
        found
    }

    fn held(&mut self, seq: Seq) -> rusqlite::Result<Option<Held>> {
        let mut statement = self.database.prepare_cached(
            "SELECT e.*, p.label, p.route, r.exchange, r.routing_key, p.head, p.attempts, p.reason,
                    p.detail, p.at
             FROM pending p JOIN events e USING (seq) JOIN routes r ON r.id = p.route
             WHERE p.seq = ?1",
        )?;
        let held = statement.query_row([seq], held).optional();
        self.steps += steps_of(&statement);
        held
    }
}

fn due_max(request: &Request) -> usize {
    request.events_max.div_ceil(2)
}

fn clock(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn steps_of(statement: &CachedStatement<'_>) -> u64 {
    u64::try_from(statement.reset_status(StatementStatus::VmStep)).unwrap_or_default()
}

fn held(row: &Row<'_>) -> rusqlite::Result<Held> {
    let event = event(row)?;
    let condemned = match row.get::<_, Option<String>>("reason")? {
        Some(reason) => Some(Condemned {
            reason: Reason::from_name(&reason).unwrap_or(Reason::Damaged),
            detail: row.get::<_, Option<String>>("detail")?.unwrap_or_default(),
            at: timestamp(row.get::<_, Option<i64>>("at")?.unwrap_or_default()),
        }),
        None => None,
    };
    Ok(Held {
        seq: row.get("seq")?,
        is_damaged: !identity::is_intact(&event),
        event: Arc::new(event),
        label: row.get("label")?,
        route: Arc::new(Route {
            exchange: row.get("exchange")?,
            routing_key: row.get("routing_key")?,
        }),
        route_id: row.get("route")?,
        is_head: row.get("head")?,
        attempts: row.get("attempts")?,
        condemned,
    })
}

/// The event in a row that has all columns of `events`.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let content = match row.get("session")? {
        Some(session) => Content::Session(Fields {
            session,
            status: row.get::<_, Option<String>>("status")?.unwrap_or_default(),
            session_type: row.get("session_type")?,
            previous_status: row.get("previous_status")?,
            company: row.get("company")?,
        }),
        None => Content::Reject(Reject {
            reason: row
                .get::<_, Option<String>>("reject_reason")?
                .and_then(|reason| Reason::from_name(&reason))
                .unwrap_or(Reason::Invalid),
            detail: row
                .get::<_, Option<String>>("reject_detail")?
                .unwrap_or_default(),
        }),
    };
    Ok(Event {
        envelope: Arc::new(Envelope {
            webhook_id: Uuid::from_bytes(row.get("webhook_id")?),
            source: row.get("source")?,
            received_at: timestamp(row.get("received_at")?),
            traceparent: row.get("traceparent")?,
            tracestate: row.get("tracestate")?,
        }),
        index: row.get("webhook_index")?,
        message_id: Uuid::from_bytes(row.get("message_id")?),
        content,
        body: row.get::<_, Vec<u8>>("body")?.into(),
    })
}

fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_default()
}
