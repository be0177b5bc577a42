//! What exists on the broker, as its management API describes it, and where a message would end up
//! there. Plain values: whoever asks the API is elsewhere, and so is what is thought of the answer.

pub mod key;
mod reach;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub use self::reach::Reach;
use super::topology::{self, Argument, Kind, Object, Topology};

/// Exchanges, queues and bindings of one virtual host.
#[derive(Debug, Clone, Default)]
pub struct Existing {
    /// Version of the broker, such as `3.10.8`.
    pub version: String,
    /// All exchanges.
    pub exchanges: Vec<Exchange>,
    /// All queues.
    pub queues: Vec<Queue>,
    /// All bindings.
    pub bindings: Vec<Binding>,
    /// Alternate exchanges that policies give, by policy.
    pub alternates: BTreeMap<String, String>,
    /// Whether all of those are known.
    pub knows_policies: bool,
}

/// An exchange as it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Exchange {
    /// Its name; empty for the default exchange.
    pub name: String,
    /// `topic`, `fanout`, `direct`, `headers`, or a plugin's.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// What it was declared with.
    pub arguments: Value,
    /// The policy in force.
    #[serde(deserialize_with = "not_empty")]
    pub policy: Option<String>,
}

/// A queue as it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// `quorum`, `classic` or `stream`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it survives a restart of the broker.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Whether it goes with the connection that declared it.
    pub exclusive: bool,
    /// What it was declared with.
    pub arguments: Value,
    /// The policy in force.
    #[serde(deserialize_with = "not_empty")]
    pub policy: Option<String>,
    /// What the policies in force say.
    pub effective_policy_definition: Value,
    /// `running`, `down`, `minority`, …
    pub state: Option<String>,
    /// All messages in it, as of a few seconds ago.
    pub messages: Option<i64>,
    /// Those of them that consumers have and may still give back.
    pub messages_unacknowledged: Option<i64>,
    /// Bytes of those that no consumer has.
    pub message_bytes_ready: Option<i64>,
}

/// A binding as it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Binding {
    /// The exchange it comes from.
    pub source: String,
    /// Where it leads.
    pub destination: String,
    /// `queue` or `exchange`.
    pub destination_type: String,
    /// Its key.
    pub routing_key: String,
}

impl Existing {
    /// The exchange of that name.
    #[must_use]
    pub fn exchange(&self, name: &str) -> Option<&Exchange> {
        self.exchanges.iter().find(|exchange| exchange.name == name)
    }

    /// The queue of that name.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&Queue> {
        self.queues.iter().find(|queue| queue.name == name)
    }

    /// Whether there is such an object.
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

    /// Where an exchange sends what it cannot route.
    #[must_use]
    pub fn alternate<'a>(&'a self, exchange: &'a Exchange) -> Option<&'a str> {
        let argument = exchange.arguments["alternate-exchange"].as_str();
        argument.or_else(|| Some(self.alternates.get(exchange.policy.as_ref()?)?.as_str()))
    }

    /// Major number of the version; 3 if it cannot be read.
    #[must_use]
    pub fn major(&self) -> u32 {
        let major = self.version.split('.').next();
        major.and_then(|major| major.parse().ok()).unwrap_or(3)
    }

    /// As it will be once what is missing of this plan has been declared.
    #[must_use]
    pub fn with_missing_of(mut self, plan: &Topology) -> Self {
        for object in &plan.objects {
            if self.has(object) {
                continue;
            }
            match object {
                Object::Exchange(exchange) => self.exchanges.push(exchange.into()),
                Object::Queue(queue) => self.queues.push(queue.into()),
                Object::Binding(binding) => self.bindings.push(Binding {
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

impl Queue {
    /// A number that arguments (`x-…`) or policies set; the smaller one if both do, as the broker
    /// has it.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        let both = [self.argument(name), self.policy_value(name)];
        both.into_iter().flatten().filter_map(Value::as_i64).min()
    }

    /// A text that an argument (`x-…`) or else a policy sets.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let either = self.argument(name).or_else(|| self.policy_value(name));
        either.and_then(Value::as_str)
    }

    /// What it was declared with: `argument("overflow")` for `x-overflow`.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&Value> {
        self.arguments.get(format!("x-{name}"))
    }

    /// Messages that count for its limit: those no consumer has, and those on their way to a
    /// dead-letter queue.
    #[must_use]
    pub fn waiting(&self) -> Option<i64> {
        Some(self.messages? - self.messages_unacknowledged?)
    }

    /// Whether it is gone when nobody uses it.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.exclusive || self.auto_delete || self.number("expires").is_some()
    }

    /// Whether it keeps its messages through a restart of broker and consumers.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.durable && !self.is_passing()
    }

    /// Written and synced on a majority before it confirms.
    #[must_use]
    pub fn is_quorum(&self) -> bool {
        self.kind == "quorum"
    }

    fn policy_value(&self, name: &str) -> Option<&Value> {
        self.effective_policy_definition.get(name)
    }
}

/// Some versions say "" for none.
fn not_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let policy = Option::<String>::deserialize(deserializer)?;
    Ok(policy.filter(|policy| !policy.is_empty()))
}

impl Kind {
    /// As the broker calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}

impl From<&topology::Exchange> for Exchange {
    fn from(planned: &topology::Exchange) -> Self {
        let alternate = planned.alternate.as_ref();
        Self {
            name: planned.name.clone(),
            kind: planned.kind.name().into(),
            durable: true,
            arguments: alternate.map_or(
                Value::Null,
                |alternate| serde_json::json!({ "alternate-exchange": alternate }),
            ),
            ..Self::default()
        }
    }
}

impl From<&topology::Queue> for Queue {
    fn from(planned: &topology::Queue) -> Self {
        let arguments = planned.arguments.iter();
        let arguments: serde_json::Map<_, _> = arguments
            .map(|(name, value)| ((*name).to_owned(), value.into()))
            .collect();
        Self {
            name: planned.name.clone(),
            kind: "quorum".into(),
            durable: true,
            arguments: arguments.into(),
            ..Self::default()
        }
    }
}

impl From<&Argument> for Value {
    fn from(argument: &Argument) -> Self {
        match argument {
            Argument::Text(text) => text.as_str().into(),
            Argument::Integer(number) => (*number).into(),
            Argument::Flag(flag) => (*flag).into(),
        }
    }
}
