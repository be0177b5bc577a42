//! The guarantees, checked at every step against what can be observed outside the flow. A violation
//! panics with a description.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::disk::Disk;
use super::events::Fresh;
use super::scenario::{CONFIRM_TIMEOUT, IN_FLIGHT_BYTES_MAX, MESSAGE_BYTES_MAX, Scenario};
use crate::journal::{FinalState, QueuedEvent, Seq, Transition, TransitionApplied};
use crate::rabbitmq::{Link, Outcome, RefusalKind};
use crate::webhook::{DeadLetterReason, Event};

/// The outcome of an event's latest publication by the current process, as reported to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    OnItsWay,
    Delivered,
    Refused,
    /// Refused as too large, and the event was alone in its window.
    TooLarge,
    Unknown,
}

/// All that is known about one accepted event.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the flags are independent of each other"
)]
struct Entry {
    event: Arc<Event>,
    session: Option<u64>,
    /// The event before it in its session.
    before: Option<Seq>,
    is_answered: bool,
    is_stored: bool,
    is_stored_as_dead_letter: bool,
    is_completed: bool,
    told: Told,
    was_published: bool,
}

#[derive(Default)]
pub(super) struct Judge {
    in_flight_max: usize,
    attempts_max: u32,
    entries: Vec<Entry>,
    /// The last event of each session.
    sessions: BTreeMap<u64, Seq>,
    /// Published windows whose outcomes were not reported to the flow yet.
    windows: BTreeMap<u64, PublishWindow>,
    /// Connections that are up and not blocked, according to the flow's inputs.
    up: BTreeSet<Link>,
    /// Sessions with a message in flight.
    busy: BTreeSet<u64>,
    /// Changes that the flow has requested and that were not acknowledged to it.
    awaiting_commit: BTreeSet<Seq>,
    /// Whether the last changes of this process may not have reached the disk.
    may_repeat: bool,
}

struct PublishWindow {
    seqs: Vec<Seq>,
    bytes: u64,
    link: Link,
    since: u64,
}

