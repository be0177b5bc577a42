//! Property test: accepted = published + dead-lettered + backlog, and the queue equals that of a
//! simple model, after every step of a random sequence, across restarts and transactions that fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::support::*;
use crate::journal::reader::Reader;
use crate::journal::schema::PAGE_BYTES;
use crate::journal::{FinalState, QueuedEvent, RouteId, Seq, SessionBatch, TransitionApplied};
use crate::telemetry::status::Totals;
use crate::webhook::{DeadLetterReason, Event, Webhook};

#[derive(Debug, Clone)]
enum Step {
    /// A webhook with these sessions and statuses, optionally in the same group as the completion
    /// of a head.
    Append(Vec<(u8, u8)>, Option<u8>),
    /// A webhook that is one reject.
    Reject,
    Publish(u8),
    DeadLetter(u8, DeadLetterReason),
    Reschedule(u8, u64),
    Condemn(u8, DeadLetterReason),
    /// The disk becomes full in the middle of a group.
    Refused(u8),
    Wait(u64),
    /// Every event of the window gets a row.
    Age,
    /// Whether one status has another exchange from now on.
    Reload(bool),
    /// As `Reload`, with a new process.
    Restart(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let reason = prop_oneof![
        Just(DeadLetterReason::Unroutable),
        Just(DeadLetterReason::Nacked),
        Just(DeadLetterReason::TooLarge)
    ];
    prop_oneof![
        4 => (prop::collection::vec((0..4u8, 0..4u8), 1..5), prop::option::of(any::<u8>()))
            .prop_map(|(sessions, head)| Step::Append(sessions, head)),
        1 => Just(Step::Reject),
        4 => any::<u8>().prop_map(Step::Publish),
        1 => (any::<u8>(), reason.clone()).prop_map(|(head, reason)| Step::DeadLetter(head, reason)),
        1 => (any::<u8>(), 0..1000u64).prop_map(|(head, due)| Step::Reschedule(head, due)),
        1 => (any::<u8>(), reason).prop_map(|(head, reason)| Step::Condemn(head, reason)),
        1 => any::<u8>().prop_map(Step::Refused),
        1 => (0..5000u64).prop_map(Step::Wait),
        1 => Just(Step::Age),
        1 => any::<bool>().prop_map(Step::Reload),
        1 => any::<bool>().prop_map(Step::Restart),
    ]
}

struct World {
    bench: Bench,
    is_rerouted: bool,
    /// Pending events by session, in order; a reject counts as a session of its own.
    queues: BTreeMap<String, Vec<QueuedEvent>>,
    last_seq: Seq,
    /// Rescheduled events and their attempts.
    attempts: BTreeMap<Seq, u32>,
    /// Events that became dead letters.
    condemned: BTreeMap<Seq, DeadLetterReason>,
    /// Events that the forwarder of this process knows about.
    known: BTreeSet<Seq>,
}

impl World {
    fn new(retention: Duration, bytes_max: u64) -> Self {
        Self {
            bench: Bench::keeping(retention, bytes_max),
            is_rerouted: false,
            queues: BTreeMap::new(),
            last_seq: 0,
            attempts: BTreeMap::new(),
            condemned: BTreeMap::new(),
            known: BTreeSet::new(),
        }
    }

    fn routing(&self) -> std::sync::Arc<crate::webhook::routing::Routing> {
        routing(self.is_rerouted.then_some(("handled", "elsewhere")))
    }

    /// The batch of an event that can be published.
    fn head(&self, choice: u8) -> Option<(String, QueuedEvent)> {
        let heads = self.queues.iter().map(|(key, queue)| (key, &queue[0]));
        let tail = self.bench.tail();
        let heads: Vec<_> = heads.filter(|(_, held)| held.seq < tail).collect();
        let (key, held) = heads.get(usize::from(choice) % heads.len().max(1))?;
        Some((String::clone(key), QueuedEvent::clone(held)))
    }

