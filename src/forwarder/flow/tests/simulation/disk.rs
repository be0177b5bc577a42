//! What is on the disk: a transaction's work, and what a snapshot shows. The rules of
//! `journal/store` and `journal/reader` once more, without SQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::events::{Fresh, Maker, ROUTES_MAX, STATUSES};
use super::random::Random;
use crate::journal::{Ack, Change, Condemned, Held, Request, RouteId, Run, Seq, Settlement, Taken};
use crate::webhook::Event;

/// Where statuses and dead letters go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Routing {
    routes: [RouteId; STATUSES],
    pub(super) dead_letters: RouteId,
}

impl Routing {
    pub(super) fn first() -> Self {
        Self {
            routes: [0, 1, 2, 3],
            dead_letters: 7,
        }
    }

    pub(super) fn draw(random: &mut Random) -> Self {
        let last = ROUTES_MAX as u64 - 1;
        let mut route = |first: u64, end: u64| {
            RouteId::try_from(first + random.below(end - first)).expect("few")
        };
        Self {
            routes: std::array::from_fn(|_| route(0, last - 1)),
            dead_letters: route(last - 1, last + 1),
        }
    }
}

/// An unsettled event.
pub(super) struct Row {
    event: Arc<Event>,
    pub(super) session: Option<u64>,
    status: usize,
    pub(super) route_id: RouteId,
    pub(super) is_head: bool,
    pub(super) due_ms: u64,
    pub(super) attempts: u32,
    pub(super) condemned: Option<Condemned>,
    pub(super) is_damaged: bool,
}

impl Row {
    pub(super) fn is_dead_letter(&self) -> bool {
        self.condemned.is_some() || self.session.is_none()
    }
}

