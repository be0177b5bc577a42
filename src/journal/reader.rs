//! The forwarder's view of the database: fetches the next events of a route. The cost of a fetch
//! depends on what it returns, not on the size of the backlog.

mod plan;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, StatementStatus};

use super::disk_size;
use super::interface::{QueuedEvent, RouteId, Seq};
use super::schema::{self, SchemaError};
use super::store::routes_of_rows;
use super::stored::{LastPart, Stored};
use super::window::BacklogWindow;
pub(crate) use plan::BatchBudget;
use plan::{Chain, Plan, Planned, columns};

const DUE_HEADS: &str = "SELECT seq FROM pending INDEXED BY pending_head
     WHERE head = 1 AND route = ?1 AND due > 0 AND due <= ?2 ORDER BY due, seq";
const FRESH_HEADS: &str = "SELECT seq FROM pending INDEXED BY pending_head
     WHERE head = 1 AND route = ?1 AND due = 0 AND seq > ?2 AND seq <= ?3 ORDER BY seq";
const NEXT_DUE: &str = "SELECT due FROM pending INDEXED BY pending_head
     WHERE head = 1 AND route = ?1 AND due > ?2 ORDER BY due LIMIT 1";
const ROW: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM pending p LEFT JOIN routes r ON r.id = p.route WHERE p.seq = ?1"
);
const FOLLOWERS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM pending p INDEXED BY pending_session LEFT JOIN routes r ON r.id = p.route
     WHERE p.source = ?1 AND p.session = ?2 AND p.seq > ?3 ORDER BY p.seq"
);

/// What to fetch from a route.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// The route to fetch from.
    pub route_id: RouteId,
    /// Heads to leave out because the forwarder has them already, in ascending order.
    pub skip: Vec<Seq>,
    /// The number of events, at most.
    pub events_max: usize,
    /// The bytes of their bodies, at most; the first event is returned whatever its size.
    pub bytes_max: u64,
    /// The current time on the forwarder's clock. Events that are due later are not returned.
    pub now_ms: u64,
}

impl FetchRequest {
    fn skips(&self, seq: Seq) -> bool {
        self.skip.binary_search(&seq).is_ok()
    }
}

/// The result of a fetch: the next events of a route.
#[derive(Debug, Default)]
pub struct Fetched {
    /// One batch per session: its head and the events that follow it.
    pub batches: Vec<SessionBatch>,
    /// Whether the route has more events that are due now.
    pub has_more: bool,
    /// When the next rescheduled head of the route is due, on the forwarder's clock.
    pub next_due_ms: Option<u64>,
}

/// The first pending events of one session, in order; not empty.
#[derive(Debug)]
pub struct SessionBatch {
    /// The events; the first is the session's head.
    pub events: Vec<QueuedEvent>,
    /// Whether the session has more pending events than these.
    pub has_more: bool,
}

/// A read-only connection, and the window that it shares with the writer.
#[derive(Debug)]
pub(super) struct Reader {
    database: Connection,
    window: Arc<Mutex<BacklogWindow>>,
    steps: u64,
}

impl Reader {
    pub(super) fn open(
        path: &Path,
        window: Arc<Mutex<BacklogWindow>>,
    ) -> Result<Self, SchemaError> {
        let database = schema::open_reading(path)?;
        database.set_prepared_statement_cache_capacity(16);
        Ok(Self {
            database,
            window,
            steps: 0,
        })
    }

    /// The routes that have heads, in the window or in `pending`.
    pub(super) fn routes(&self) -> rusqlite::Result<Vec<RouteId>> {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes = routes_of_rows(&self.database)?;
        routes.extend(window.routes());
        Ok(routes.into_iter().collect())
    }

    /// Fetches the next events of a route, all from one snapshot. Rescheduled heads that are due
    /// come first; they take at most half of the batch, so that neither they nor the others starve.
    pub(super) fn fetch(&mut self, request: &FetchRequest) -> rusqlite::Result<Fetched> {
        let shared = Arc::clone(&self.window);
        let window = shared.lock().unwrap_or_else(PoisonError::into_inner);
        self.database.execute_batch("BEGIN")?;
        let fetched = self.fetch_in_snapshot(request, window);
        self.database.execute_batch("COMMIT")?;
        fetched
    }