    /// Records an accepted webhook; events without room in the window are not handed over.
    fn arrived(&mut self, webhook: &Webhook, fresh: Vec<QueuedEvent>) {
        let mut fresh: BTreeMap<Seq, QueuedEvent> =
            fresh.into_iter().map(|held| (held.seq, held)).collect();
        for event in &webhook.events {
            self.last_seq += 1;
            let seq = self.last_seq;
            let key = match event.session() {
                Some(session) => format!("session {session}"),
                None => format!("reject {seq}"),
            };
            let queue = self.queues.entry(key).or_default();
            let told = fresh.remove(&seq);
            if let Some(held) = &told {
                assert_eq!(held.is_head, queue.is_empty());
                assert_eq!(held.event.message_id, event.message_id);
                // The forwarder appends it to the events that it has buffered of the session.
                let is_known = queue.iter().all(|held| self.known.contains(&held.seq));
                assert!(!held.has_body || is_known, "{seq} passes its predecessor");
                // An event without its body tells the forwarder that there are more to fetch.
                self.known.extend(queue.iter().map(|held| held.seq));
                self.known.insert(seq);
            }
            let queued = told.unwrap_or_else(|| not_told(seq, event));
            let event = Arc::clone(event);
            queue.push(QueuedEvent { event, ..queued });
        }
        assert!(fresh.is_empty(), "{fresh:?}");
    }

    /// Includes the tail before that commit.
    fn settled(&mut self, key: &str, ack: TransitionApplied, tail: Seq) {
        let queue = self.queues.get_mut(key).unwrap();
        let seq = queue.remove(0).seq;
        let next = queue
            .first()
            .map(|held| held.seq)
            .filter(|next| *next < tail);
        if queue.is_empty() {
            self.queues.remove(key);
        }
        let TransitionApplied::Completed {
            seq: told,
            promoted,
        } = ack
        else {
            panic!("{ack:?}");
        };
        assert_eq!(told, seq);
        assert_eq!(promoted.is_some(), next.is_some());
        if let Some((route_id, next)) = promoted.zip(next) {
            let batches = fetched(&mut self.bench.reader(), route_id);
            assert!(batches.iter().any(|batch| batch.events[0].seq == next));
        }
    }

    /// The heads that can be fetched. Checks that each event is what was received, has its current
    /// route, and follows its predecessor.
    fn handed_out(&self) -> Vec<Seq> {
        let routing = self.routing();
        let queues: BTreeMap<Seq, &Vec<QueuedEvent>> = self
            .queues
            .values()
            .map(|queue| (queue[0].seq, queue))
            .collect();
        let (mut reader, mut found) = (self.bench.reader(), Vec::new());
        for route_id in reader.routes().unwrap() {
            for batch in fetched(&mut reader, route_id) {
                let head = batch.events[0].seq;
                found.push(head);
                let queue = queues.get(&head).expect("it is the head of its session");
                assert!(batch.events.len() <= queue.len(), "{batch:?}");
                for (held, received) in batch.events.iter().zip(*queue) {
                    assert_eq!((held.seq, held.is_damaged), (received.seq, false));
                    assert_eq!(held.event, received.event);
                    assert_eq!(held.is_head, held.seq == head);
                    let attempts = self.attempts.get(&held.seq).copied();
                    assert_eq!(held.attempts, attempts.unwrap_or_default());
                    let reason = self.condemned.get(&held.seq).copied();
                    assert_eq!(held.dead_letter_cause, reason.map(letter));
                    let route = match reason {
                        Some(reason) => routing.dead_letter_route(reason),
                        None => routing.route(&held.event),
                    };
                    assert_eq!(held.route, route);
                }
            }
        }
        found.sort_unstable();
        found
    }

