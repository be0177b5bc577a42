//! The backlog window: pending events that have no row in `pending`. The oldest ones are listed in
//! memory of a bounded size. From the number `tail` on, webhooks have not been read yet (the *tail*). All of this can
//! be derived from the database: these are the events of `webhooks` that are neither in `pending`
//! nor in `completed`.
//!
//! Of one session, the events in the window come first and those in `pending` follow, or all are in
//! `pending`: when an event leaves the window because it is rejected, the later events of its
//! session leave with it. Those of the tail come last. No event of the tail has a row or is known
//! to the forwarder, and none is completed except dead letters that were copied from a damaged
//! database.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::counting_filter::CountingFilter;
use super::interface::{RouteId, Seq};
use crate::webhook::routing::Route;

/// The pending events without a row in `pending`.
#[derive(Debug, Default)]
pub(crate) struct BacklogWindow {
    parts: BTreeMap<Seq, OpenPart>,
    /// The heads: the first event of each session, and every reject.
    heads: BTreeSet<(RouteId, Seq)>,
    /// The first and the last event of each session.
    sessions: HashMap<SessionKey, (Seq, Seq)>,
    /// The number of events in the window.
    length: usize,
    /// The first event of the tail, if there is one.
    pub(crate) tail: Option<Seq>,
    /// The counting filter of the sessions with rows in `pending`.
    pub(super) sessions_with_rows: CountingFilter,
    /// The value of `due` in `pending` that is time 0 of the forwarder's clock: the latest due time
    /// that earlier processes left, so that all their delays are over.
    pub(crate) due_base: i64,
    /// The rows that do not have the routes of the new configuration yet.
    pub(crate) rerouting: Option<Rerouting>,
}

/// The rows after `done`, up to and including `last`: their routes are those of an earlier
/// configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rerouting {
    pub(crate) done: Seq,
    pub(crate) last: Seq,
}

/// The source and the id of a session.
pub(crate) type SessionKey = (Arc<str>, Arc<str>);

/// A row of `webhooks` with events in the window.
#[derive(Debug)]
pub(crate) struct OpenPart {
    pub(crate) source: Arc<str>,
    pub(crate) received_at: Timestamp,
    /// The size of the row on disk.
    pub(crate) bytes: u64,
    /// One per event; `None` if it is completed or has a row in `pending`.
    pub(crate) events: Vec<Option<Waiting>>,
    /// Whether its events may have rows in `pending`.
    pub(crate) has_rows: bool,
    /// Whether its events may have rows in `outcomes`.
    pub(crate) has_outcomes: bool,
    /// When it was added to the window.
    pub(crate) since: Instant,
    length: usize,
}

/// An event in the window.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) session: Option<Arc<str>>,
    pub(crate) routed_status: Arc<str>,
    pub(crate) route_id: RouteId,
    pub(crate) route: Arc<Route>,
    /// The length of the body in bytes.
    pub(crate) bytes: u64,
    /// Whether a commit has handed it over, with or without its body.
    pub(crate) is_announced: bool,
    /// The next event of its session in the window.
    next: Option<Seq>,
}

/// An event that was removed from the window.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) seq: Seq,
    pub(crate) source: Arc<str>,
    pub(crate) event: Waiting,
    /// The route of the new head of its session in the window, if there is one.
    pub(crate) promoted: Option<RouteId>,
    /// The row that contained it, if no other event of that row is in the window.
    pub(crate) emptied: Option<Emptied>,
}

/// A row of `webhooks` without events in the window, and its bounds and size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Emptied {
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    pub(crate) bytes: u64,
    pub(crate) has_rows: bool,
    pub(crate) has_outcomes: bool,
}

impl OpenPart {
    /// Creates a row without events in the window.
    pub(crate) fn new(source: Arc<str>, received_at: Timestamp, bytes: u64, events: usize) -> Self {
        Self {
            source,
            received_at,
            bytes,
            events: Vec::with_capacity(events),
            has_rows: false,
            has_outcomes: false,
            since: Instant::now(),
            length: 0,
        }
    }
}

impl Waiting {
    /// Creates an event that has no follower and is not announced yet.
    pub(crate) fn new(
        session: Option<Arc<str>>,
        routed_status: Arc<str>,
        (route_id, route): (RouteId, Arc<Route>),
        bytes: u64,
    ) -> Self {
        Self {
            session,
            routed_status,
            route_id,
            route,
            bytes,
            is_announced: false,
            next: None,
        }
    }
}

