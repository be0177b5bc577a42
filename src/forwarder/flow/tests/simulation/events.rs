//! Events like those of webhooks, cheap enough to create for a million seeds.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::random::Random;
use super::scenario::Scenario;
use crate::webhook::{Content, DeadLetterReason, Envelope, Event, Fields, Reject};

/// Number of sources. The same session id in two sources is two sessions.
const SOURCES: u64 = 2;
/// Number of statuses; each has a route.
pub(super) const STATUSES: usize = 4;
/// Number of routes, including those of dead letters.
pub(super) const ROUTES_MAX: usize = 8;

static BODY: [u8; 2_500] = [b'x'; 2_500];

/// An event that has no number yet.
#[derive(Clone)]
pub(super) struct Fresh {
    pub(super) event: Arc<Event>,
    /// Source and session as one number; `None` for a reject.
    pub(super) session: Option<u64>,
    pub(super) status: usize,
    /// Whether the disk returns it damaged.
    pub(super) is_damaged: bool,
}

pub(super) struct Maker {
    envelopes: Vec<Arc<Envelope>>,
    made: u128,
    /// Events that a sender may send again.
    sent: Vec<Fresh>,
}

impl Maker {
    pub(super) fn new() -> Self {
        let envelope = |source: u64| {
            Arc::new(Envelope {
                webhook_id: Uuid::nil(),
                source: source.to_string().into(),
                received_at: Timestamp::default(),
                traceparent: None,
                tracestate: None,
            })
        };
        Self {
            envelopes: (0..SOURCES).map(envelope).collect(),
            made: 0,
            sent: Vec::new(),
        }
    }

    pub(super) fn webhook(&mut self, random: &mut Random, scenario: &Scenario) -> Vec<Fresh> {
        if !self.sent.is_empty() && random.one_in(12) {
            // A sender retries: the same ids, later in the order.
            return vec![self.sent[random.index(self.sent.len())].clone()];
        }
        let many = 1 + random.below(scenario.webhook_max);
        let source = random.index(self.envelopes.len());
        let events = (0..many).map(|_| self.make(source, random, scenario));
        let events: Vec<Fresh> = events.collect();
        if self.sent.len() < 4 {
            self.sent.extend(events.first().cloned());
        }
        events
    }

    fn make(&mut self, source: usize, random: &mut Random, scenario: &Scenario) -> Fresh {
        let chosen = |random: &mut Random, many: u64| many > 0 && random.one_in(many);
        let is_reject = chosen(random, scenario.rejects);
        let bytes = if chosen(random, scenario.large) {
            random.pick(&[400, 400, 900, 1_500, 2_500])
        } else {
            20
        };
        let session = random.below(scenario.sessions);
        let content = if is_reject {
            Content::Reject(Reject {
                reason: DeadLetterReason::Invalid,
                detail: String::new(),
            })
        } else {
            Content::Session(Fields {
                session: session.to_string().into(),
                ..Fields::default()
            })
        };
        self.made += 1;
        Fresh {
            event: Arc::new(Event {
                envelope: self.envelopes[source].clone(),
                index: 0,
                message_id: Uuid::from_u128(self.made),
                content,
                body: Bytes::from_static(&BODY).slice(..bytes),
            }),
            session: (!is_reject).then_some(session * SOURCES + source as u64),
            status: random.index(scenario.routes),
            is_damaged: chosen(random, scenario.damaged),
        }
    }
}
