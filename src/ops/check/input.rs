//! The input of the checks: what exists on the broker, what the configuration asks for, and the
//! route of each status. Pure.

use std::sync::Arc;

use super::permissions::User;
use crate::config::Config;
use crate::config::rabbitmq::TopologyMode;
use crate::rabbitmq::snapshot::BrokerSnapshot;
use crate::rabbitmq::snapshot::key::KeyPattern;
use crate::rabbitmq::topology::Topology;
use crate::settings;
use crate::webhook::routing::{Route, STATUSES};

/// Everything that the checks compare.
pub struct CheckInput<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The topology that the configuration asks for.
    pub plan: Topology,
    /// The bridge's user.
    pub user: User,
    /// What exists on the broker now; empty without the management API.
    pub present: BrokerSnapshot,
    /// What exists on the broker, or will exist once `serve` has declared what is missing.
    pub existing: BrokerSnapshot,
}

/// Where the events of one status are published.
pub struct CheckedStatus {
    /// The status; `unknown` stands for every other status.
    pub name: Arc<str>,
    /// The route of an example session with this status.
    pub route: Route,
    /// The part that the keys of all sessions with this status have in common.
    pub key: KeyPattern,
}

impl CheckInput<'_> {
    /// Whether `serve` declares what is missing.
    pub fn declares(&self) -> bool {
        self.plan.mode == TopologyMode::Declare
    }

    /// The queue of unrouted events and the dead-letter queue, if there are any.
    pub fn holding_queues(&self) -> Vec<&str> {
        let holding_queues = [&self.plan.unrouted_queue, &self.plan.dead_letter_queue];
        holding_queues
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect()
    }
}

/// The routes of all statuses: those of the specification, the configured ones, and `unknown`.
pub fn statuses(config: &Config) -> Vec<CheckedStatus> {
    // An invalid template is already reported as a finding of the configuration.
    let Ok(routing) = settings::routing(config) else {
        return Vec::new();
    };
    let mut addresses: Vec<_> = routing.addresses().cloned().collect();
    addresses.sort_by_key(|address| {
        let specified = STATUSES
            .iter()
            .position(|status| **status == *address.status);
        specified.unwrap_or(STATUSES.len())
    });
    let of_status = addresses.into_iter().map(|address| CheckedStatus {
        name: address.status,
        key: KeyPattern::template(&address.routing_key),
        route: Route {
            exchange: address.exchange,
            routing_key: example(&address.routing_key).into(),
        },
    });
    of_status.collect()
}

/// The key of a session that has `none` in every field.
fn example(address: &str) -> String {
    let parts = address.split('{');
    let texts = parts.map(|part| part.split_once('}').map_or(part, |(_, text)| text));
    texts.collect::<Vec<_>>().join("none")
}

#[cfg(test)]
impl<'a> CheckInput<'a> {
    /// A case in which nothing exists on the broker.
    pub fn of(config: &'a Config) -> Self {
        Self {
            config,
            plan: Topology::plan(config),
            user: User {
                permissions: None,
                ..User::with(["", "", ""])
            },
            present: BrokerSnapshot::default(),
            existing: BrokerSnapshot::default(),
        }
    }
}
