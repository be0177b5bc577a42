//! The forwarder's half of the database: takes the next events of a route. What a take costs
//! depends on what it takes, not on how much is parked.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, StatementStatus};

use super::rows::{Condemned, Held, RouteId, Seq};
use super::schema::{self, SchemaError};
use super::stored::{self, Stored, Values, columns};
use crate::memory;
use crate::webhook::identity;
use crate::webhook::routing::Route;

/// Followers of one session handed out with its head.
const FOLLOWERS_MAX: usize = 32;
/// One more, to see whether there are more.
const FOLLOWERS_SOUGHT: i64 = 33;

const DUE_HEADS: &str = "SELECT seq FROM pending INDEXED BY pending_head
     WHERE head = 1 AND route = ?1 AND due > 0 AND due <= ?2 ORDER BY due, seq";
const FRESH_HEADS: &str = "SELECT seq FROM pending INDEXED BY pending_head
     WHERE head = 1 AND route = ?1 AND due = 0 ORDER BY seq";
const NEXT_DUE: &str = "SELECT due FROM pending INDEXED BY pending_head
     WHERE head = 1 AND route = ?1 AND due > ?2 ORDER BY due LIMIT 1";
const FOLLOWERS: &str = "SELECT seq, bytes FROM pending INDEXED BY pending_session
     WHERE source = ?1 AND session = ?2 AND seq > ?3 ORDER BY seq LIMIT ?4";
const BYTES: &str = "SELECT bytes FROM pending WHERE seq = ?1";
// An event that lost its row is damaged, too; it must not stop its session for ever. A large body
// is read by itself.
const HELD: &str = concat!(
    "SELECT ",
    columns!(body: "CASE WHEN length(e.body) < 1048576 THEN e.body END"),
    ", p.seq, p.label, p.route, r.exchange, r.routing_key, p.head, p.attempts, p.reason, p.detail,
       p.at, length(e.body)
     FROM pending p LEFT JOIN events e USING (seq) JOIN routes r ON r.id = p.route
     WHERE p.seq = ?1"
);

/// What to take from a route.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which route.
    pub route_id: RouteId,
    /// Heads that are known already.
    pub skip: HashSet<Seq>,
    /// Events at most.
    pub events_max: usize,
    /// Bytes of bodies at most; the first event is handed out whatever its size.
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

    /// How often statements were planned again, and how often they ran.
    #[cfg(test)]
    pub(super) fn plans_and_runs(&self) -> (i32, i32) {
        [DUE_HEADS, FRESH_HEADS, NEXT_DUE, FOLLOWERS, BYTES, HELD]
            .map(|statement| {
                self.database
                    .prepare_cached(statement)
                    .expect("it is cached")
            })
            .iter()
            .map(|statement| {
                let status = |of| statement.get_status(of);
                (
                    status(StatementStatus::RePrepare),
                    status(StatementStatus::Run),
                )
            })
            .fold((0, 0), |(plans, runs), (more, ran)| {
                (plans + more, runs + ran)
            })
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
        let mut room = Room::of(request);
        for seq in due.into_iter().chain(fresh) {
            if !room.takes(self.bytes(seq)?) {
                taken.has_more = true;
                break;
            }
            taken.runs.extend(self.run(seq, &mut room)?);
        }
        Ok(taken)
    }

    fn due_heads(&mut self, request: &Request) -> rusqlite::Result<Vec<Seq>> {
        let mut statement = self.database.prepare_cached(DUE_HEADS)?;
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
        let mut statement = self.database.prepare_cached(FRESH_HEADS)?;
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
        let mut statement = self.database.prepare_cached(NEXT_DUE)?;
        let due: Option<i64> = statement
            .query_row((request.route_id, clock(request.now_ms)), |row| row.get(0))
            .optional()?;
        self.steps += steps_of(&statement);
        Ok(due.and_then(|due| u64::try_from(due).ok()))
    }

    /// A head and what follows it; `None` if it is gone.
    fn run(&mut self, head: Seq, room: &mut Room) -> rusqlite::Result<Option<Run>> {
        let Some(first) = self.held(head)? else {
            return Ok(None);
        };
        room.fill(&first);
        let followers = match first.event.session() {
            Some(session) => self.followers(&first.event.envelope.source, session, head)?,
            None => Vec::new(),
        };
        let mut run = Run {
            events: vec![first],
            has_more: false,
        };
        for (seq, bytes) in followers {
            if run.events.len() > FOLLOWERS_MAX || !room.takes(bytes) {
                run.has_more = true;
                break;
            }
            let Some(follower) = self.held(seq)? else {
                break;
            };
            room.fill(&follower);
            run.events.push(follower);
        }
        Ok(Some(run))
    }

    fn followers(
        &mut self,
        source: &str,
        session: &str,
        head: Seq,
    ) -> rusqlite::Result<Vec<(Seq, u64)>> {
        let mut statement = self.database.prepare_cached(FOLLOWERS)?;
        let found = statement
            .query_map((source, session, head, FOLLOWERS_SOUGHT), |row| {
                Ok((row.get(0)?, size(row.get(1)?)))
            })?
            .collect();
        self.steps += steps_of(&statement);
        found
    }

    fn bytes(&mut self, seq: Seq) -> rusqlite::Result<u64> {
        let mut statement = self.database.prepare_cached(BYTES)?;
        let bytes = statement
            .query_row([seq], |row| row.get(0).map(size))
            .optional()?;
        self.steps += steps_of(&statement);
        Ok(bytes.unwrap_or_default())
    }

    fn held(&mut self, seq: Seq) -> rusqlite::Result<Option<Held>> {
        let mut statement = self.database.prepare_cached(HELD)?;
        let database = &self.database;
        let held = statement
            .query_row([seq], |row| {
                held(row, |seq| stored::read_body(database, seq))
            })
            .optional();
        self.steps += steps_of(&statement);
        held
    }
}

