//! Which exchange and routing key an event goes to. Decided by the configuration and the event's
//! fields alone.

mod status;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::status::{Reader, StatusRoute};
pub use self::template::{TemplateError, TemplateProblem};
use super::{Content, Event, Fields, Reason};
use crate::config::routing as config;

/// The statuses of the specification.
pub const STATUSES: [&str; 5] = ["created", "handled", "missed", "completed", "callback"];

/// What every other status is called in keys, message types and metrics.
pub const UNKNOWN: &str = "unknown";

/// Where a message goes: an exchange and a routing key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Name of the exchange.
    pub exchange: Arc<str>,
    /// Routing key, at most 255 bytes.
    pub routing_key: Arc<str>,
}

/// Where the events of one status go, before any of them is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The status, or `unknown`.
    pub status: Arc<str>,
    /// Name of the exchange.
    pub exchange: Arc<str>,
    /// Routing key, in which values of the event are placeholders: `{company}.missed`.
    pub routing_key: String,
}

/// The routes of all events, as configured.
#[derive(Debug, Clone)]
pub struct Routing {
    statuses: BTreeMap<Arc<str>, StatusRoute>,
    unknown: StatusRoute,
    dead_letters: [Arc<Route>; Reason::ALL.len()],
    exchanges: BTreeSet<Arc<str>>,
}

impl Routing {
    /// Reads exchanges and key templates.
    ///
    /// # Errors
    /// Every template that cannot be read.
    pub fn new(
        routing: &config::Routing,
        dead_letter: &config::DeadLetter,
    ) -> Result<Self, Vec<TemplateError>> {
        let mut reader = Reader::new(routing);
        let unknown = reader.status_route(UNKNOWN);
        let configured = routing.statuses.keys().map(String::as_str);
        let known: BTreeSet<_> = STATUSES.into_iter().chain(configured).collect();
        let statuses: BTreeMap<_, _> = known
            .into_iter()
            .filter(|status| *status != UNKNOWN)
            .map(|status| (status.into(), reader.status_route(status)))
            .collect();
        if !reader.errors.is_empty() {
            return Err(reader.errors);
        }
        let exchanges = statuses
            .values()
            .chain([&unknown])
            .map(|route| &route.exchange);
        let exchanges = exchanges.chain([&reader.exchange]).cloned().collect();
        let dead_letters = dead_letter_routes(&dead_letter.exchange);
        Ok(Self {
            statuses,
            unknown,
            dead_letters,
            exchanges,
        })
    }

    /// Where an event goes: by its status, a reject to the dead-letter exchange.
    #[must_use]
    pub fn route(&self, event: &Event) -> Arc<Route> {
        match &event.content {
            Content::Session(_) => self.original_route(event),
            Content::Reject(reject) => self.dead_letter_route(reject.reason),
        }
    }

    /// Where an event goes, or would have gone before it became a dead letter: a reject where a
    /// session of an unknown status would have.
    #[must_use]
    pub fn original_route(&self, event: &Event) -> Arc<Route> {
        let nothing_known = Fields::default();
        let fields = match &event.content {
            Content::Session(fields) => fields,
            Content::Reject(_) => &nothing_known,
        };
        self.of_status(&fields.status)
            .route(&event.envelope.source, fields)
    }

    /// Where dead letters of that reason go.
    #[must_use]
    pub fn dead_letter_route(&self, reason: Reason) -> Arc<Route> {
        Arc::clone(&self.dead_letters[reason as usize])
    }

    /// What the event's status is called in keys, message types and metrics: a known name,
    /// `unknown`, or the reason of a reject. Never the sender's own text.
    #[must_use]
    pub fn routed_status(&self, event: &Event) -> &str {
        match &event.content {
            Content::Session(fields) => &self.of_status(&fields.status).status,
            Content::Reject(reject) => reject.reason.as_str(),
        }
    }

    /// The statuses that have a name of their own: those of the specification and the configured
    /// ones, without `unknown`.
    pub fn statuses(&self) -> impl Iterator<Item = &Arc<str>> {
        self.statuses.keys()
    }

    /// Every exchange an event can go to, each once, in order of name; without the dead-letter
    /// exchange.
    pub fn exchanges(&self) -> impl Iterator<Item = &Arc<str>> {
        self.exchanges.iter()
    }

    /// Where the events of each status go, `unknown` the last.
    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        let all = self.statuses.values().chain([&self.unknown]);
        all.map(|route| Address {
            status: Arc::clone(&route.status),
            exchange: Arc::clone(&route.exchange),
            routing_key: route.address(),
        })
    }

    fn of_status(&self, status: &str) -> &StatusRoute {
        self.statuses.get(status).unwrap_or(&self.unknown)
    }
}

fn dead_letter_routes(exchange: &str) -> [Arc<Route>; Reason::ALL.len()] {
    let exchange: Arc<str> = exchange.into();
    Reason::ALL.map(|reason| {
        Arc::new(Route {
            exchange: Arc::clone(&exchange),
            routing_key: reason.as_str().into(),
        })
    })
}

#[cfg(test)]
mod tests;
