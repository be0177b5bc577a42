//! What is judged: what exists on the broker, what the configuration asks for, and where each
//! status goes. Pure.

use std::sync::Arc;

use bytes::Bytes;
use deskbridge::config::Config;
use deskbridge::rabbitmq::existing::Existing;
use deskbridge::rabbitmq::existing::key::Key;
use deskbridge::rabbitmq::topology::Topology;
use deskbridge::webhook::routing::{Route, Routing, STATUSES, UNKNOWN};
use deskbridge::webhook::{Content, Envelope, Event, Fields};
use jiff::Timestamp;
use uuid::Uuid;

use super::finding::{exactly, quoted};

/// Everything a judgement is made from.
pub struct Case<'a> {
    /// What there is; what `serve` would declare is taken to be there.
    pub existing: &'a Existing,
    /// What there is now.
    pub present: &'a Existing,
    /// What has to be there.
    pub plan: &'a Topology,
    /// What was configured.
    pub config: &'a Config,
    /// The virtual host.
    pub vhost: &'a str,
}

/// Where the events of one status go.
pub struct StatusRoute {
    /// The status.
    pub name: String,
    /// The route of some session of it.
    pub route: Route,
    /// What the keys of all of them have in common.
    pub key: Key,
}

impl Case<'_> {
    /// Where the events of each status go, and those of all others (`unknown`).
    pub fn statuses(&self) -> Vec<StatusRoute> {
        statuses(self.config)
    }

    /// A command that sets a policy for one object. It must be the only one for that object: a
    /// second policy would take the place of the first.
    pub fn set_policy(&self, apply_to: &str, name: &str, definition: &serde_json::Value) -> String {
        format!(
            "`rabbitmqctl set_policy -p {} --apply-to {apply_to} {} {} {}`",
            quoted(self.vhost),
            quoted(&format!("deskbridge-{apply_to}-{name}")),
            quoted(&exactly([name])),
            quoted(&definition.to_string()),
        )
    }
}

/// Where the events of each status go, and those of all others (`unknown`).
pub fn statuses(config: &Config) -> Vec<StatusRoute> {
    // A bad template is a finding of the configuration, told before.
    let Ok(routing) = Routing::new(&config.routing, &config.dead_letter) else {
        return Vec::new();
    };
    let of_the_specification = STATUSES.into_iter();
    let configured = routing.statuses().map(|status| &**status);
    let others = configured.filter(|status| !STATUSES.contains(status));
    let names = of_the_specification.chain(others).chain([UNKNOWN]);
    let status = |name: &str| {
        let [one, other] = ["none", "some"].map(|value| routing.route(&session(name, value)));
        StatusRoute {
            name: name.into(),
            key: Key::common(&one.routing_key, &other.routing_key),
            route: Route::clone(&one),
        }
    };
    names.map(status).collect()
}

/// A session of that status with this value wherever a key may ask for one.
fn session(status: &str, value: &str) -> Event {
    let envelope = Envelope {
        webhook_id: Uuid::nil(),
        source: value.into(),
        received_at: Timestamp::UNIX_EPOCH,
        traceparent: None,
        tracestate: None,
    };
    let fields = Fields {
        session: value.into(),
        status: status.into(),
        session_type: Some(value.into()),
        previous_status: Some(value.into()),
        company: Some(value.into()),
    };
    Event {
        envelope: Arc::new(envelope),
        index: 0,
        message_id: Uuid::nil(),
        content: Content::Session(fields),
        body: Bytes::new(),
    }
}
