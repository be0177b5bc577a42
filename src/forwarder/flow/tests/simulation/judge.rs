//! What must be true, judged at every step from what was seen outside of the flow. A violation
//! panics with what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::disk::Disk;
use super::events::Fresh;
use super::scenario::{CONFIRM_TIMEOUT, IN_FLIGHT_BYTES_MAX, MESSAGE_BYTES_MAX, Scenario};
use crate::journal::{Ack, Change, Held, Seq, Settlement};
use crate::rabbitmq::{Link, Outcome};
use crate::webhook::{Event, Reason};

/// What this process knows of an event's last publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    OnItsWay,
    Delivered,
    Refused,
    /// Its channel was closed with 406 while it was alone on it.
    TooLarge,
    Unknown,
}

/// Everything about one accepted event.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each can be true beside the others"
)]
struct Entry {
    event: Arc<Event>,
    session: Option<u64>,
    /// Among the events of its session.
    position: usize,
    is_answered: bool,
    is_stored: bool,
    is_stored_as_dead_letter: bool,
    settled: Option<Settlement>,
    told: Told,
    /// The process that was told.
    life: u32,
    was_published: bool,
}

#[derive(Default)]
pub(super) struct Judge {
    in_flight_max: usize,
    attempts_max: u32,
    entries: Vec<Entry>,
    sessions: BTreeMap<u64, Session>,
    life: u32,
    /// Published, and the flow was not told what became of them.
    windows: BTreeMap<u64, Window>,
    /// Connections that carry something, as far as the flow was told.
    up: BTreeSet<Link>,
    on_their_way: usize,
    bytes_on_their_way: u64,
    /// Sessions that have one on its way.
    busy: BTreeSet<u64>,
    /// Changes the flow has asked for and not heard of.
    unmarked: BTreeSet<Seq>,
    /// The last settlements of this process may not have reached the disk.
    may_repeat: bool,
}

struct Window {
    seqs: Vec<Seq>,
    link: Link,
    since: u64,
}

#[derive(Default)]
struct Session {
    seqs: Vec<Seq>,
    /// So many of the first of them are at the broker.
    stored: usize,
}

fn index(seq: Seq) -> usize {
    usize::try_from(seq - 1).expect("numbers begin with 1")
}

