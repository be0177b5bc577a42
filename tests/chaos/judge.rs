//! The verdict over the three logs: pure, in one pass over each. What it must not assert is as
//! important as what it asserts: concurrent requests and requests of unknown outcome have no order.

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

/// The invariants, by their number in the documentation.
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
    /// An authentic request got no answer, a late one, or one other than 2xx, without a fault of
    /// the bridge itself or its disk at that time. Strangers are no excuse.
    Answers,
    /// An error that the harness noticed.
    Complaint,
}

#[derive(Debug, Clone)]
pub struct Violation {
    pub invariant: Invariant,
    pub what: String,
    pub event: Option<Event>,
}

/// The limits of I10.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    pub rss_bytes: u64,
    pub descriptors: u64,
    pub journal_bytes: u64,
    /// How many messages may be published again for each interruption.
    pub in_flight: u64,
    /// The maximum response time.
    pub answer: Micros,
}

/// The result of a run.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    pub violations: Vec<Violation>,
    /// Why the run is void, if it is.
    pub voids: Vec<String>,
    pub counts: Counts,
}

#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Distinct events in accepted requests.
    pub accepted: u64,
    pub requests: u64,
    pub deliveries: u64,
    /// Deliveries that the broker repeated.
    pub redeliveries: u64,
    /// Duplicates published by the bridge (`duplicates`), and how many of them exist because the
    /// sender sent the event twice (`sent_twice`).
    pub duplicates: u64,
    pub sent_twice: u64,
    /// Duplicates by the fault that was active; a duplicate may count for two faults.
    pub causes: BTreeMap<Kind, u64>,
    pub unrouted: u64,
    pub infos: u64,
    /// Requests that were cut off without a fault of the bridge itself: the kept connection was
    /// evicted.
    pub cut_off: u64,
    /// The longest response time without a fault of the bridge itself or its disk.
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

/// Everything known about one event.
#[derive(Debug, Default)]
struct Story {
    request: usize,
    /// The positions of its deliveries in the log, all queues together.
    deliveries: Vec<u32>,
}

/// The logs, indexed by event.
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

    /// Whether a fault of one of these kinds was active at any time between the two.
    fn is_during(&self, from: Micros, to: Micros, kinds: &[Kind]) -> bool {
        self.history.injections.iter().any(|injection| {
            kinds.contains(&injection.kind) && injection.begin <= to && injection.end >= from
        })
    }

    /// The kinds of faults that were active between the two, or had just ended, and may be the
    /// cause of what the bridge did at the broker. Strangers cannot be the cause.
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

/// Faults in which an event that was answered with 503 may nevertheless be stored: the commit took
/// too long, or the restart finds it in the WAL although its fsync failed.
const UNCERTAIN: &[Kind] = &[Kind::FsyncSlow, Kind::FsyncFails];

/// Whether an event may be stored: an attempt of its request was accepted or has an unknown
/// outcome.
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

/// A readable summary of everything known about an event.
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
