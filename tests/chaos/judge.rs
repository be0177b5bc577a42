//! The verdict over the three logs: pure, in one pass over each. What it may not assert is as
//! important as what it does: concurrent requests and requests of unknown outcome have no order.

mod accounts;
mod copies;
mod events;
mod order;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use crate::event::{Event, FORGED, INCOMPLETE};
use crate::ledger::{Delivery, History, Micros, Outcome, Queue, Request};
use crate::schedule::{Kind, Lane};

/// Invariants of the catalogue, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    I1NoLoss,
    I2NothingInvented,
    I3Unauthenticated,
    I4Order,
    I5Identity,
    I6CausedDuplicates,
    I7WholeArrays,
    I8Routing,
    I10Bounded,
    I11Liveness,
    I12Accounting,
    /// An authentic request got another answer than 2xx, or a late one or none, and nothing done to
    /// the bridge itself or its disk explains it. Strangers do not.
    Answers,
    /// What the harness saw go wrong.
    Complaint,
}

#[derive(Debug, Clone)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
    pub event: Option<Event>,
}

/// Caps of I10.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    pub rss_bytes: u64,
    pub descriptors: u64,
    pub journal_bytes: u64,
    /// How many messages each interruption may bring again.
    pub in_flight: u64,
    /// How long a sender may have to wait.
    pub answer: Micros,
}

/// What is to be said of a run.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    pub violations: Vec<Violation>,
    /// Why the run does not count, if it does not.
    pub voids: Vec<String>,
    pub counts: Counts,
}

#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Distinct events in accepted requests.
    pub accepted: u64,
    pub requests: u64,
    pub deliveries: u64,
    /// Deliveries the broker gave twice.
    pub redeliveries: u64,
    /// Copies made by the bridge, and of them those that a sender caused, who sent twice.
    pub duplicates: u64,
    pub sent_twice: u64,
    /// Copies by the fault that was under way; one copy may count for two of them.
    pub causes: BTreeMap<Kind, u64>,
    pub unrouted: u64,
    pub infos: u64,
    /// Those that were cut off at once while nothing was done to the bridge itself: a connection
    /// that was kept had to make room.
    pub cut_off: u64,
    /// The longest answer while nothing was done to the bridge itself or its disk.
    pub answer_max: Micros,
    pub refusals: BTreeMap<u16, u64>,
    pub injections: BTreeMap<Kind, u64>,
    pub unseen: u64,
}

/// Judges a run.
pub fn judge(history: &History, caps: &Caps) -> Findings {
    let index = Index::of(history);
    let mut findings = Findings::default();
    events::judge(&index, caps, &mut findings);
    order::judge(&index, &mut findings);
    copies::judge(&index, caps, &mut findings);
    accounts::judge(&index, caps, &mut findings);
    findings
}

impl Findings {
    pub fn verdict(&self) -> &'static str {
        if !self.violations.is_empty() {
            "FAIL"
        } else if self.voids.is_empty() {
            "PASS"
        } else {
            "VOID"
        }
    }

    /// How often an invariant was violated.
    pub fn count(&self, invariant: Invariant) -> usize {
        let all = self.violations.iter();
        all.filter(|violation| violation.invariant == invariant)
            .count()
    }

    fn add(&mut self, invariant: Invariant, event: Option<Event>, what: impl Into<String>) {
        self.violations.push(Violation {
            invariant,
            what: what.into(),
            event,
        });
    }
}

/// All that is known of one event.
#[derive(Debug, Default)]
struct Story {
    request: usize,
    /// Positions of its deliveries, all queues together.
    deliveries: Vec<u32>,
}

/// The logs by event.
struct Index<'h> {
    history: &'h History,
    stories: HashMap<Event, Story>,
}

impl<'h> Index<'h> {
    fn of(history: &'h History) -> Self {
        let mut stories: HashMap<Event, Story> = HashMap::new();
        for (number, request) in history.requests.iter().enumerate() {
            for event in &request.events {
                stories.entry(*event).or_default().request = number;
            }
        }
        for (position, delivery) in history.deliveries.iter().enumerate() {
            let story = delivery.event.and_then(|event| stories.get_mut(&event));
            if let Some(story) = story {
                let position = u32::try_from(position).expect("fewer than 2^32 deliveries");
                story.deliveries.push(position);
            }
        }
        Self { history, stories }
    }