    /// Steps of SQLite's virtual machine so far: the measure of cost in tests.
    #[cfg(test)]
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// The first query begins the snapshot. The window stays locked until everything that is needed
    /// of it is copied, so both show the same commit.
    fn fetch_in_snapshot(
        &mut self,
        request: &FetchRequest,
        window: MutexGuard<'_, BacklogWindow>,
    ) -> rusqlite::Result<Fetched> {
        let (route_id, events_max) = (request.route_id, request.events_max);
        let clock = disk_size::signed(request.now_ms).saturating_add(window.due_base);
        let (due, mut has_more) = match window.rerouting {
            None => {
                let due = (route_id, clock);
                self.heads(request, DUE_HEADS, due, events_max.div_ceil(2))?
            }
            // While routes change, the rows with new routes would have to be searched for among all
            // that are due. Until it is finished, none is fetched.
            Some(_) => (Vec::new(), false),
        };
        let fresh_max = events_max.saturating_sub(due.len());
        let mut fresh = Vec::new();
        for (after, last) in window.rows_with_routes() {
            let (range, rest) = ((route_id, after, last), fresh_max - fresh.len());
            let (found, is_cut) = self.heads(request, FRESH_HEADS, range, rest)?;
            fresh.extend(found);
            has_more |= is_cut;
        }
        let in_window = window.heads(route_id).filter(|seq| !request.skips(*seq));
        // One more than wanted, to see whether there are more.
        fresh.extend(in_window.take(fresh_max.saturating_add(1)));
        fresh.sort_unstable();
        has_more |= fresh.len() > fresh_max;
        fresh.truncate(fresh_max);
        let mut room = BatchBudget::of(request, due.len() + fresh.len());
        let mut chains: HashMap<Seq, Chain> = fresh
            .iter()
            .filter_map(|seq| Some((*seq, Chain::of(&window, *seq, room.followers_max)?)))
            .collect();
        let due_base = window.due_base;
        drop(window);
        let next_due = self.next_due(request, clock)?;
        let mut plans = Vec::new();
        for seq in due.into_iter().chain(fresh) {
            let chain = match chains.remove(&seq) {
                Some(chain) => Some(chain),
                None => self.row(seq)?,
            };
            let Some(chain) = chain else { continue };
            let plan = self.plan(chain, &mut room)?;
            if plan.events.is_empty() {
                has_more = true;
                break;
            }
            plans.push(plan);
        }
        Ok(Fetched {
            batches: self.read(plans)?,
            has_more,
            next_due_ms: next_due.map(|due| due - due_base.unsigned_abs()),
        })
    }

    /// Reads events in ascending order, so that each row of `webhooks` is read only once. An event
    /// whose row is lost is returned as damaged, so that it does not block its session.
    fn read(&self, plans: Vec<Plan>) -> rusqlite::Result<Vec<SessionBatch>> {
        let events = plans.iter().flat_map(|plan| &plan.events);
        let mut seqs: Vec<Seq> = events.map(|planned| planned.seq).collect();
        seqs.sort_unstable();
        seqs.dedup();
        let (mut stored, mut last) = (HashMap::with_capacity(seqs.len()), LastPart::default());
        for seq in seqs {
            if let Some(part) = last.containing(&self.database, seq)? {
                stored.insert(seq, part.stored(&self.database, seq)?);
            }
        }
        let mut held = |planned: Planned| {
            let stored = stored.remove(&planned.seq);
            planned.held(stored.unwrap_or_else(Stored::lost))
        };
        let batch = |plan: Plan| SessionBatch {
            events: plan.events.into_iter().map(&mut held).collect(),
            has_more: plan.has_more,
        };
        Ok(plans.into_iter().map(batch).collect())
    }

    /// The first heads of a query that are not left out, at most `max`, and whether there are more.
    fn heads(
        &mut self,
        request: &FetchRequest,
        query: &str,
        parameters: impl Params,
        max: usize,
    ) -> rusqlite::Result<(Vec<Seq>, bool)> {
        let mut statement = self.database.prepare_cached(query)?;
        let mut rows = statement.query(parameters)?;
        let (mut found, mut has_more) = (Vec::new(), false);
        while !has_more && let Some(row) = rows.next()? {
            let seq = row.get(0)?;
            if request.skips(seq) {
                continue;
            }
            has_more = found.len() >= max;
            if !has_more {
                found.push(seq);
            }
        }
        drop(rows);
        self.steps += steps_of(&statement);
        Ok((found, has_more))
    }

    fn next_due(&mut self, request: &FetchRequest, clock: i64) -> rusqlite::Result<Option<u64>> {
        let mut statement = self.database.prepare_cached(NEXT_DUE)?;
        let due: Option<i64> = statement
            .query_row((request.route_id, clock), |row| row.get(0))
            .optional()?;
        self.steps += steps_of(&statement);
        Ok(due.and_then(|due| u64::try_from(due).ok()))
    }

    /// Plans the batch of a head; without events if the head does not fit.
    fn plan(&mut self, chain: Chain, room: &mut BatchBudget) -> rusqlite::Result<Plan> {
        let mut plan = Plan::default();
        for event in chain.events {
            if !plan.add(event, room) {
                return Ok(plan);
            }
        }
        let last = plan.events.last().map(|last| last.seq);
        if let (Some((source, session)), Some(last)) = (chain.session, last) {
            let mut statement = self.database.prepare_cached(FOLLOWERS)?;
            let mut rows = statement.query((source, session, last))?;
            while let Some(row) = rows.next()? {
                let (event, _) = Planned::of_row(row)?;
                if !plan.add(event, room) {
                    break;
                }
            }
            drop(rows);
            self.steps += steps_of(&statement);
        }
        Ok(plan)
    }

    /// A head with a row in `pending`.
    fn row(&mut self, seq: Seq) -> rusqlite::Result<Option<Chain>> {
        let mut statement = self.database.prepare_cached(ROW)?;
        let found = statement.query_row([seq], Planned::of_row).optional()?;
        self.steps += steps_of(&statement);
        Ok(found.map(|(event, session)| Chain {
            events: vec![event],
            session,
        }))
    }
}

fn steps_of(statement: &CachedStatement<'_>) -> u64 {
    u64::try_from(statement.reset_status(StatementStatus::VmStep)).unwrap_or_default()
}
