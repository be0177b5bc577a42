//! Events that are like those of webhooks, as cheaply made as a million worlds want them.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::random::Random;
use super::scenario::Scenario;
use crate::journal::RouteId;
use crate::webhook::routing::Route;
use crate::webhook::{Content, Envelope, Event, Fields, Reason, Reject};

/// Two sources: sessions of one name in both are two sessions.
const SOURCES: u64 = 2;
/// Statuses of sessions; each has a route.
pub(super) const STATUSES: usize = 4;
/// The numbers of routes, those of dead letters included.
pub(super) const ROUTES_MAX: usize = 8;

static BODY: [u8; 2_500] = [b'x'; 2_500];

/// An event before it has a number.
#[derive(Clone)]
pub(super) struct Fresh {
    pub(super) event: Arc<Event>,
    /// Source and session as one number; `None`: a reject.
    pub(super) session: Option<u64>,
    pub(super) status: usize,
    /// The disk will not give back what it was given.
    pub(super) is_damaged: bool,
}

pub(super) struct Maker {
    envelopes: Vec<Arc<Envelope>>,
    pub(super) label: Arc<str>,
    routes: Vec<Arc<Route>>,
    made: u128,
    /// Webhooks that a sender may send again.
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
        let route = |number: usize| {
            Arc::new(Route {
                exchange: "e".into(),
                routing_key: number.to_string().into(),
            })
        };
        Self {
            envelopes: (0..SOURCES).map(envelope).collect(),
            label: "created".into(),
            routes: (0..ROUTES_MAX).map(route).collect(),
            made: 0,
            sent: Vec::new(),
        }
    }

    pub(super) fn route(&self, route_id: RouteId) -> Arc<Route> {
        self.routes[usize::try_from(route_id).expect("routes are numbered from 0")].clone()
    }

    pub(super) fn webhook(&mut self, random: &mut Random, scenario: &Scenario) -> Vec<Fresh> {
        if !self.sent.is_empty() && random.one_in(12) {
            // A sender that tries again: the same ids, later in the order.
            return vec![self.sent[random.index(self.sent.len())].clone()];
        }
        let many = 1 + random.below(scenario.webhook_max);
        let events: Vec<Fresh> = (0..many).map(|_| self.make(random, scenario)).collect();
        if self.sent.len() < 4 {
            self.sent.extend(events.first().cloned());
        }
        events
    }

    fn make(&mut self, random: &mut Random, scenario: &Scenario) -> Fresh {
        let chosen = |random: &mut Random, many: u64| many > 0 && random.one_in(many);
        let is_reject = chosen(random, scenario.rejects);
        let bytes = if chosen(random, scenario.large) {
            random.pick(&[400, 400, 900, 1_500, 2_500])
        } else {
            20
        };
        let source = random.index(self.envelopes.len());
        let session = random.below(scenario.sessions);
        let content = if is_reject {
            Content::Reject(Reject {
                reason: Reason::Invalid,
                detail: String::new(),
            })
        } else {
            Content::Session(Fields {
                session: session.to_string(),
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
