//! Determines the exchange and routing key of an event, only from the configuration and the event's
//! fields.

mod status;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use ring::digest::{Context, SHA256};

use self::status::StatusRoute;
use self::template::Template;
pub use self::template::{TemplateError, TemplateProblem};
use super::{Content, DeadLetterReason, Event, Fields};

/// The statuses of the specification.
pub const STATUSES: [&str; 5] = ["created", "handled", "missed", "completed", "callback"];

/// The name of every other status in routing keys, message types and metrics.
pub const UNKNOWN: &str = "unknown";

/// Where a message goes: an exchange and a routing key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Name of the exchange.
    pub exchange: Arc<str>,
    /// Routing key, at most 255 bytes.
    pub routing_key: Arc<str>,
}

/// Where the events of one status go, with placeholders for what depends on the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePattern {
    /// The status, or `unknown`.
    pub status: Arc<str>,
    /// Name of the exchange.
    pub exchange: Arc<str>,
    /// Routing key, in which values of the event are placeholders: `{company}.missed`.
    pub routing_key: String,
}

/// Exchanges and templates of routing keys, from which the routes are made.
#[derive(Debug, Clone)]
pub struct Templates<'a> {
    /// Exchange of every status without its own.
    pub exchange: &'a str,
    /// Template of every status without its own.
    pub routing_key: &'a str,
    /// Exchange and template of single statuses, as far as they have their own.
    pub statuses: BTreeMap<&'a str, (Option<&'a str>, Option<&'a str>)>,
    /// Exchange of dead letters.
    pub dead_letters: &'a str,
}

/// The routes of all events, as configured.
#[derive(Debug, Clone)]
pub struct Routing {
    statuses: BTreeMap<Arc<str>, StatusRoute>,
    unknown: StatusRoute,
    dead_letters: [Arc<Route>; DeadLetterReason::ALL.len()],
    exchanges: BTreeSet<Arc<str>>,
}

impl Routing {
    /// Reads exchanges and key templates.
    ///
    /// # Errors
    /// All templates that cannot be parsed.
    pub fn new(templates: &Templates<'_>) -> Result<Self, Vec<TemplateError>> {
        let mut errors = Vec::new();
        let mut parse = |name: String, template: &str| {
            Template::parse(template).unwrap_or_else(|problem| {
                errors.push(TemplateError { name, problem });
                Template::default()
            })
        };
        let default_exchange: Arc<str> = templates.exchange.into();
        let default_key = parse("routing.routing_key".into(), templates.routing_key);
        let mut status_route = |status: &str| {
            let own = templates.statuses.get(status);
            let (exchange, key) = own.copied().unwrap_or_default();
            let exchange = exchange.map_or_else(|| Arc::clone(&default_exchange), Arc::from);
            let key = match key {
                Some(key) => parse(format!("routing.statuses.{status}.routing_key"), key),
                None => default_key.clone(),
            };
            StatusRoute::new(status.into(), exchange, key)
        };
        let unknown = status_route(UNKNOWN);
        let configured = templates.statuses.keys().copied();
        let known: BTreeSet<_> = STATUSES.into_iter().chain(configured).collect();
        let statuses: BTreeMap<_, _> = known
            .into_iter()
            .filter(|status| *status != UNKNOWN)
            .map(|status| (status.into(), status_route(status)))
            .collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let all = statuses.values().chain([&unknown]);
        let used = all.map(|route| Arc::clone(&route.address.exchange));
        let exchanges = used.chain([default_exchange]).collect();
        let dead_letters = dead_letter_routes(templates.dead_letters);
        Ok(Self {
            statuses,
            unknown,
            dead_letters,
            exchanges,
        })
    }

    /// The route of an event: by its status, or to the dead-letter exchange for a reject.
    #[must_use]
    pub fn route(&self, event: &Event) -> Arc<Route> {
        match &event.content {
            Content::Session(_) => self.original_route(event),
            Content::Reject(reject) => self.dead_letter_route(reject.reason),
        }
    }

    /// The route that an event has by its fields, even if it has become a dead letter. A reject has
    /// the route of a session with an unknown status.
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

    /// The route of dead letters with this reason.
    #[must_use]
    pub fn dead_letter_route(&self, reason: DeadLetterReason) -> Arc<Route> {
        Arc::clone(&self.dead_letters[reason as usize])
    }

    /// The name of the event's status in routing keys, message types and metrics: a known status,
    /// `unknown`, or the reason of a reject. Never text of the sender.
    #[must_use]
    pub fn routed_status(&self, event: &Event) -> &str {
        match &event.content {
            Content::Session(fields) => &self.of_status(&fields.status).address.status,
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

    /// Identifies the routes: equal for equal routes, in every release and on every machine. It is
    /// the SHA-256, in hex, over all addresses and the routes of dead letters, with each part
    /// preceded by its length.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Context::new(&SHA256);
        let mut add = |part: &str| {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        };
        for address in self.addresses() {
            add(&address.status);
            add(&address.exchange);
            add(&address.routing_key);
        }
        for route in &self.dead_letters {
            add(&route.exchange);
            add(&route.routing_key);
        }
        HEXLOWER.encode(hash.finish().as_ref())
    }

    /// Where the events of each status go; `unknown` is the last.
    pub fn addresses(&self) -> impl Iterator<Item = &RoutePattern> {
        let all = self.statuses.values().chain([&self.unknown]);
        all.map(|route| &route.address)
    }

    fn of_status(&self, status: &str) -> &StatusRoute {
        self.statuses.get(status).unwrap_or(&self.unknown)
    }
}

fn dead_letter_routes(exchange: &str) -> [Arc<Route>; DeadLetterReason::ALL.len()] {
    let exchange: Arc<str> = exchange.into();
    DeadLetterReason::ALL.map(|reason| {
        Arc::new(Route {
            exchange: Arc::clone(&exchange),
            routing_key: reason.as_str().into(),
        })
    })
}

#[cfg(test)]
mod tests;