    fn walk(&mut self, step: &Step) {
        match step {
            Step::Append(sessions, settled) => self.append(sessions, *settled),
            Step::Reject => {
                let webhook = webhook(&["false"]);
                let fresh = self.bench.commit(&[], std::slice::from_ref(&webhook)).fresh;
                self.arrived(&webhook, fresh);
            }
            Step::Publish(choice) => self.settle(*choice, FinalState::Published),
            Step::DeadLetter(choice, reason) => {
                self.settle(*choice, FinalState::DeadLettered(*reason));
            }
            Step::Reschedule(choice, due) => {
                if let Some((_, held)) = self.head(*choice) {
                    self.bench.change(deferred(&held, *due));
                    self.attempts.insert(held.seq, 3);
                }
            }
            Step::Condemn(choice, reason) => {
                if let Some((_, held)) = self.head(*choice) {
                    self.bench.change(dead_letter_cause(&held, *reason));
                    self.attempts.insert(held.seq, 12);
                    self.condemned.insert(held.seq, *reason);
                }
            }
            Step::Refused(choice) => self.refuse(*choice),
            Step::Wait(seconds) => self.bench.now += Duration::from_secs(*seconds),
            Step::Age => self.bench.empty_window(),
            Step::Reload(is_rerouted) => {
                self.is_rerouted = *is_rerouted;
                self.bench.store.set_routing(self.routing()).unwrap();
                while self.bench.store.reroute().unwrap().is_some() {}
            }
            Step::Restart(_) => {}
        }
    }

    fn append(&mut self, sessions: &[(u8, u8)], settled: Option<u8>) {
        let statuses = ["created", "handled", "completed", "archived"];
        let elements: Vec<String> = sessions
            .iter()
            .map(|(id, status)| session(&format!("s{id}"), statuses[usize::from(*status)]))
            .collect();
        let head = settled.and_then(|choice| self.head(choice));
        let changes: Vec<_> = head.iter().map(|(_, held)| published(held)).collect();
        let (webhook, tail) = (webhook(&elements), self.bench.tail());
        let committed = self.bench.commit(&changes, std::slice::from_ref(&webhook));
        for (ack, (key, _)) in committed.applied.into_iter().zip(head) {
            self.settled(&key, ack, tail);
        }
        self.arrived(&webhook, committed.fresh);
    }

    fn settle(&mut self, choice: u8, final_state: FinalState) {
        if let Some((key, held)) = self.head(choice) {
            let tail = self.bench.tail();
            let ack = self.bench.change(settle(&held, final_state));
            self.settled(&key, ack, tail);
        }
    }