impl BacklogWindow {
    /// Removes all events; the state of the rows in `pending` is kept.
    pub(crate) fn emptied(self) -> Self {
        Self {
            sessions_with_rows: self.sessions_with_rows,
            due_base: self.due_base,
            rerouting: self.rerouting,
            ..Self::default()
        }
    }

    /// The ranges of rows that have the routes of the current configuration: each after its first
    /// number, up to and including its second.
    pub(crate) fn rows_with_routes(&self) -> Vec<(Seq, Seq)> {
        match self.rerouting {
            None => vec![(0, Seq::MAX)],
            Some(rerouting) => vec![(0, rerouting.done), (rerouting.last, Seq::MAX)],
        }
    }

    /// Every head, in order.
    #[cfg(test)]
    pub(crate) fn all_heads(&self) -> Vec<Seq> {
        self.heads.iter().map(|(_, seq)| *seq).collect()
    }

    /// The number of events in the window.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// The size of its rows on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.parts.values().map(|part| part.bytes).sum()
    }

    /// Begins a row; [`BacklogWindow::push`] adds its events.
    pub(crate) fn open(&mut self, first: Seq, part: OpenPart) {
        self.parts.insert(first, part);
    }

    /// Ends a row; it is removed if none of its events is in the window.
    pub(crate) fn opened(&mut self, first: Seq) {
        if self.parts.get(&first).is_some_and(|part| part.length == 0) {
            self.parts.remove(&first);
        }
    }

    /// Adds the next event of a row, or `None` if that event is not in the window. Returns whether
    /// it is the head of its session.
    pub(crate) fn push(&mut self, first: Seq, event: Option<Waiting>) -> bool {
        let part = self.parts.get_mut(&first).expect("the row was opened");
        let seq = first + Seq::try_from(part.events.len()).expect("a row has few events");
        let Some(event) = event else {
            part.events.push(None);
            return false;
        };
        let key = event
            .session
            .clone()
            .map(|session| (Arc::clone(&part.source), session));
        let route_id = event.route_id;
        part.events.push(Some(event));
        part.length += 1;
        self.length += 1;
        if let Some(key) = key {
            if let Some((_, last)) = self.sessions.get_mut(&key) {
                let before = std::mem::replace(last, seq);
                if let Some(before) = self.event_mut(before) {
                    before.next = Some(seq);
                }
                return false;
            }
            self.sessions.insert(key, (seq, seq));
        }
        self.heads.insert((route_id, seq));
        true
    }

    /// An event and its source; `None` if it is not in the window.
    pub(crate) fn locate(&self, seq: Seq) -> Option<(&Arc<str>, &Waiting)> {
        let (first, part) = self.parts.range(..=seq).next_back()?;
        let index = usize::try_from(seq - first).ok()?;
        Some((&part.source, part.events.get(index)?.as_ref()?))
    }

    /// An event; `None` if it is not in the window.
    pub(crate) fn event(&self, seq: Seq) -> Option<&Waiting> {
        self.locate(seq).map(|(_, event)| event)
    }

    fn event_mut(&mut self, seq: Seq) -> Option<&mut Waiting> {
        let (first, part) = self.parts.range_mut(..=seq).next_back()?;
        let index = usize::try_from(seq - first).ok()?;
        part.events.get_mut(index)?.as_mut()
    }

    /// The row that contains an event; `None` if the row has no events in the window.
    pub(crate) fn part_mut(&mut self, seq: Seq) -> Option<&mut OpenPart> {
        let (first, part) = self.parts.range_mut(..=seq).next_back()?;
        let index = usize::try_from(seq - first).ok()?;
        (index < part.events.len()).then_some(part)
    }

    /// The first event of a session in the window, and its route.
    pub(crate) fn first_of(&self, source: &Arc<str>, session: &Arc<str>) -> Option<(Seq, RouteId)> {
        let key = (Arc::clone(source), Arc::clone(session));
        let (first, _) = self.sessions.get(&key)?;
        Some((*first, self.event(*first)?.route_id))
    }

    /// Whether the forwarder knows about the session's last event in the window. `true` if the
    /// session has none.
    pub(crate) fn is_announced(&self, source: &Arc<str>, session: &Arc<str>) -> bool {
        let key = (Arc::clone(source), Arc::clone(session));
        let last = self.sessions.get(&key);
        let last = last.and_then(|(_, last)| self.event(*last));
        last.is_none_or(|last| last.is_announced)
    }

    /// Removes an event; the later events of its session stay.
    pub(crate) fn remove(&mut self, seq: Seq) -> Option<Left> {
        let (&first, part) = self.parts.range_mut(..=seq).next_back()?;
        let index = usize::try_from(seq - first).ok()?;
        let event = part.events.get_mut(index)?.take()?;
        let source = Arc::clone(&part.source);
        part.length -= 1;
        self.length -= 1;
        let emptied = (part.length == 0).then_some(Emptied {
            first,
            last: first + Seq::try_from(part.events.len()).unwrap_or(1) - 1,
            bytes: part.bytes,
            has_rows: part.has_rows,
            has_outcomes: part.has_outcomes,
        });
        if emptied.is_some() {
            self.parts.remove(&first);
        }
        self.heads.remove(&(event.route_id, seq));
        let promoted = match &event.session {
            Some(session) => {
                self.unlink(seq, (Arc::clone(&source), Arc::clone(session)), event.next)
            }
            None => None,
        };
        Some(Left {
            seq,
            source,
            event,
            promoted,
            emptied,
        })
    }

    /// Removes an event from the chain of its session; returns the route of the head after that.
    fn unlink(&mut self, seq: Seq, key: SessionKey, next: Option<Seq>) -> Option<RouteId> {
        let (first, last) = self.sessions.get(&key).copied()?;
        if first == seq {
            let Some(next) = next else {
                self.sessions.remove(&key);
                return None;
            };
            self.sessions.insert(key, (next, last));
            let route_id = self.event(next)?.route_id;
            self.heads.insert((route_id, next));
            return Some(route_id);
        }
        // Only heads are published, so this should not happen. It must not break a chain if it
        // does.
        let mut before = first;
        while let Some(found) = self.event(before).and_then(|event| event.next) {
            if found == seq {
                break;
            }
            before = found;
        }
        if last == seq {
            self.sessions.insert(key, (first, before));
        }
        if let Some(event) = self.event_mut(before) {
            event.next = next;
        }
        self.event(first).map(|event| event.route_id)
    }

    /// Removes an event and all later events of its session.
    pub(crate) fn remove_chain(&mut self, seq: Seq) -> Vec<Left> {
        let (mut chain, mut next) = (Vec::new(), Some(seq));
        while let Some(left) = next.and_then(|seq| self.remove(seq)) {
            next = left.event.next;
            chain.push(left);
        }
        chain
    }

    /// The oldest events that have been in the window for at least `age`, at most `events_max`.
    pub(crate) fn older_than(&self, age: Duration, events_max: usize) -> Vec<Seq> {
        let is_old = |(_, part): &(&Seq, &OpenPart)| part.since.elapsed() >= age;
        let old = self.parts.iter().take_while(is_old);
        old.flat_map(|(first, part)| {
            let waiting = |(seq, event): (Seq, &Option<Waiting>)| event.is_some().then_some(seq);
            (*first..).zip(&part.events).filter_map(waiting)
        })
        .take(events_max)
        .collect()
    }

    /// Lets every event appear older, for tests.
    #[cfg(test)]
    pub(crate) fn age_by(&mut self, age: Duration) {
        for part in self.parts.values_mut() {
            part.since -= age;
        }
    }

    /// The first event number and the time of receipt of the oldest row.
    pub(crate) fn oldest(&self) -> Option<(Seq, Timestamp)> {
        let (first, part) = self.parts.first_key_value()?;
        Some((*first, part.received_at))
    }

    /// The routes that have heads in the window.
    pub(crate) fn routes(&self) -> Vec<RouteId> {
        let (mut routes, mut next) = (Vec::new(), 0);
        while let Some((route_id, _)) = self.heads.range((next, 0)..).next() {
            routes.push(*route_id);
            next = route_id + 1;
        }
        routes
    }

    /// The routes of all events, heads or not.
    pub(crate) fn routes_of_all(&self) -> BTreeSet<RouteId> {
        let events = self.parts.values().flat_map(|part| &part.events);
        events.flatten().map(|event| event.route_id).collect()
    }

    /// The heads of a route, in order.
    pub(crate) fn heads(&self, route_id: RouteId) -> impl Iterator<Item = Seq> {
        let of_route = (route_id, Seq::MIN)..=(route_id, Seq::MAX);
        self.heads.range(of_route).map(|(_, seq)| *seq)
    }

    /// An event and the later events of its session in the window, at most `events_max`.
    pub(crate) fn chain(&self, seq: Seq, events_max: usize) -> Vec<(Seq, Waiting)> {
        let (mut chain, mut next) = (Vec::new(), Some(seq));
        while let Some((seq, event)) = next.and_then(|seq| Some((seq, self.event(seq)?)))
            && chain.len() < events_max
        {
            next = event.next;
            chain.push((seq, event.clone()));
        }
        chain
    }
}