    fn request(&self, event: Event) -> Option<&'h Request> {
        let story = self.stories.get(&event)?;
        Some(&self.history.requests[story.request])
    }

    fn deliveries(&self, event: Event) -> impl Iterator<Item = (u32, &'h Delivery)> {
        let positions = self
            .stories
            .get(&event)
            .map_or(&[][..], |story| &story.deliveries);
        let all = &self.history.deliveries;
        positions
            .iter()
            .map(move |position| (*position, &all[*position as usize]))
    }

    /// Whether a fault of such a kind was under way at any time between the two.
    fn is_during(&self, from: Micros, to: Micros, kinds: &[Kind]) -> bool {
        self.history.injections.iter().any(|injection| {
            kinds.contains(&injection.kind) && injection.begin <= to && injection.end >= from
        })
    }

    /// The kinds that were under way between the two, or had just ended, and may be the cause of
    /// what the bridge did at the broker: strangers may not.
    fn kinds_during(&self, from: Micros, to: Micros) -> Vec<Kind> {
        const AFTERWARDS: Micros = 10_000_000;
        let mut kinds: Vec<_> = self
            .history
            .injections
            .iter()
            .filter(|one| one.begin <= to && one.end + AFTERWARDS >= from)
            .filter(|one| one.kind.lane() != Lane::Strangers)
            .map(|one| one.kind)
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

/// Faults in which what was answered 503 may be held all the same: a commit that took too long, or
/// one that the restart finds in the WAL although its fsync had failed.
const UNCERTAIN: &[Kind] = &[Kind::FsyncSlow, Kind::FsyncFails];

/// Whether an event may be held: some attempt of its request was accepted, or nobody knows.
fn may_be_held(index: &Index, request: &Request) -> bool {
    request.attempts.iter().any(|attempt| {
        let may = match attempt.outcome {
            Outcome::Ok | Outcome::Info => true,
            Outcome::Fail(_) => false,
        };
        may || index.is_during(attempt.begin, attempt.end, UNCERTAIN)
    })
}

fn is_genuine(event: Event) -> bool {
    event.session < INCOMPLETE
}

fn is_forged(event: Event) -> bool {
    event.session >= FORGED
}

fn is_of(queue: Queue) -> impl Fn(&(u32, &Delivery)) -> bool {
    move |(_, delivery)| delivery.queue == queue
}

/// What is known of an event, for people.
pub fn story(history: &History, event: Event) -> String {
    use std::fmt::Write;
    let index = Index::of(history);
    let mut text = format!("event {} of session {}\n", event.seq, event.session);
    let mut faults = (Micros::MAX, 0);
    if let Some(request) = index.request(event) {
        let others = request.events.len();
        let _ = writeln!(text, "  in an array of {others}: {:?}", request.events);
        for attempt in &request.attempts {
            let _ = writeln!(
                text,
                "  {:>10} sent, {:>10} {:?}",
                attempt.begin, attempt.end, attempt.outcome
            );
            faults = (faults.0.min(attempt.begin), faults.1.max(attempt.end));
        }
    } else {
        text.push_str("  nobody sent it\n");
    }
    for (position, delivery) in index.deliveries(event) {
        let _ = writeln!(
            text,
            "  {:>10} delivered as #{position} in {:?}, message_id {:032x}{}{}",
            delivery.at,
            delivery.queue,
            delivery.message_id,
            if delivery.is_redelivered {
                ", redelivered"
            } else {
                ""
            },
            delivery
                .flaw
                .as_ref()
                .map(|flaw| format!(", {flaw}"))
                .unwrap_or_default()
        );
        faults = (faults.0.min(delivery.at), faults.1.max(delivery.at));
    }
    for injection in &history.injections {
        if injection.begin <= faults.1 && injection.end + 5_000_000 >= faults.0 {
            let _ = writeln!(
                text,
                "  {:>10} to {:>10} {}: {:?}",
                injection.begin,
                injection.end,
                injection.kind.name(),
                injection.evidence
            );
        }
    }
    text
}