    fn refuse(&mut self, choice: u8) {
        let (totals, pages) = (
            self.bench.store.totals(),
            self.bench.number("PRAGMA page_count"),
        );
        let limit = |bench: &Bench, pages| {
            let database = bench.store.database();
            database
                .pragma_update(None, "max_page_count", pages)
                .unwrap();
        };
        limit(&self.bench, pages);
        let head = self.head(choice);
        let changes: Vec<_> = head.iter().map(|(_, held)| published(held)).collect();
        let free = self.bench.number("PRAGMA freelist_count");
        let large = "x".repeat(usize::try_from((free + 3) * i64::from(PAGE_BYTES)).unwrap());
        let large = format!(r#"{{"id":"large","status":"created","x":"{large}"}}"#);
        let webhooks = vec![webhook(&[session("s1", "created"), large])];
        let bench = &mut self.bench;
        let result = bench
            .store
            .commit(&changes, &webhooks, bench.now, &bench.retention);
        result.unwrap_err();
        assert_eq!(self.bench.store.totals(), totals);
        limit(&self.bench, 1 << 30);
    }

    fn check(&self) {
        let (bench, totals) = (&self.bench, self.bench.store.totals());
        assert!(bench.is_balanced(), "{totals:?}");
        let heads: Vec<Seq> = {
            let heads = self.queues.values().map(|queue| queue[0].seq);
            let tail = bench.tail();
            let mut heads: Vec<_> = heads.filter(|seq| *seq < tail).collect();
            heads.sort_unstable();
            heads
        };
        assert_eq!(bench.heads(), heads);
        assert_eq!(self.handed_out(), heads);
        let events: usize = self.queues.values().map(Vec::len).sum();
        assert_eq!(totals.backlog_events, events as u64);
        assert_eq!(bench.unsettled().len(), events);
        let stored = |sql| u64::try_from(bench.number(sql)).unwrap();
        let is_settled_twice = "SELECT count(*) - count(DISTINCT seq) FROM settled";
        assert_eq!(stored(is_settled_twice), 0);
        let both = "SELECT count(*) FROM settled JOIN pending USING (seq)";
        assert_eq!(stored(both), 0);
        let orphans = "SELECT count(*) FROM outcomes WHERE seq NOT IN (SELECT seq FROM events)";
        assert_eq!(stored(orphans), 0);
        let retained =
            stored("SELECT sum(run.value ->> 2) FROM completed, json_each(closed) AS run");
        assert_eq!(bench.store.retained_bytes(), retained);
        if events == 0 {
            assert_eq!(totals.backlog_bytes, 0);
        }
        let kept = stored("SELECT count(*) FROM outcomes WHERE kept = 1");
        if events == 0 && kept == 0 && bench.retention.age_max.is_zero() {
            assert_eq!(stored("SELECT count(*) FROM webhooks"), 0);
        }
    }

    /// Checks that the window contains what a start would put into it.
    fn check_window(&mut self) {
        let before = format!("{:?}", self.bench.heads());
        self.bench.store.load_window_now();
        assert_eq!(format!("{:?}", self.bench.heads()), before);
    }

    fn restarted(mut self, is_rerouted: bool) -> Self {
        self.is_rerouted = is_rerouted;
        let (routing, totals) = (self.routing(), self.bench.store.totals());
        self.bench = self.bench.reopen(&routing);
        while self.bench.store.reroute().unwrap().is_some() {}
        self.known.clear();
        // Rows that a smaller window has caused stay, and more may be added: only their size
        // changes.
        let after = self.bench.store.totals();
        assert_eq!(
            Totals {
                backlog_bytes: 0,
                ..after
            },
            Totals {
                backlog_bytes: 0,
                ..totals
            }
        );
        self
    }
}

/// An event that was not handed over by any commit.
fn not_told(seq: Seq, event: &Arc<Event>) -> QueuedEvent {
    let routing = routing(None);
    QueuedEvent {
        seq,
        event: Arc::clone(event),
        routed_status: routing.routed_status(event).into(),
        route: routing.route(event),
        route_id: 0,
        is_head: false,
        attempts: 0,
        dead_letter_cause: None,
        is_damaged: false,
        has_body: false,
    }
}

/// Everything of a route that can be fetched, long after all delays.
fn fetched(reader: &mut Reader, route_id: RouteId) -> Vec<SessionBatch> {
    let mut all = request(route_id);
    all.now_ms = 1_000_000;
    all.events_max = 1000;
    reader.fetch(&all).unwrap().batches
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn counters_and_queue_agree_after_every_step(
        steps in prop::collection::vec(step(), 1..40),
        retention_s in prop_oneof![Just(0), Just(3600u64)],
        bytes_max in prop_oneof![Just(0), Just(2000u64), Just(u64::MAX)],
        // A webhook of the longest kind must fit.
        window_max in prop_oneof![Just(4usize), Just(7), Just(1000)],
    ) {
        let mut world = World::new(Duration::from_secs(retention_s), bytes_max);
        world.bench.store.bound_window(window_max);
        for step in steps {
            world.walk(&step);
            if let Step::Restart(is_rerouted) = step {
                world = world.restarted(is_rerouted);
                world.bench.store.bound_window(window_max);
                world.bench.store.load_window_now();
            }
            world.check();
            world.check_window();
        }
    }
}