impl Entry {
    fn is_at_broker(&self) -> bool {
        self.is_stored || self.is_stored_as_dead_letter
    }
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
        let session = fresh.session;
        let before = session.and_then(|session| self.sessions.insert(session, seq));
        self.entries.push(Entry {
            event: fresh.event.clone(),
            session,
            before,
            is_answered: false,
            is_stored: false,
            is_stored_as_dead_letter: false,
            is_completed: false,
            told: Told::Nothing,
            was_published: false,
        });
    }

    pub(super) fn answered(&mut self, seq: Seq) {
        self.entries[index(seq)].is_answered = true;
    }

    /// Checks that the first deliveries of a session are in order, whatever the outcome of earlier
    /// attempts was.
    pub(super) fn stored(&mut self, queued: &QueuedEvent) {
        let entry = &mut self.entries[index(queued.seq)];
        let is_dead_letter = queued.dead_letter_cause.is_some() || entry.session.is_none();
        let (was_there, before) = (entry.is_at_broker(), entry.before);
        entry.is_stored |= !is_dead_letter;
        entry.is_stored_as_dead_letter |= is_dead_letter;
        let is_there = |seq| self.entries[index(seq)].is_at_broker();
        assert!(
            was_there || before.is_none_or(is_there),
            "event {} is delivered out of order",
            queued.seq
        );
    }

    /// Checks a window that is published. Returns how many of its events were published before.
    pub(super) fn published(
        &mut self,
        window: u64,
        link: Link,
        events: &[QueuedEvent],
        disk: &Disk,
        now: u64,
    ) -> usize {
        assert!(!events.is_empty(), "window {window} is empty");
        let repeated = events
            .iter()
            .filter(|queued| self.entries[index(queued.seq)].was_published)
            .count();
        for queued in events {
            assert_eq!(
                queued.route_id, events[0].route_id,
                "a window has two routes"
            );
            self.may_be_published(queued, disk, now);
            let entry = &mut self.entries[index(queued.seq)];
            (entry.told, entry.was_published) = (Told::OnItsWay, true);
            if let Some(session) = entry.session {
                assert!(
                    self.busy.insert(session),
                    "two events of a session are in flight"
                );
            }
        }
        let bytes = |queued: &QueuedEvent| queued.event.body.len() as u64;
        let sent = PublishWindow {
            seqs: events.iter().map(|queued| queued.seq).collect(),
            bytes: events.iter().map(bytes).sum(),
            link,
            since: now,
        };
        assert!(
            self.windows.insert(window, sent).is_none(),
            "a window's number is used twice"
        );
        self.are_few_outstanding();
        let bytes: u64 = self.windows.values().map(|window| window.bytes).sum();
        assert!(
            bytes <= IN_FLIGHT_BYTES_MAX || self.on_their_way() == 1,
            "{bytes} bytes are in flight"
        );
        repeated
    }

    fn on_their_way(&self) -> usize {
        let windows = self.windows.values();
        windows.map(|window| window.seqs.len()).sum()
    }

    fn are_few_outstanding(&self) {
        let outstanding = self.on_their_way() + self.awaiting_commit.len();
        assert!(
            outstanding <= self.in_flight_max,
            "{outstanding} are unconfirmed or awaiting commit"
        );
    }

    fn may_be_published(&self, queued: &QueuedEvent, disk: &Disk, now: u64) {
        let seq = queued.seq;
        let row = disk.row(seq);
        let row =
            row.unwrap_or_else(|| panic!("event {seq} is published, and is complete or unread"));
        let entry = &self.entries[index(seq)];
        assert!(queued.has_body, "event {seq} is published without its body");
        assert!(
            Arc::ptr_eq(&queued.event, &entry.event),
            "event {seq} is not what was received"
        );
        assert_eq!(
            queued.route_id, row.route_id,
            "event {seq} has another route on the disk"
        );
        assert_eq!(
            queued.dead_letter_cause, row.dead_letter_cause,
            "event {seq} has another dead-letter cause on the disk"
        );
        assert_eq!(
            queued.attempts, row.attempts,
            "event {seq} has other attempts on the disk"
        );
        assert!(row.due_ms <= now, "event {seq} is published too early");
        let is_good = !queued.is_damaged && queued.event.body.len() as u64 <= MESSAGE_BYTES_MAX;
        assert!(
            is_good || queued.dead_letter_cause.is_some(),
            "event {seq} must not be published as it is"
        );
        assert!(
            queued.attempts < self.attempts_max
                || row.dead_letter_cause.is_some()
                || entry.session.is_none(),
            "event {seq} is published too often"
        );
        let told = self.entries[index(seq)].told;
        assert!(
            !matches!(told, Told::OnItsWay | Told::Delivered),
            "event {seq} is published again without a cause: {told:?}"
        );
        assert!(
            !self.awaiting_commit.contains(&seq),
            "event {seq} is published before its change is on the disk"
        );
        self.has_no_open_predecessor(seq);
    }

    fn has_no_open_predecessor(&self, seq: Seq) {
        let before = self.entries[index(seq)].before;
        let is_done = |seq| {
            let entry = &self.entries[index(seq)];
            entry.is_completed || entry.told == Told::Delivered
        };
        assert!(
            before.is_none_or(is_done),
            "event {seq} is published before event {before:?} is delivered"
        );
    }

    /// Records the outcomes of a window that are reported to the flow.
    pub(super) fn told(&mut self, window: u64, outcomes: &[Outcome]) {
        let sent = self.windows.remove(&window);
        let seqs = sent.expect("only windows that went out come back").seqs;
        let is_alone = seqs.len() == 1;
        for (seq, outcome) in seqs.into_iter().zip(outcomes) {
            let entry = &self.entries[index(seq)];
            if let Some(session) = entry.session {
                self.busy.remove(&session);
            }
            let told = match outcome {
                Outcome::Delivered => Told::Delivered,
                Outcome::Returned(_) | Outcome::Nacked => Told::Refused,
                Outcome::ChannelClosed {
                    kind: RefusalKind::TooLarge,
                    ..
                } if is_alone => Told::TooLarge,
                Outcome::ChannelClosed { .. } | Outcome::Unknown => Told::Unknown,
            };
            self.entries[index(seq)].told = told;
        }
    }

    pub(super) fn told_of(&mut self, link: Link, is_up: bool) {
        if is_up {
            self.up.insert(link);
        } else {
            self.up.remove(&link);
        }
    }

    /// Checks that the flow gives up a connection only if it was usable and has confirmed nothing
    /// for too long.
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

    /// Checks a change that the flow requests.
    pub(super) fn changed(&mut self, change: &Transition, disk: &Disk) {
        let (Transition::Complete { seq, .. } | Transition::Reschedule { seq, .. }) = change;
        let seq = *seq;
        let told = self.entries[index(seq)].told;
        assert!(
            self.awaiting_commit.insert(seq),
            "event {seq} has two changes"
        );
        self.are_few_outstanding();
        let row = disk.row(seq);
        let row = row.unwrap_or_else(|| panic!("event {seq} is changed after it was complete"));
        let Entry { event, session, .. } = &self.entries[index(seq)];
        match change {
            Transition::Complete { final_state, .. } => {
                assert_eq!(told, Told::Delivered, "event {seq} is completed");
                let reason = row
                    .dead_letter_cause
                    .as_ref()
                    .map(|dead_letter_cause| dead_letter_cause.reason);
                let reason = reason.or(session.is_none().then_some(DeadLetterReason::Invalid));
                let expected = reason.map_or(FinalState::Published, FinalState::DeadLettered);
                assert_eq!(*final_state, expected, "event {seq} has the wrong outcome");
            }
            Transition::Reschedule {
                due_ms,
                attempts,
                dead_letter_cause: None,
                ..
            } => {
                assert!(
                    told == Told::Refused || told == Told::TooLarge,
                    "event {seq} is rescheduled: {told:?}"
                );
                assert!(*due_ms > 0, "event {seq} is retried without a delay");
                assert_eq!(*attempts, row.attempts + 1, "attempts of event {seq}");
            }
            Transition::Reschedule {
                attempts,
                dead_letter_cause: Some(dead_letter_cause),
                ..
            } => {
                assert!(
                    row.dead_letter_cause.is_none(),
                    "event {seq} is dead-lettered twice"
                );
                let is_due = match dead_letter_cause.reason {
                    DeadLetterReason::TooLarge if told == Told::TooLarge => true,
                    DeadLetterReason::TooLarge => event.body.len() as u64 > MESSAGE_BYTES_MAX,
                    DeadLetterReason::Damaged => disk.unsettled[&seq].is_damaged,
                    _ => told == Told::Refused && *attempts >= self.attempts_max,
                };
                assert!(
                    is_due,
                    "event {seq} is dead-lettered: {dead_letter_cause:?}, {told:?}"
                );
            }
        }
    }

    /// Checks a committed change: no event may leave the journal that the broker has not stored.
    pub(super) fn landed(&mut self, change: &Transition) {
        let Transition::Complete {
            seq, final_state, ..
        } = change
        else {
            return;
        };
        let entry = &mut self.entries[index(*seq)];
        let is_there = match final_state {
            FinalState::Published => entry.is_stored,
            FinalState::DeadLettered(_) => entry.is_stored_as_dead_letter,
        };
        assert!(
            is_there,
            "event {seq} is lost: {final_state:?}, and the broker never had it"
        );
        entry.is_completed = true;
    }

    /// Records changes that are acknowledged to the flow.
    pub(super) fn heard(&mut self, applied: &[TransitionApplied]) {
        for ack in applied {
            let (TransitionApplied::Completed { seq, .. }
            | TransitionApplied::Rescheduled { seq, .. }) = ack;
            self.awaiting_commit.remove(seq);
        }
    }

    /// Starts a new process, which knows only the disk.
    pub(super) fn new_life(&mut self) {
        for entry in &mut self.entries {
            entry.told = Told::Nothing;
        }
        self.windows.clear();
        self.up.clear();
        self.busy.clear();
        self.awaiting_commit.clear();
        self.may_repeat = false;
    }

    pub(super) fn may_repeat(&mut self) {
        self.may_repeat = true;
    }

    /// Checks that a process that ended in order leaves no event that would be published a second
    /// time.
    pub(super) fn ended_in_order(&self, disk: &Disk) {
        if self.may_repeat {
            return;
        }
        assert_eq!(
            self.on_their_way(),
            0,
            "it ended before all windows had outcomes"
        );
        for seq in disk.unsettled.keys() {
            let told = self.entries[index(*seq)].told;
            assert_ne!(told, Told::Delivered, "event {seq} will be published again");
        }
    }

    /// Checks that every committed event is at the broker and complete, whether it was answered 2xx
    /// or not.
    pub(super) fn all_is_delivered(&self, disk: &Disk) {
        assert!(disk.unsettled.is_empty(), "events are pending");
        for (position, entry) in self.entries.iter().enumerate() {
            let seq = position + 1;
            assert!(
                entry.is_at_broker(),
                "event {seq} is lost (answered: {})",
                entry.is_answered
            );
            assert!(entry.is_completed, "event {seq} is not complete");
        }
        assert!(self.windows.is_empty() && self.awaiting_commit.is_empty());
    }
}
