//! The three logs of a run, in memory: what was sent and answered, what was delivered, and which
//! faults were injected. Entries are complete when they are added, and never change.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::event::Event;
use crate::schedule::Kind;

/// Microseconds since the run began.
pub type Micros = u64;

/// The outcome of one attempt to send a request (Jepsen's ok, fail and info).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A complete 2xx answer.
    Ok,
    /// Another complete answer.
    Fail(u16),
    /// Sent, maybe in part, and not answered: the outcome is unknown.
    Info,
}

#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    pub begin: Micros,
    pub end: Micros,
    pub outcome: Outcome,
}

/// One array of events, sent until it was accepted or given up.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub events: Vec<Event>,
    pub attempts: Vec<Attempt>,
}

impl Request {
    /// When it was first accepted.
    pub fn accepted_at(&self) -> Option<Micros> {
        let ok = self.attempts.iter();
        ok.filter(|attempt| attempt.outcome == Outcome::Ok)
            .map(|attempt| attempt.end)
            .min()
    }

    /// When it was first sent.
    pub fn begin(&self) -> Micros {
        self.attempts
            .iter()
            .map(|attempt| attempt.begin)
            .min()
            .unwrap_or(0)
    }
}

/// A queue with a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// Bound to every exchange.
    All,
    /// Bound to one exchange, given by its position in `EXCHANGES`.
    Audit(u8),
    Unrouted,
    DeadLetter,
}

/// One message as a consumer received it.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub queue: Queue,
    pub at: Micros,
    /// The event, identified by the body.
    pub event: Option<Event>,
    pub message_id: u128,
    /// The broker has delivered it before, to a consumer that did not acknowledge it.
    pub is_redelivered: bool,
    /// What is wrong with body, route or properties.
    pub flaw: Option<Box<str>>,
}

/// One fault as it really happened.
#[derive(Debug, Clone)]
pub struct Injection {
    pub kind: Kind,
    pub begin: Micros,
    pub end: Micros,
    /// The evidence that the fault took effect, or why it did not.
    pub evidence: Result<String, String>,
}

/// The bridge's own counters at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    pub at: Micros,
    pub accepted: u64,
    pub published: u64,
    pub dead_lettered: u64,
    pub backlog: u64,
}

/// The maximum that was observed of each.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peaks {
    pub rss_bytes: u64,
    pub descriptors: u64,
    pub journal_bytes: u64,
    pub backlog: u64,
}

/// The actions of strangers, all attacks together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Strangers {
    pub opened: u64,
    /// How often they were answered with an error, or closed.
    pub refused: u64,
}

impl std::ops::AddAssign for Strangers {
    fn add_assign(&mut self, more: Self) {
        self.opened += more.opened;
        self.refused += more.refused;
    }
}

/// The state at the end, after all faults had ended and everything had drained.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// The bridge's counters.
    pub account: Account,
    /// Time from the end of the last fault to the delivery of a new event; `None`: never delivered.
    pub probe: Option<Micros>,
    pub probe_limit: Micros,
    /// Whether markers of forged requests are in the journal's files.
    pub has_forged_bytes: bool,
    /// Open descriptors before the first fault and after the last one.
    pub descriptors: (u64, u64),
    /// Connections made to the broker and starts of the bridge: how often messages in flight could
    /// be published again.
    pub interruptions: u64,
}

/// Everything that the judge needs.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub requests: Vec<Request>,
    pub deliveries: Vec<Delivery>,
    pub injections: Vec<Injection>,
    pub accounts: Vec<Account>,
    pub peaks: Peaks,
    pub ending: Ending,
    /// Answers to forged and to incomplete requests, by status.
    pub forged: BTreeMap<u16, u64>,
    pub strangers: Strangers,
    /// The response times of accepted requests.
    pub answers: Vec<Micros>,
    /// Errors that have no place elsewhere; each is a violation.
    pub complaints: Vec<String>,
}

/// The logs while they are written, by many tasks.
pub struct Ledger {
    begin: Instant,
    history: Mutex<History>,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            begin: Instant::now(),
            history: Mutex::default(),
        }
    }

    pub fn now(&self) -> Micros {
        u64::try_from(self.begin.elapsed().as_micros()).expect("half a million years")
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a request that is about to be sent; returns its number.
    pub fn request(&self, events: Vec<Event>) -> usize {
        let requests = &mut self.history().requests;
        requests.push(Request {
            events,
            attempts: Vec::new(),
        });
        requests.len() - 1
    }

    pub fn attempted(&self, request: usize, begin: Micros, outcome: Outcome) {
        let end = self.now();
        let mut history = self.history();
        history.requests[request].attempts.push(Attempt {
            begin,
            end,
            outcome,
        });
        if outcome == Outcome::Ok {
            history.answers.push(end - begin);
        }
    }

    pub fn complain(&self, what: String) {
        eprintln!("chaos: {what}");
        self.history().complaints.push(what);
    }
}
