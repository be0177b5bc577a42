//! A journal and a broker in memory, and a scheduler that lets anything happen in any order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use crate::forwarder::flow::{Action, Flow, Limits};
use crate::forwarder::retry::Backoff;
use crate::journal::{Ack, Change, Committed, Held, Request, RouteId, Run, Seq, Taken};
use crate::rabbitmq::{Link, Outcome, Report};
use crate::webhook::routing::Route;
use crate::webhook::{Content, Envelope, Event, Fields, Reason, Reject};

const SESSIONS: u64 = 7;
const ROUTES: u64 = 4;
/// The route of dead letters and rejects.
const DEAD_LETTERS: RouteId = 99;
const IN_FLIGHT_MAX: usize = 8;
const ATTEMPTS_MAX: u32 = 3;

/// How the broker treats a route at the moment.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Takes,
    Nacks,
    Returns,
    Closes,
    ClosesTooLarge,
    Silent,
}

struct Row {
    held: Held,
    due_ms: u64,
}

struct Outstanding {
    id: u64,
    link: Link,
    events: Vec<Held>,
}

pub(super) struct World {
    flow: Flow,
    chance: u64,
    now: u64,
    pending: BTreeMap<Seq, Row>,
    next_seq: Seq,
    /// Sent to the writer, not committed.
    changes: Vec<Change>,
    appends: Vec<Held>,
    /// Committed, not seen by the flow.
    committed: VecDeque<Committed>,
    take: Option<Request>,
    taken: Option<Taken>,
    windows: Vec<Outstanding>,
    moods: BTreeMap<RouteId, Mood>,
    up: BTreeSet<Link>,
    down_later: BTreeSet<Link>,
    /// By session: events the broker has confirmed, in order.
    delivered: BTreeMap<Option<String>, Vec<Seq>>,
    settled: BTreeSet<Seq>,
    accepted: BTreeMap<Seq, Option<String>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut world = Self {
            flow: Self::flow(seed),
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now: 0,
            pending: BTreeMap::new(),
            next_seq: 1,
            changes: Vec::new(),
            appends: Vec::new(),
            committed: VecDeque::new(),
            take: None,
            taken: None,
            windows: Vec::new(),
            moods: BTreeMap::new(),
            up: BTreeSet::new(),
            down_later: BTreeSet::new(),
            delivered: BTreeMap::new(),
            settled: BTreeSet::new(),
            accepted: BTreeMap::new(),
        };
        world.connect(Link::Main);
        world
    }

    fn flow(seed: u64) -> Flow {
        let limits = Limits {
            in_flight_max: IN_FLIGHT_MAX,
            in_flight_bytes_max: 1_000,
            message_bytes_max: 2_000,
            confirm_timeout: Duration::from_millis(500),
            attempts_max: ATTEMPTS_MAX,
        };
        let retry = Backoff::new(Duration::from_millis(20), Duration::from_millis(200), seed);
        Flow::new(limits, retry)
    }

    /// One thing happens, whichever.
    pub(super) fn step(&mut self) {
        match self.draw(20) {
            0..=3 => self.append(),
            4..=7 => self.commit(),
            8..=10 => self.hand_over(),
            11 | 12 => self.take(),
            13 => self.hand_over_take(),
            14..=16 => self.answer_a_window(),
            17 => self.now += self.draw(60),
            18 => self.trouble(),
            _ => self.connect(Link::Main),
        }
        self.act();
    }

    /// Everything works again, until nothing is left to do.
    pub(super) fn heal(&mut self) {
        self.moods.clear();
        for round in 0.. {
            self.connect(Link::Main);
            self.commit();
            while !self.committed.is_empty() {
                self.hand_over();
            }
            self.take();
            self.hand_over_take();
            self.act();
            while !self.windows.is_empty() {
                self.answer_a_window();
                self.act();
            }
            self.now += 50;
            let is_quiet =
                self.pending.is_empty() && self.committed.is_empty() && self.flow.is_idle();
            if is_quiet && self.changes.is_empty() && self.appends.is_empty() {
                break;
            }
            assert!(
                round < 2_000,
                "it does not come to rest: {:?}",
                self.pending.keys()
            );
        }
    }

    pub(super) fn assert_all_done(&self) {
        assert_eq!(self.settled, self.accepted.keys().copied().collect());
        assert!(self.flow.is_idle() && self.flow.is_settled());
        assert!(self.flow.lanes.is_empty(), "{:?}", self.flow.lanes);
        assert!(self.flow.seqs.is_empty(), "{:?}", self.flow.seqs);
        assert_eq!((self.flow.held, self.flow.held_bytes), (0, 0));
        assert_eq!((self.flow.in_flight, self.flow.in_flight_bytes), (0, 0));
        assert!(
            self.flow
                .routes
                .values()
                .all(|route| route.lanes == 0 && route.windows == 0)
        );
    }

    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % below
    }

    fn append(&mut self) {
        for _ in 0..=self.draw(4) {
            let seq = self.next_seq;
            self.next_seq += 1;
            let held = if self.draw(12) == 0 {
                self.held(seq, None, DEAD_LETTERS)
            } else {
                let session = format!("s{}", self.draw(SESSIONS));
                let route = RouteId::try_from(self.draw(ROUTES)).unwrap();
                self.held(seq, Some(session), route)
            };
            self.appends.push(held);
        }
    }

    fn held(&mut self, seq: Seq, session: Option<String>, route_id: RouteId) -> Held {
        let bytes = match self.draw(30) {
            0 => 2_500,
            1 => 1_500,
            2 => 400,
            _ => 20,
        };
        let content = match session {
            Some(session) => Content::Session(Fields {
                session,
                ..Fields::default()
            }),
            None => Content::Reject(Reject {
                reason: Reason::Invalid,
                detail: String::new(),
            }),
        };
        let envelope = Envelope {
            webhook_id: Uuid::nil(),
            source: "test".into(),
            received_at: Timestamp::default(),
            traceparent: None,
            tracestate: None,
        };
        Held {
            seq,
            event: Arc::new(Event {
                envelope: Arc::new(envelope),
                index: 0,
                message_id: Uuid::nil(),
                content,
                body: Bytes::from(vec![b'x'; bytes]),
            }),
            label: "created".into(),
            route: Arc::new(Route {
                exchange: "e".into(),
                routing_key: route_id.to_string().into(),
            }),
            route_id,
            is_head: false,
            attempts: 0,
            condemned: None,
            is_damaged: false,
            is_whole: true,
        }
    }

    /// The writer's group: changes first, then appends.
    fn commit(&mut self) {
        let mut committed = Committed::default();
        for change in std::mem::take(&mut self.changes) {
            committed.acks.push(self.change(change));
        }
        for mut held in std::mem::take(&mut self.appends) {
            let session = held.event.session().map(str::to_owned);
            held.is_head = session.is_none() || self.first_of(session.as_deref()).is_none();
            self.accepted.insert(held.seq, session);
            self.pending.insert(
                held.seq,
                Row {
                    held: held.clone(),
                    due_ms: 0,
                },
            );
            committed.fresh.push(held);
        }
        if !committed.acks.is_empty() || !committed.fresh.is_empty() {
            self.committed.push_back(committed);
        }
    }

    fn change(&mut self, change: Change) -> Ack {
        match change {
            Change::Settle { seq, .. } => {
                let row = self
                    .pending
                    .remove(&seq)
                    .expect("only pending events are settled");
                assert!(row.held.is_head, "only heads are settled");
                self.settled.insert(seq);
                let session = row.held.event.session().map(str::to_owned);
                let next = session
                    .as_ref()
                    .and_then(|session| self.first_of(Some(session)));
                let promoted = next.map(|next| {
                    let row = self.pending.get_mut(&next).unwrap();
                    row.held.is_head = true;
                    row.held.route_id
                });
                Ack::Settled { seq, promoted }
            }
            Change::Defer {
                seq,
                due_ms,
                attempts,
                condemned,
            } => {
                let row = self
                    .pending
                    .get_mut(&seq)
                    .expect("only pending events are deferred");
                row.due_ms = due_ms;
                row.held.attempts = attempts;
                if condemned.is_some() {
                    row.held.condemned = condemned;
                    row.held.route_id = DEAD_LETTERS;
                }
                Ack::Deferred {
                    seq,
                    route_id: row.held.route_id,
                    due_ms,
                }
            }
        }
    }

    fn first_of(&self, session: Option<&str>) -> Option<Seq> {
        let is_it = |row: &&Row| row.held.event.session() == session;
        self.pending.values().find(is_it).map(|row| row.held.seq)
    }

    fn hand_over(&mut self) {
        if let Some(committed) = self.committed.pop_front() {
            self.flow.committed(committed, self.now);
        }
    }

    /// The snapshot; what it found is handed over later.
    fn take(&mut self) {
        let Some(request) = self.take.take() else {
            return;
        };
        let is_due = |row: &&Row| {
            row.held.is_head
                && row.held.route_id == request.route_id
                && row.due_ms <= request.now_ms
        };
        let heads: Vec<Held> = self
            .pending
            .values()
            .filter(is_due)
            .filter(|row| !request.skip.contains(&row.held.seq))
            .map(|row| row.held.clone())
            .collect();
        let mut taken = Taken {
            has_more: heads.len() > request.events_max,
            next_due_ms: self.next_due(&request),
            ..Taken::default()
        };
        for head in heads.into_iter().take(request.events_max) {
            let followers_max = usize::try_from(self.draw(3)).unwrap();
            let followers: Vec<Held> = self
                .pending
                .range(head.seq + 1..)
                .filter(|(_, row)| {
                    head.event.session().is_some()
                        && row.held.event.session() == head.event.session()
                })
                .map(|(_, row)| row.held.clone())
                .collect();
            let has_more = followers.len() > followers_max;
            let events = [head]
                .into_iter()
                .chain(followers.into_iter().take(followers_max));
            taken.runs.push(Run {
                events: events.collect(),
                has_more,
            });
        }
        self.taken = Some(taken);
    }

    fn next_due(&self, request: &Request) -> Option<u64> {
        let rows = self.pending.values().filter(|row| {
            row.held.is_head && row.held.route_id == request.route_id && row.due_ms > request.now_ms
        });
        rows.map(|row| row.due_ms).min()
    }

    fn hand_over_take(&mut self) {
        if let Some(taken) = self.taken.take() {
            let taken = if self.draw(20) == 0 {
                None
            } else {
                Some(taken)
            };
            self.flow.taken(taken, self.now);
        }
    }

    fn answer_a_window(&mut self) {
        if self.windows.is_empty() {
            return;
        }
        let which = usize::try_from(self.draw(self.windows.len() as u64)).unwrap();
        let mood = self.mood(self.windows[which].events[0].route_id);
        if mood == Mood::Silent || !self.up.contains(&self.windows[which].link) {
            return;
        }
        let window = self.windows.remove(which);
        let is_alone = window.events.len() == 1;
        let outcomes: Vec<Outcome> = window
            .events
            .iter()
            .map(|held| match mood {
                Mood::Nacks if self.draw(2) == 0 => Outcome::Nacked,
                Mood::Returns if self.draw(2) == 0 => Outcome::Returned("312".into()),
                Mood::Closes => Outcome::ChannelClosed(404, "no exchange".into()),
                Mood::ClosesTooLarge if !is_alone || self.draw(2) == 0 => {
                    Outcome::ChannelClosed(406, "too large".into())
                }
                _ => {
                    self.deliver(held);
                    Outcome::Delivered
                }
            })
            .collect();
        let is_closed = outcomes
            .iter()
            .any(|outcome| matches!(outcome, Outcome::ChannelClosed(..)));
        let outcomes = if is_closed {
            vec![
                outcomes
                    .iter()
                    .find(|outcome| matches!(outcome, Outcome::ChannelClosed(..)))
                    .unwrap()
                    .clone();
                outcomes.len()
            ]
        } else {
            outcomes
        };
        self.flow.reported(
            Report::Done(window.id, outcomes),
            self.now,
            Timestamp::default(),
        );
    }

    fn mood(&self, route_id: RouteId) -> Mood {
        self.moods.get(&route_id).copied().unwrap_or(Mood::Takes)
    }

    fn deliver(&mut self, held: &Held) {
        let session = held.event.session().map(str::to_owned);
        self.delivered.entry(session).or_default().push(held.seq);
    }

    fn trouble(&mut self) {
        match self.draw(8) {
            0 => self.lose(Link::Main),
            1 => self.lose(Link::Probe),
            2 if self.up.contains(&Link::Main) => self.report(Report::Blocked(Link::Main)),
            3 => self.crash(),
            4 => self.reload(),
            _ => {
                let route = match self.draw(ROUTES + 1) {
                    ROUTES => DEAD_LETTERS,
                    route => RouteId::try_from(route).unwrap(),
                };
                let moods = [
                    Mood::Takes,
                    Mood::Nacks,
                    Mood::Returns,
                    Mood::Closes,
                    Mood::ClosesTooLarge,
                    Mood::Silent,
                ];
                let which = usize::try_from(self.draw(moods.len() as u64)).unwrap();
                self.moods.insert(route, moods[which]);
            }
        }
    }

    fn connect(&mut self, link: Link) {
        if self.up.insert(link) {
            self.report(Report::Up(link));
        } else {
            self.report(Report::Unblocked(link));
        }
    }

    /// Nobody knows what of the outstanding the broker has.
    fn lose(&mut self, link: Link) {
        let (lost, kept) = std::mem::take(&mut self.windows)
            .into_iter()
            .partition(|window: &Outstanding| window.link == link);
        self.windows = kept;
        for window in lost {
            for held in &window.events {
                if self.draw(2) == 0 {
                    self.deliver(held);
                }
            }
            self.report(Report::Done(
                window.id,
                vec![Outcome::Unknown; window.events.len()],
            ));
        }
        if self.up.remove(&link) {
            self.report(Report::Down(link));
        }
    }

    /// The process is killed: what was not committed is gone, the rest is found again.
    fn crash(&mut self) {
        for link in [Link::Main, Link::Probe] {
            self.lose(link);
        }
        self.actions_are_lost();
        self.flow = Self::flow(self.chance);
        self.flow.behind(self.routes_with_heads());
    }

    fn actions_are_lost(&mut self) {
        self.appends.clear();
        self.changes.clear();
        self.committed.clear();
        (self.take, self.taken) = (None, None);
        self.now = 0;
        for row in self.pending.values_mut() {
            row.due_ms = 0;
        }
    }

    /// The same routes under new numbers.
    fn reload(&mut self) {
        while !self.committed.is_empty() {
            self.hand_over();
        }
        for row in self.pending.values_mut() {
            if row.held.route_id != DEAD_LETTERS {
                row.held.route_id = (row.held.route_id + 1) % RouteId::try_from(ROUTES).unwrap();
            }
        }
        self.flow.forget();
        self.flow.behind(self.routes_with_heads());
    }

    fn routes_with_heads(&self) -> BTreeSet<RouteId> {
        let heads = self.pending.values().filter(|row| row.held.is_head);
        heads.map(|row| row.held.route_id).collect()
    }

    fn report(&mut self, report: Report) {
        self.flow.reported(report, self.now, Timestamp::default());
    }

    fn act(&mut self) {
        while let Some(action) = self.flow.next_action(self.now, Timestamp::default()) {
            match action {
                Action::Publish {
                    window,
                    link,
                    events,
                    ..
                } => self.publish(window, link, events),
                Action::Take(request) => {
                    assert!(
                        self.take.is_none() && self.taken.is_none(),
                        "one take at a time"
                    );
                    self.take = Some(request);
                }
                Action::Change(change) => self.changes.push(change),
                Action::Reconnect(link, _) => drop(self.down_later.insert(link)),
            }
        }
        for link in std::mem::take(&mut self.down_later) {
            self.lose(link);
            self.act();
        }
    }

    fn publish(&mut self, id: u64, link: Link, events: Vec<Held>) {
        self.up.insert(link);
        if link == Link::Probe {
            self.report(Report::Up(link));
        }
        assert!(!events.is_empty());
        let on_their_way = self
            .windows
            .iter()
            .map(|window| window.events.len())
            .sum::<usize>();
        assert!(
            on_their_way + events.len() <= IN_FLIGHT_MAX,
            "too many in flight"
        );
        let bytes: usize = self
            .windows
            .iter()
            .flat_map(|window| &window.events)
            .chain(&events)
            .map(|held| held.event.body.len())
            .sum();
        assert!(
            bytes <= 1_000 || on_their_way + events.len() == 1,
            "too many bytes in flight"
        );
        for held in &events {
            assert_eq!(held.route_id, events[0].route_id, "a window has one route");
            self.assert_in_order(held);
        }
        let sessions: Vec<_> = events
            .iter()
            .filter_map(|held| held.event.session())
            .collect();
        let distinct: BTreeSet<_> = sessions.iter().collect();
        assert_eq!(
            distinct.len(),
            sessions.len(),
            "one message of a session in a window"
        );
        self.windows.push(Outstanding { id, link, events });
    }

    /// No other of its session is on its way, and every earlier one has been confirmed.
    fn assert_in_order(&self, held: &Held) {
        let Some(session) = held.event.session() else {
            return;
        };
        let others = self.windows.iter().flat_map(|window| &window.events);
        for other in others {
            assert_ne!(
                other.event.session(),
                Some(session),
                "two of a session on their way"
            );
        }
        let delivered = self.delivered.get(&Some(session.to_owned()));
        for (seq, _) in self
            .accepted
            .range(..held.seq)
            .filter(|(_, other)| other.as_deref() == Some(session))
        {
            let is_delivered = delivered.is_some_and(|delivered| delivered.contains(seq));
            assert!(
                is_delivered,
                "event {} goes out before event {seq}",
                held.seq
            );
        }
    }
}
