//! A snapshot of a virtual host, as the management API describes it, and the queues that a message
//! would reach there. Plain values: `check` queries the API and evaluates the snapshot.

pub mod key;
mod reachable;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

pub use self::reachable::Reach;
use super::topology::{Kind, Object, Topology};

/// Exchanges, queues and bindings of one virtual host.
#[derive(Debug, Clone, Default)]
pub struct BrokerSnapshot {
    /// Version of the broker, such as `3.10.8`.
    pub version: String,
    /// All exchanges of the virtual host.
    pub exchanges: Vec<FoundExchange>,
    /// All queues of the virtual host.
    pub queues: Vec<FoundQueue>,
    /// All bindings of the virtual host.
    pub bindings: Vec<FoundBinding>,
    /// Alternate exchanges that policies define, by name of the policy.
    pub alternates: BTreeMap<String, String>,
    /// Whether the policies could be read, so that `alternates` is complete.
    pub knows_policies: bool,
}

/// An exchange that exists on the broker.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct FoundExchange {
    /// Name of the exchange; empty for the default exchange.
    pub name: String,
    /// `topic`, `fanout`, `direct`, `headers`, or a type that a plugin defines.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether the broker deletes it with its last binding.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// The arguments that it was declared with.
    pub arguments: Value,
    /// Name of the policy that applies to it.
    #[serde(deserialize_with = "not_empty")]
    pub policy: Option<String>,
}

/// A queue that exists on the broker.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct FoundQueue {
    /// Name of the queue.
    pub name: String,
    /// `quorum`, `classic` or `stream`. Brokers that know only classic queues do not name it.
    #[serde(rename = "type", default = "classic")]
    pub kind: String,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether the broker deletes it with its last consumer.
    pub auto_delete: bool,
    /// Whether the broker deletes it with the connection that declared it.
    pub exclusive: bool,
    /// The arguments that it was declared with.
    pub arguments: Value,
    /// Name of the policy that applies to it.
    #[serde(deserialize_with = "not_empty")]
    pub policy: Option<String>,
    /// The merged definition of the policies that apply to it.
    pub effective_policy_definition: Value,
    /// `running`, `down`, `minority`, …
    pub state: Option<String>,
    /// Consumers, as of a few seconds ago.
    pub consumers: Option<i64>,
    /// All messages in the queue, as of a few seconds ago.
    pub messages: Option<i64>,
    /// Messages that were delivered to consumers and are not acknowledged yet.
    pub messages_unacknowledged: Option<i64>,
    /// Total body size, in bytes, of the messages that are ready for delivery.
    pub message_bytes_ready: Option<i64>,
}

/// A binding that exists on the broker.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct FoundBinding {
    /// The exchange that messages come from; empty for the default exchange.
    pub source: String,
    /// Name of the queue or exchange that messages go to.
    pub destination: String,
    /// `queue` or `exchange`.
    pub destination_type: String,
    /// The binding key.
    pub routing_key: String,
}

impl BrokerSnapshot {
    /// The exchange of that name; `None` if there is none.
    #[must_use]
    pub fn exchange(&self, name: &str) -> Option<&FoundExchange> {
        self.exchanges.iter().find(|exchange| exchange.name == name)
    }