/// What is left of a request.
struct Room {
    events: usize,
    bytes: u64,
    is_untouched: bool,
}

impl Room {
    fn of(request: &Request) -> Self {
        Self {
            events: request.events_max,
            bytes: request.bytes_max,
            is_untouched: true,
        }
    }

    fn takes(&self, bytes: u64) -> bool {
        self.events > 0 && (self.is_untouched || bytes <= self.bytes)
    }

    fn fill(&mut self, held: &Held) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(held.event.body.len() as u64);
        self.is_untouched = false;
    }
}

fn due_max(request: &Request) -> usize {
    request.events_max.div_ceil(2)
}

fn clock(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn size(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or_default()
}

fn steps_of(statement: &CachedStatement<'_>) -> u64 {
    u64::try_from(statement.reset_status(StatementStatus::VmStep)).unwrap_or_default()
}

fn held(
    row: &Row<'_>,
    large_body: impl FnOnce(Seq) -> rusqlite::Result<Bytes>,
) -> rusqlite::Result<Held> {
    const PLACE: usize = stored::COLUMNS;
    let Stored { mut event, unknown } = stored::read(row)?;
    let seq = row.get(PLACE)?;
    let length: Option<i64> = row.get(PLACE + 10)?;
    if length.is_some_and(|bytes| size(bytes) >= memory::LARGE_BYTES as u64) {
        event.body = large_body(seq)?;
    }
    let mut values = Values::of(row);
    // A reason that is not known makes it a damaged event, not one that was never condemned.
    let condemned = match values.reason(PLACE + 7, "reason")? {
        Some(reason) => Some(Condemned {
            reason,
            detail: values.text(PLACE + 8, "detail")?.unwrap_or_default(),
            at: values.timestamp(PLACE + 9, "at")?.unwrap_or_default(),
        }),
        None => None,
    };
    let (label, attempts) = (
        values.needed_text(PLACE + 1, "label")?,
        values.number(PLACE + 6, "attempts")?.unwrap_or_default(),
    );
    let unknown = unknown.or(values.unknown);
    if let Some(column) = unknown {
        tracing::error!(
            seq,
            column,
            "unknown value in the journal; the event is damaged"
        );
    }
    Ok(Held {
        seq,
        is_damaged: unknown.is_some() || !identity::is_intact(&event),
        is_whole: true,
        event: Arc::new(event),
        label: label.into(),
        route_id: row.get(PLACE + 2)?,
        route: Arc::new(Route {
            exchange: values.needed_text(PLACE + 3, "exchange")?.into(),
            routing_key: values.needed_text(PLACE + 4, "routing_key")?.into(),
        }),
        is_head: row.get(PLACE + 5)?,
        attempts,
        condemned,
    })
}