pub(super) struct Disk {
    pub(super) pending: BTreeMap<Seq, Row>,
    sessions: BTreeMap<u64, BTreeSet<Seq>>,
    pub(super) routing: Routing,
    pub(super) last_seq: Seq,
    pub(super) published: u64,
    pub(super) dead_lettered: u64,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            pending: BTreeMap::new(),
            sessions: BTreeMap::new(),
            routing: Routing::first(),
            last_seq: 0,
            published: 0,
            dead_lettered: 0,
        }
    }

    pub(super) fn append(&mut self, fresh: &Fresh, maker: &Maker) -> Held {
        self.last_seq += 1;
        let seq = self.last_seq;
        let route_id = match fresh.session {
            Some(_) => self.routing.routes[fresh.status],
            None => self.routing.dead_letters,
        };
        let of_session = fresh
            .session
            .map(|session| self.sessions.entry(session).or_default());
        let is_head = of_session.is_none_or(|seqs| {
            seqs.insert(seq);
            seqs.len() == 1
        });
        let row = Row {
            event: fresh.event.clone(),
            session: fresh.session,
            status: fresh.status,
            route_id,
            is_head,
            due_ms: 0,
            attempts: 0,
            condemned: None,
            is_damaged: fresh.is_damaged,
        };
        self.pending.insert(seq, row);
        Held {
            is_damaged: false,
            ..self.held(seq, maker)
        }
    }

    pub(super) fn change(&mut self, change: &Change) -> Ack {
        match change {
            Change::Settle {
                seq, settlement, ..
            } => self.settle(*seq, *settlement),
            Change::Defer {
                seq,
                due_ms,
                attempts,
                condemned,
            } => {
                let dead_letters = self.routing.dead_letters;
                let row = self
                    .pending
                    .get_mut(seq)
                    .unwrap_or_else(|| panic!("event {seq} is deferred and was settled before"));
                assert!(row.is_head, "event {seq} is deferred and is not a head");
                (row.due_ms, row.attempts) = (*due_ms, *attempts);
                if condemned.is_some() {
                    row.condemned.clone_from(condemned);
                    row.route_id = dead_letters;
                }
                Ack::Deferred {
                    seq: *seq,
                    route_id: row.route_id,
                    due_ms: *due_ms,
                }
            }
        }
    }

    fn settle(&mut self, seq: Seq, settlement: Settlement) -> Ack {
        let row = self
            .pending
            .remove(&seq)
            .unwrap_or_else(|| panic!("event {seq} is settled twice"));
        assert!(
            row.is_head,
            "event {seq} is settled before its session's head"
        );
        match settlement {
            Settlement::Published => self.published += 1,
            Settlement::DeadLettered(_) => self.dead_lettered += 1,
        }
        let promoted = row.session.and_then(|session| {
            let seqs = self.sessions.get_mut(&session)?;
            seqs.remove(&seq);
            let next = seqs.first()?;
            let next = self.pending.get_mut(next)?;
            next.is_head = true;
            Some(next.route_id)
        });
        Ack::Settled { seq, promoted }
    }

    pub(super) fn reroute(&mut self, routing: Routing) {
        self.routing = routing;
        for row in self.pending.values_mut() {
            row.route_id = if row.is_dead_letter() {
                routing.dead_letters
            } else {
                routing.routes[row.status]
            };
        }
    }

    /// What a new process does first.
    pub(super) fn forget_delays(&mut self) {
        for row in self.pending.values_mut().filter(|row| row.is_head) {
            row.due_ms = 0;
        }
    }

    pub(super) fn routes(&self) -> BTreeSet<RouteId> {
        let heads = self.pending.values().filter(|row| row.is_head);
        heads.map(|row| row.route_id).collect()
    }

    /// One snapshot: refused heads that are due again first, at most half of the window.
    pub(super) fn take(&self, request: &Request, followers_max: usize, maker: &Maker) -> Taken {
        let heads = || {
            let of_route = |row: &Row| row.is_head && row.route_id == request.route_id;
            self.pending.iter().filter(move |(_, row)| of_route(row))
        };
        let is_sought = |seq: &Seq| !request.skip.contains(seq);
        let due_max = request.events_max.div_ceil(2);
        let mut due: Vec<(u64, Seq)> = heads()
            .filter(|(_, row)| row.due_ms > 0 && row.due_ms <= request.now_ms)
            .map(|(seq, row)| (row.due_ms, *seq))
            .filter(|(_, seq)| is_sought(seq))
            .collect();
        due.sort_unstable();
        due.truncate(due_max);
        let mut fresh: Vec<Seq> = heads()
            .filter(|(_, row)| row.due_ms == 0)
            .map(|(seq, _)| *seq)
            .filter(is_sought)
            .collect();
        let fresh_max = request.events_max.saturating_sub(due.len());
        let mut taken = Taken {
            has_more: fresh.len() > fresh_max || due.len() >= due_max,
            next_due_ms: heads()
                .map(|(_, row)| row.due_ms)
                .filter(|due_ms| *due_ms > request.now_ms)
                .min(),
            ..Taken::default()
        };
        fresh.truncate(fresh_max);
        let (mut events, mut bytes) = (request.events_max, request.bytes_max);
        let mut is_untouched = true;
        let mut has_room = |held: &Held| {
            let size = held.event.body.len() as u64;
            let fits = events > 0 && (is_untouched || size <= bytes);
            if fits {
                (events, bytes) = (events - 1, bytes.saturating_sub(size));
                is_untouched = false;
            }
            fits
        };
        for seq in due.into_iter().map(|(_, seq)| seq).chain(fresh) {
            let head = self.held(seq, maker);
            if !has_room(&head) {
                taken.has_more = true;
                break;
            }
            let mut run = Run {
                events: vec![head],
                has_more: false,
            };
            let session = self.pending[&seq].session;
            let seqs = session.and_then(|session| self.sessions.get(&session));
            for follower in seqs.into_iter().flat_map(|seqs| seqs.range(seq + 1..)) {
                let follower = self.held(*follower, maker);
                if run.events.len() > followers_max || !has_room(&follower) {
                    run.has_more = true;
                    break;
                }
                run.events.push(follower);
            }
            taken.runs.push(run);
        }
        taken
    }

    pub(super) fn event(&self, seq: Seq) -> Option<&Arc<Event>> {
        self.pending.get(&seq).map(|row| &row.event)
    }

    fn held(&self, seq: Seq, maker: &Maker) -> Held {
        let row = &self.pending[&seq];
        Held {
            seq,
            event: row.event.clone(),
            label: maker.label.clone(),
            route: maker.route(row.route_id),
            route_id: row.route_id,
            is_head: row.is_head,
            attempts: row.attempts,
            condemned: row.condemned.clone(),
            is_damaged: row.is_damaged,
            is_whole: true,
        }
    }
}