impl Judge {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            in_flight_max: scenario.in_flight_max,
            attempts_max: scenario.attempts_max,
            ..Self::default()
        }
    }

    pub(super) fn appended(&mut self, seq: Seq, fresh: &Fresh) {
        assert_eq!(index(seq), self.entries.len(), "a number is used twice");
        let position = fresh.session.map_or(0, |session| {
            let seqs = &mut self.sessions.entry(session).or_default().seqs;
            seqs.push(seq);
            seqs.len() - 1
        });
        self.entries.push(Entry {
            event: fresh.event.clone(),
            session: fresh.session,
            position,
            is_answered: false,
            is_stored: false,
            is_stored_as_dead_letter: false,
            settled: None,
            told: Told::Nothing,
            life: 0,
            was_published: false,
        });
    }

    pub(super) fn answered(&mut self, seq: Seq) {
        self.entries[index(seq)].is_answered = true;
    }

    /// The first deliveries of a session are in order, whatever became of earlier attempts.
    pub(super) fn stored(&mut self, held: &Held) {
        let entry = &mut self.entries[index(held.seq)];
        let is_dead_letter = held.condemned.is_some() || entry.session.is_none();
        let is_first = !entry.is_stored && !entry.is_stored_as_dead_letter;
        entry.is_stored |= !is_dead_letter;
        entry.is_stored_as_dead_letter |= is_dead_letter;
        if let Some(session) = entry.session
            && is_first
        {
            let position = entry.position;
            let session = self.sessions.entry(session).or_default();
            assert_eq!(
                position, session.stored,
                "event {} is delivered out of order",
                held.seq
            );
            session.stored += 1;
        }
    }

    fn told_now(&self, seq: Seq) -> Told {
        let entry = &self.entries[index(seq)];
        if entry.life == self.life {
            entry.told
        } else {
            Told::Nothing
        }
    }

    fn tell(&mut self, seq: Seq, told: Told) {
        let life = self.life;
        let entry = &mut self.entries[index(seq)];
        (entry.told, entry.life) = (told, life);
    }

    /// A window goes out; says how many of its events are published again.
    pub(super) fn published(
        &mut self,
        window: u64,
        link: Link,
        events: &[Held],
        disk: &Disk,
        now: u64,
    ) -> usize {
        assert!(!events.is_empty(), "window {window} is empty");
        let repeated = events
            .iter()
            .filter(|held| self.entries[index(held.seq)].was_published)
            .count();
        for held in events {
            assert_eq!(held.route_id, events[0].route_id, "a window has two routes");
            self.may_be_published(held, disk, now);
            self.tell(held.seq, Told::OnItsWay);
            let entry = &mut self.entries[index(held.seq)];
            entry.was_published = true;
            self.bytes_on_their_way += held.event.body.len() as u64;
            if let Some(session) = entry.session {
                assert!(
                    self.busy.insert(session),
                    "two of a session are on their way"
                );
            }
        }
        self.on_their_way += events.len();
        let sent = Window {
            seqs: events.iter().map(|held| held.seq).collect(),
            link,
            since: now,
        };
        assert!(
            self.windows.insert(window, sent).is_none(),
            "a window's number is used twice"
        );
        let outstanding = self.on_their_way + self.unmarked.len();
        assert!(
            outstanding <= self.in_flight_max,
            "{outstanding} are unconfirmed or unmarked"
        );
        assert!(
            self.bytes_on_their_way <= IN_FLIGHT_BYTES_MAX || self.on_their_way == 1,
            "{} bytes are on their way",
            self.bytes_on_their_way
        );
        repeated
    }

    fn may_be_published(&self, held: &Held, disk: &Disk, now: u64) {
        let seq = held.seq;
        let row = disk.pending.get(&seq);
        let row = row.unwrap_or_else(|| panic!("event {seq} is published after it was settled"));
        let event = disk.event(seq).expect("it has a row");
        let entry = &self.entries[index(seq)];
        assert!(held.is_whole, "event {seq} is published without its body");
        assert_eq!(
            held.event.message_id, entry.event.message_id,
            "event {seq} got a new id"
        );
        assert!(
            Arc::ptr_eq(&held.event, event) && Arc::ptr_eq(event, &entry.event),
            "event {seq} is not what was received"
        );
        assert_eq!(
            held.route_id, row.route_id,
            "event {seq} goes where it went before"
        );
        assert_eq!(
            held.condemned, row.condemned,
            "event {seq} is another letter on the disk"
        );
        assert_eq!(
            held.attempts, row.attempts,
            "event {seq} has other attempts on the disk"
        );
        assert!(row.due_ms <= now, "event {seq} goes out before it is due");
        let is_good = !held.is_damaged && held.event.body.len() as u64 <= MESSAGE_BYTES_MAX;
        assert!(
            is_good || held.condemned.is_some(),
            "event {seq} must not go out as it is"
        );
        assert!(
            held.attempts < self.attempts_max || row.is_dead_letter(),
            "event {seq} is tried too often"
        );
        let told = self.told_now(seq);
        assert!(
            !matches!(told, Told::OnItsWay | Told::Delivered),
            "event {seq} is published again without a cause: {told:?}"
        );
        assert!(
            !self.unmarked.contains(&seq),
            "event {seq} is published before its change is on the disk"
        );
        self.has_no_open_predecessor(seq);
    }

    fn has_no_open_predecessor(&self, seq: Seq) {
        let entry = &self.entries[index(seq)];
        let Some(session) = entry
            .session
            .and_then(|session| self.sessions.get(&session))
        else {
            return;
        };
        let Some(before) = entry.position.checked_sub(1) else {
            return;
        };
        let before = session.seqs[before];
        let is_done = self.entries[index(before)].settled.is_some()
            || self.told_now(before) == Told::Delivered;
        assert!(
            is_done,
            "event {seq} goes out before event {before} is delivered"
        );
    }

    /// The flow hears what became of a window.
    pub(super) fn told(&mut self, window: u64, outcomes: &[Outcome]) {
        let sent = self.windows.remove(&window);
        let seqs = sent.expect("only windows that went out come back").seqs;
        let is_alone = seqs.len() == 1;
        self.on_their_way -= seqs.len();
        for (seq, outcome) in seqs.into_iter().zip(outcomes) {
            let entry = &self.entries[index(seq)];
            self.bytes_on_their_way -= entry.event.body.len() as u64;
            if let Some(session) = entry.session {
                self.busy.remove(&session);
            }
            let told = match outcome {
                Outcome::Delivered => Told::Delivered,
                Outcome::Returned(_) | Outcome::Nacked => Told::Refused,
                Outcome::ChannelClosed(406, _) if is_alone => Told::TooLarge,
                Outcome::ChannelClosed(..) | Outcome::Unknown => Told::Unknown,
            };
            self.tell(seq, told);
        }
    }

    pub(super) fn told_of(&mut self, link: Link, is_up: bool) {
        if is_up {
            self.up.insert(link);
        } else {
            self.up.remove(&link);
        }
    }

    /// The flow gives a connection up: only one that has confirmed nothing for too long while it
    /// could.
    pub(super) fn gives_up(&self, link: Link, now: u64) {
        assert!(
            self.up.contains(&link),
            "{link:?} is blocked or down, and is given up"
        );
        let mut windows = self.windows.values().filter(|window| window.link == link);
        assert!(
            windows.any(|window| now >= window.since + CONFIRM_TIMEOUT),
            "{link:?} is given up, and nothing on it is late"
        );
    }

    /// The flow wants an event settled or deferred.
    pub(super) fn changed(&mut self, change: &Change, disk: &Disk) {
        let (Change::Settle { seq, .. } | Change::Defer { seq, .. }) = change;
        let seq = *seq;
        let told = self.told_now(seq);
        assert!(self.unmarked.insert(seq), "event {seq} has two changes");
        let row = disk.pending.get(&seq);
        let row = row.unwrap_or_else(|| panic!("event {seq} is changed after it was settled"));
        match change {
            Change::Settle { settlement, .. } => {
                assert_eq!(told, Told::Delivered, "event {seq} is settled");
                let reason = row.condemned.as_ref().map(|condemned| condemned.reason);
                let reason = reason.or(row.session.is_none().then_some(Reason::Invalid));
                let expected = reason.map_or(Settlement::Published, Settlement::DeadLettered);
                assert_eq!(*settlement, expected, "event {seq} ends as something else");
            }
            Change::Defer {
                due_ms,
                attempts,
                condemned: None,
                ..
            } => {
                assert!(
                    told == Told::Refused || told == Told::TooLarge,
                    "event {seq} is deferred: {told:?}"
                );
                assert!(*due_ms > 0, "event {seq} is tried again at once");
                assert_eq!(*attempts, row.attempts + 1, "attempts of event {seq}");
            }
            Change::Defer {
                attempts,
                condemned: Some(condemned),
                ..
            } => {
                assert!(row.condemned.is_none(), "event {seq} is condemned twice");
                let is_due = match condemned.reason {
                    Reason::TooLarge if told == Told::TooLarge => true,
                    Reason::TooLarge => {
                        self.entries[index(seq)].event.body.len() as u64 > MESSAGE_BYTES_MAX
                    }
                    Reason::Damaged => row.is_damaged,
                    _ => told == Told::Refused && *attempts >= self.attempts_max,
                };
                assert!(is_due, "event {seq} is condemned: {condemned:?}, {told:?}");
            }
        }
    }

    /// A change is on the disk: nothing leaves the journal that is not at the broker.
    pub(super) fn landed(&mut self, change: &Change) {
        let Change::Settle {
            seq, settlement, ..
        } = change
        else {
            return;
        };
        let entry = &mut self.entries[index(*seq)];
        let is_there = match settlement {
            Settlement::Published => entry.is_stored,
            Settlement::DeadLettered(_) => entry.is_stored_as_dead_letter,
        };
        assert!(
            is_there,
            "event {seq} is lost: {settlement:?}, and the broker never had it"
        );
        entry.settled = Some(*settlement);
    }

    /// The flow hears of changes that are on the disk.
    pub(super) fn heard(&mut self, acks: &[Ack]) {
        for ack in acks {
            let (Ack::Settled { seq, .. } | Ack::Deferred { seq, .. }) = ack;
            self.unmarked.remove(seq);
        }
    }

    pub(super) fn counters_add_up(&self, disk: &Disk) {
        let done = disk.published + disk.dead_lettered;
        let accepted = self.entries.len() as u64;
        assert_eq!(
            accepted,
            done + disk.pending.len() as u64,
            "counters do not add up"
        );
    }

    /// A process is gone: the next one knows only the disk.
    pub(super) fn new_life(&mut self) {
        self.life += 1;
        self.windows.clear();
        self.up.clear();
        self.busy.clear();
        self.unmarked.clear();
        (self.on_their_way, self.bytes_on_their_way) = (0, 0);
        self.may_repeat = false;
    }

    pub(super) fn may_repeat(&mut self) {
        self.may_repeat = true;
    }

    /// A process that ended in order leaves nothing that it would publish again.
    pub(super) fn ended_in_order(&self, disk: &Disk) {
        if self.may_repeat {
            return;
        }
        assert_eq!(
            self.on_their_way, 0,
            "it ended before its windows came back"
        );
        for seq in disk.pending.keys() {
            let told = self.told_now(*seq);
            assert_ne!(told, Told::Delivered, "event {seq} will be published again");
        }
    }

    /// Every event that was accepted is at the broker and settled, a 2xx or not.
    pub(super) fn all_is_delivered(&self, disk: &Disk) {
        assert!(disk.pending.is_empty(), "something is still pending");
        for (position, entry) in self.entries.iter().enumerate() {
            let is_there = entry.is_stored || entry.is_stored_as_dead_letter;
            let seq = position + 1;
            assert!(
                is_there,
                "event {seq} is lost (answered: {})",
                entry.is_answered
            );
            assert!(entry.settled.is_some(), "event {seq} is not settled");
        }
        assert!(self.windows.is_empty() && self.unmarked.is_empty());
    }
}
