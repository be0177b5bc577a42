//! accepted = published + dead-lettered + backlog, and the queue is what a simple model says,
//! after every step of any sequence of them, across restarts and refused transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::support::*;
use crate::journal::weight;
use crate::journal::{Ack, Held, Seq, Settlement};
use crate::webhook::Reason;

#[derive(Debug, Clone)]
enum Step {
    /// A webhook of so many sessions and statuses; with the settling of a head in the same group.
    Append(Vec<(u8, u8)>, Option<u8>),
    /// A reject.
    Reject,
    Publish(u8),
    DeadLetter(u8, Reason),
    Defer(u8, u64),
    Condemn(u8, Reason),
    /// The disk is full in the middle of a group.
    Refused(u8),
    Wait(u64),
    Reload(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let reason = prop_oneof![
        Just(Reason::Unroutable),
        Just(Reason::Nacked),
        Just(Reason::TooLarge)
    ];
    prop_oneof![
        4 => (prop::collection::vec((0..4u8, 0..4u8), 1..5), prop::option::of(any::<u8>()))
            .prop_map(|(sessions, head)| Step::Append(sessions, head)),
        1 => Just(Step::Reject),
        4 => any::<u8>().prop_map(Step::Publish),
        1 => (any::<u8>(), reason.clone()).prop_map(|(head, reason)| Step::DeadLetter(head, reason)),
        1 => (any::<u8>(), 0..1000u64).prop_map(|(head, due)| Step::Defer(head, due)),
        1 => (any::<u8>(), reason).prop_map(|(head, reason)| Step::Condemn(head, reason)),
        1 => any::<u8>().prop_map(Step::Refused),
        1 => (0..5000u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Reload),
        1 => Just(Step::Restart),
    ]
}

struct World {
    bench: Bench,
    is_rerouted: bool,
    /// Unsettled events by session, in order; a reject is a session of its own.
    queues: BTreeMap<String, Vec<Held>>,
    last_seq: Seq,
}

impl World {
    fn new(retention: Duration, bytes_max: u64) -> Self {
        Self {
            bench: Bench::keeping(retention, bytes_max),
            is_rerouted: false,
            queues: BTreeMap::new(),
            last_seq: 0,
        }
    }

    fn routing(&self) -> std::sync::Arc<crate::webhook::routing::Routing> {
        routing(self.is_rerouted.then_some(("handled", "elsewhere")))
    }

    fn head(&self, choice: u8) -> Option<(String, Held)> {
        let (key, queue) = self
            .queues
            .iter()
            .nth(usize::from(choice) % self.queues.len().max(1))?;
        Some((key.clone(), queue.first()?.clone()))
    }

    fn arrived(&mut self, fresh: Vec<Held>) {
        for held in fresh {
            assert!(held.seq > self.last_seq, "{} was used before", held.seq);
            self.last_seq = held.seq;
            let key = match held.event.session() {
                Some(session) => format!("session {session}"),
                None => format!("reject {}", held.seq),
            };
            let queue = self.queues.entry(key).or_default();
            assert_eq!(held.is_head, queue.is_empty());
            queue.push(held);
        }
    }

    fn settled(&mut self, key: &str, ack: Ack) {
        let queue = self.queues.get_mut(key).unwrap();
        let seq = queue.remove(0).seq;
        let next = queue.first().map(|held| held.seq);
        if queue.is_empty() {
            self.queues.remove(key);
        }
        let Ack::Settled {
            seq: told,
            promoted,
        } = ack
        else {
            panic!("{ack:?}");
        };
        assert_eq!(told, seq);
        assert_eq!(promoted.is_some(), next.is_some());
    }

    fn walk(&mut self, step: &Step) {
        match step {
            Step::Append(sessions, settled) => self.append(sessions, *settled),
            Step::Reject => {
                let fresh = self.bench.commit(&[], &[webhook(&["false"])]).fresh;
                self.arrived(fresh);
            }
            Step::Publish(choice) => self.settle(*choice, Settlement::Published),
            Step::DeadLetter(choice, reason) => {
                self.settle(*choice, Settlement::DeadLettered(*reason));
            }
            Step::Defer(choice, due) => {
                if let Some((_, held)) = self.head(*choice) {
                    self.bench.change(deferred(&held, *due));
                }
            }
            Step::Condemn(choice, reason) => {
                if let Some((_, held)) = self.head(*choice) {
                    self.bench.change(condemned(&held, *reason));
                }
            }
            Step::Refused(choice) => self.refuse(*choice),
            Step::Wait(seconds) => self.bench.now += Duration::from_secs(*seconds),
            Step::Reload(is_rerouted) => {
                self.is_rerouted = *is_rerouted;
                self.bench.store.set_routing(self.routing()).unwrap();
            }
            Step::Restart => {}
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
        let committed = self.bench.commit(&changes, &[webhook(&elements)]);
        for (ack, (key, _)) in committed.acks.into_iter().zip(head) {
            self.settled(&key, ack);
        }
        self.arrived(committed.fresh);
    }

    fn settle(&mut self, choice: u8, settlement: Settlement) {
        if let Some((key, held)) = self.head(choice) {
            let ack = self.bench.change(settle(&held, settlement));
            self.settled(&key, ack);
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
        let large = "x".repeat(usize::try_from((free + 3) * 8192).unwrap());
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
            let mut heads: Vec<_> = self.queues.values().map(|queue| queue[0].seq).collect();
            heads.sort_unstable();
            heads
        };
        assert_eq!(bench.heads(), heads);
        let events: usize = self.queues.values().map(Vec::len).sum();
        assert_eq!(totals.backlog_events, events as u64);
        let stored = |sql| u64::try_from(bench.number(sql)).unwrap();
        assert_eq!(
            stored("SELECT count(*) FROM pending"),
            totals.backlog_events
        );
        let on_disk = |sql| -> i64 { bench.column(sql).into_iter().map(weight::of_row).sum() };
        assert_eq!(
            on_disk("SELECT length(body) FROM events JOIN pending USING (seq)"),
            i64::try_from(totals.backlog_bytes).unwrap()
        );
        assert_eq!(
            on_disk("SELECT bytes FROM settled WHERE kept = 0"),
            bench.number("SELECT sum(value) FROM totals WHERE name = 'retained_disk_bytes'"),
        );
        let orphans = "SELECT count(*) FROM events WHERE seq NOT IN (SELECT seq FROM pending)
                       AND seq NOT IN (SELECT seq FROM settled)";
        assert_eq!(stored(orphans), 0);
    }

    fn restarted(mut self) -> Self {
        let (routing, totals) = (self.routing(), self.bench.store.totals());
        self.bench = self.bench.reopen(&routing);
        assert_eq!(self.bench.store.totals(), totals);
        self
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_counts_and_the_queue_agree_after_every_step(
        steps in prop::collection::vec(step(), 1..40),
        retention_s in prop_oneof![Just(0), Just(3600u64)],
        bytes_max in prop_oneof![Just(0), Just(2000u64), Just(u64::MAX)],
    ) {
        let mut world = World::new(Duration::from_secs(retention_s), bytes_max);
        for step in steps {
            world.walk(&step);
            if let Step::Restart = step {
                world = world.restarted();
            }
            world.check();
        }
    }
}