    /// The queue of that name; `None` if there is none.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&FoundQueue> {
        self.queues.iter().find(|queue| queue.name == name)
    }

    /// Whether there is such an exchange, or it is the default exchange.
    #[must_use]
    pub fn has_exchange(&self, name: &str) -> bool {
        name.is_empty() || self.exchange(name).is_some()
    }

    /// Whether an object of that name exists, or, for a binding, one with the same source,
    /// destination and key. Other properties are not compared.
    #[must_use]
    pub fn has(&self, object: &Object) -> bool {
        match object {
            Object::Exchange(exchange) => self.exchange(&exchange.name).is_some(),
            Object::Queue(queue) => self.queue(&queue.name).is_some(),
            Object::Binding(planned) => self.bindings.iter().any(|binding| {
                binding.destination_type == "queue"
                    && binding.source == planned.exchange
                    && binding.destination == planned.queue
                    && binding.routing_key == planned.key
            }),
        }
    }

    /// The alternate exchange, from the exchange's argument or else its policy.
    #[must_use]
    pub fn alternate<'a>(&'a self, exchange: &'a FoundExchange) -> Option<&'a str> {
        let argument = exchange.arguments["alternate-exchange"].as_str();
        argument.or_else(|| Some(self.alternates.get(exchange.policy.as_ref()?)?.as_str()))
    }

    /// Major version of the broker; 3 if it cannot be parsed.
    #[must_use]
    pub fn major(&self) -> u32 {
        let major = self.version.split('.').next();
        major.and_then(|major| major.parse().ok()).unwrap_or(3)
    }

    /// The snapshot as it will be when the missing objects of this plan have been declared.
    #[must_use]
    pub fn with_missing_of(mut self, plan: &Topology) -> Self {
        for object in &plan.objects {
            if self.has(object) {
                continue;
            }
            match object {
                Object::Exchange(exchange) => self.exchanges.push(FoundExchange {
                    name: exchange.name.clone(),
                    kind: exchange.kind.name().into(),
                    durable: true,
                    arguments: json!({ "alternate-exchange": exchange.alternate }),
                    ..FoundExchange::default()
                }),
                Object::Queue(queue) => self.queues.push(FoundQueue {
                    name: queue.name.clone(),
                    kind: "quorum".into(),
                    durable: true,
                    arguments: json!(BTreeMap::from_iter(queue.arguments.clone())),
                    ..FoundQueue::default()
                }),
                Object::Binding(binding) => self.bindings.push(FoundBinding {
                    source: binding.exchange.clone(),
                    destination: binding.queue.clone(),
                    destination_type: "queue".into(),
                    routing_key: binding.key.clone(),
                }),
            }
        }
        self
    }
}

impl FoundQueue {
    /// The number that an argument (`x-…`) or a policy sets; the smaller one if both do, as the
    /// broker applies it. `name` is without `x-`.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        let both = [self.argument(name), self.policy_value(name)];
        both.into_iter().flatten().filter_map(Value::as_i64).min()
    }

    /// The text that an argument (`x-…`) or else a policy sets. `name` is without `x-`.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let either = self.argument(name).or_else(|| self.policy_value(name));
        either.and_then(Value::as_str)
    }

    /// An argument of the declaration: `argument("overflow")` returns `x-overflow`.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&Value> {
        self.arguments.get(format!("x-{name}"))
    }

    /// Messages that count towards the length limit: those that are ready, and those that are being
    /// dead-lettered.
    #[must_use]
    pub fn waiting(&self) -> Option<i64> {
        Some(self.messages? - self.messages_unacknowledged?)
    }

    /// Whether it refuses messages beyond its limits; otherwise it drops its oldest ones.
    #[must_use]
    pub fn refuses_when_full(&self) -> bool {
        let overflow = self.text("overflow");
        overflow.is_some_and(|overflow| overflow.starts_with("reject-publish"))
    }

    /// Whether the broker deletes it when it is unused: exclusive, auto-delete or with an expiry.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.exclusive || self.auto_delete || self.number("expires").is_some()
    }

    /// Whether it keeps its messages across restarts of the broker and of its consumers.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.durable && !self.is_transient()
    }

    /// Whether it is a quorum queue, which confirms a message only when a majority of its members
    /// has written and synced it.
    #[must_use]
    pub fn is_quorum(&self) -> bool {
        self.kind == "quorum"
    }

    fn policy_value(&self, name: &str) -> Option<&Value> {
        self.effective_policy_definition.get(name)
    }
}

impl fmt::Display for FoundQueue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} queue `{}`", self.kind, self.name)
    }
}

fn classic() -> String {
    "classic".into()
}

/// Reads an empty name as `None`: some versions of RabbitMQ return "" for no policy.
fn not_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let policy = Option::<String>::deserialize(deserializer)?;
    Ok(policy.filter(|policy| !policy.is_empty()))
}

impl Kind {
    /// The broker's name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}
