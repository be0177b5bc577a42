//! The plan of the topology: the exchanges, queues and bindings that must exist, as plain values
//! derived from the configuration alone. [`declare`] declares them.

pub(super) mod declare;
mod definitions;
pub(super) mod disposable_channel;
pub(super) mod redelivery_mode;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::config::Config;
use crate::config::queues::QueueConfig;
use crate::config::rabbitmq::TopologyMode;

/// A delivery limit that means "unlimited" on every version. Without a limit, 4.x drops a message
/// after 20 deliveries; with `-1`, 3.x drops it at the first.
pub const DELIVERY_LIMIT_NONE: i64 = 1_000_000_000;

/// Everything the bridge declares or checks, in the order in which it can be declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Whether missing objects are declared.
    pub mode: TopologyMode,
    /// Exchanges, queues and bindings.
    pub objects: Vec<Object>,
    /// The queue for events for which no queue is bound.
    pub unrouted_queue: Option<String>,
    /// The queue for dead letters.
    pub dead_letter_queue: Option<String>,
    /// Consumer queues with a `retry_delay` whose rejected messages the bridge retries.
    pub delayed: Vec<RetryTopology>,
    /// All consumer queues with a `retry_delay`, as they are declared where the broker itself
    /// delays rejected messages.
    pub by_broker: Vec<PlannedQueue>,
}

/// One object of the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A durable exchange.
    Exchange(PlannedExchange),
    /// A durable quorum queue.
    Queue(PlannedQueue),
    /// A binding of a queue to an exchange.
    Binding(PlannedBinding),
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedExchange {
    /// Name on the broker.
    pub name: String,
    /// The type of the exchange.
    pub kind: Kind,
    /// The alternate exchange, which receives the messages that this one cannot route.
    pub alternate: Option<String>,
}

/// A consumer queue whose rejected messages are retried after a delay, and the names of its
/// satellites: `rejected` and `retry` are a queue and a fanout exchange of the same name each, and
/// `retried` is a fanout exchange. With fanout exchanges, a message keeps its routing key all the
/// way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryTopology {
    /// Name of the consumer queue.
    pub queue: String,
    /// Dead-letter exchange of the consumer queue; the bridge consumes its queue.
    pub rejected: String,
    /// Exchange to which the bridge publishes retries; they wait in its queue until their TTL ends.
    pub retry: String,
    /// Dead-letter exchange of the `retry` queue; it routes to the consumer queue.
    pub retried: String,
    /// Number of rejections at which a message becomes a dead letter.
    pub attempts_max: u32,
    /// Exchange for dead letters.
    pub dead_letter: String,
}

/// The type of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Routes by patterns of routing keys.
    Topic,
    /// Routes to every bound queue.
    Fanout,
}

/// A durable quorum queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedQueue {
    /// Name on the broker.
    pub name: String,
    /// Arguments of the declaration, including `x-queue-type`.
    pub arguments: Arguments,
}

/// Names and values of a queue's arguments: strings, integers and booleans.
pub type Arguments = Vec<(&'static str, Value)>;

/// What a declaration did with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeclareResult {
    /// It was missing, and is declared now.
    Declared,
    /// It existed.
    Existed,
    /// A binding that exists now. AMQP does not say whether it existed before.
    Bound,
    /// It exists with other arguments, and is left as it is.
    Differs,
    /// It is missing and cannot be declared, or it cannot be checked.
    Failed,
}

/// An object of the topology after a declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredObject {
    /// As planned.
    pub object: Object,
    /// What the declaration did.
    pub result: DeclareResult,
    /// A sentence: what is wrong, or why the arguments of an existing object were not compared.
    pub detail: Option<String>,
}

/// A binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedBinding {
    /// The queue that messages go to.
    pub queue: String,
    /// The exchange that messages come from.
    pub exchange: String,
    /// The binding key; empty for a fanout exchange.
    pub key: String,
}

impl Topology {
    /// Plans the topology for this configuration.
    #[must_use]
    pub fn plan(config: &Config) -> Self {
        let mut plan = Self::verified(Vec::new());
        plan.mode = config.rabbitmq.topology;
        plan.add_dead_letter(&config.dead_letter.exchange);
        plan.add_unrouted(config);
        plan.add_routing(config);
        for queue in &config.queues {
            plan.add_queue(queue, config);
        }
        plan
    }

    /// Objects that are verified and never declared.
    #[must_use]
    pub fn verified(objects: Vec<Object>) -> Self {
        Self {
            mode: TopologyMode::Verify,
            objects,
            unrouted_queue: None,
            dead_letter_queue: None,
            delayed: Vec::new(),
            by_broker: Vec::new(),
        }
    }

    /// Indices of the objects that this exchange needs: itself, its bindings and their queues.
    /// Empty for an exchange that is not part of the plan.
    #[must_use]
    pub fn around(&self, exchange: &str) -> Vec<usize> {
        if !self.has_exchange(exchange) {
            return Vec::new();
        }
        let bindings = self.bindings(exchange);
        let bound: BTreeSet<&str> = bindings.map(|binding| &*binding.queue).collect();
        let belongs = |object: &Object| match object {
            Object::Exchange(one) => one.name == exchange,
            Object::Queue(queue) => bound.contains(&*queue.name),
            Object::Binding(binding) => binding.exchange == exchange,
        };
        (0..self.objects.len())
            .filter(|&index| belongs(&self.objects[index]))
            .collect()
    }

    /// Whether retried messages pass this binding.
    pub(super) fn is_of_retries(&self, binding: &PlannedBinding) -> bool {
        self.delayed.iter().any(|delayed| {
            let is_between_satellites =
                [&delayed.rejected, &delayed.retry].contains(&&binding.queue);
            let is_last = binding.queue == delayed.queue && binding.exchange == delayed.retried;
            is_between_satellites || is_last
        })
    }

    fn bindings<'a>(&'a self, exchange: &'a str) -> impl Iterator<Item = &'a PlannedBinding> {
        self.objects.iter().filter_map(move |object| match object {
            Object::Binding(binding) if binding.exchange == exchange => Some(binding),
            _ => None,
        })
    }

    fn has_exchange(&self, name: &str) -> bool {
        let is_it = |object: &Object| matches!(object, Object::Exchange(one) if one.name == name);
        self.objects.iter().any(is_it)
    }

    fn add_dead_letter(&mut self, exchange: &str) {
        if exchange.is_empty() {
            return;
        }
        // With `reject-publish`, dead letters wait in the journal if a policy limits the length of
        // the queue. Otherwise the broker would drop the oldest ones.
        let arguments = vec![
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", DELIVERY_LIMIT_NONE.into()),
            ("x-overflow", "reject-publish".into()),
        ];
        self.add_exchange(exchange, Kind::Topic, None);
        self.push_queue(exchange, arguments);
        self.bind(exchange, exchange, "#");
        self.dead_letter_queue = Some(exchange.into());
    }

    fn add_unrouted(&mut self, config: &Config) {
        let exchange = config.unrouted.exchange.as_str();
        if exchange.is_empty() {
            return;
        }
        let arguments = vec![
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", DELIVERY_LIMIT_NONE.into()),
            ("x-message-ttl", milliseconds(config.unrouted.ttl)),
            ("x-max-length-bytes", integer(config.unrouted.bytes_max)),
            ("x-overflow", "drop-head".into()),
        ];
        self.add_exchange(exchange, Kind::Fanout, None);
        self.push_queue(exchange, arguments);
        self.bind(exchange, exchange, "");
        self.unrouted_queue = Some(exchange.into());
    }

    fn add_routing(&mut self, config: &Config) {
        let alternate = Some(config.unrouted.exchange.clone()).filter(|name| !name.is_empty());
        let statuses = config.routing.statuses.values();
        let of_statuses = statuses.filter_map(|status| status.exchange.as_ref());
        for exchange in [&config.routing.exchange].into_iter().chain(of_statuses) {
            self.add_exchange(exchange, Kind::Topic, alternate.as_deref());
        }
    }

    fn add_queue(&mut self, queue: &QueueConfig, config: &Config) {
        let dead_letter = match queue.retry_delay {
            Some(delay) => {
                self.by_broker.push(PlannedQueue {
                    name: queue.name.clone(),
                    arguments: redelivery_mode::arguments(
                        queue,
                        delay,
                        &config.dead_letter.exchange,
                    ),
                });
                self.add_delay(queue, delay, config)
            }
            None => config.dead_letter.exchange.clone(),
        };
        let arguments = queue_arguments(queue, queue.delivery_limit, &dead_letter);
        self.push_queue(&queue.name, arguments);
        let exchange = queue.exchange.as_ref();
        let exchange = exchange.unwrap_or(&config.routing.exchange);
        for key in &queue.keys {
            self.bind(&queue.name, exchange, key);
        }
        if queue.retry_delay.is_some() {
            let [_, _, retried] = queue.satellites();
            self.bind(&queue.name, &retried, "");
        }
    }

    /// Plans the satellites of a queue with a `retry_delay`; returns the dead-letter exchange of
    /// the queue. The broker alone cannot retry (below 4.3): only a consumer sees how often a
    /// message has died, and the broker drops a message in a dead-letter cycle that contains no
    /// rejection.
    fn add_delay(&mut self, queue: &QueueConfig, delay: Duration, config: &Config) -> String {
        let [rejected, retry, retried] = queue.satellites();
        // A policy may set a maximum length or a TTL for every queue, and no argument can remove
        // it. With these arguments, a full queue rejects messages, and the queue before it keeps
        // what it cannot dead-letter. A message whose TTL ends is dead-lettered instead of dropped.
        let mut kept: Arguments = vec![
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", DELIVERY_LIMIT_NONE.into()),
            ("x-overflow", "reject-publish".into()),
        ];
        let mut waiting = kept.clone();
        waiting.push(("x-message-ttl", milliseconds(delay)));
        dead_letter_to(&retried, &mut waiting);
        dead_letter_to(&config.dead_letter.exchange, &mut kept);
        self.add_exchange(&retried, Kind::Fanout, None);
        for (name, arguments) in [(&rejected, kept), (&retry, waiting)] {
            self.add_exchange(name, Kind::Fanout, None);
            self.push_queue(name, arguments);
            self.bind(name, name, "");
        }
        self.delayed.push(RetryTopology {
            queue: queue.name.clone(),
            rejected: rejected.clone(),
            retry,
            retried,
            attempts_max: queue.delivery_limit,
            dead_letter: config.dead_letter.exchange.clone(),
        });
        rejected
    }

    fn add_exchange(&mut self, name: &str, kind: Kind, alternate: Option<&str>) {
        // The default exchange (the empty name) always exists and cannot be declared.
        if !name.is_empty() && !self.has_exchange(name) {
            self.objects.push(Object::Exchange(PlannedExchange {
                name: name.into(),
                kind,
                alternate: alternate.map(Into::into),
            }));
        }
    }

    fn push_queue(&mut self, name: &str, arguments: Arguments) {
        self.objects.push(Object::Queue(PlannedQueue {
            name: name.into(),
            arguments,
        }));
    }

    fn bind(&mut self, queue: &str, exchange: &str, key: &str) {
        self.objects.push(Object::Binding(PlannedBinding {
            queue: queue.into(),
            exchange: exchange.into(),
            key: key.into(),
        }));
    }
}

fn queue_arguments(queue: &QueueConfig, delivery_limit: u32, dead_letter: &str) -> Arguments {
    // At-least-once dead-lettering requires `reject-publish`, even without a length limit.
    let mut arguments: Arguments = vec![
        ("x-queue-type", "quorum".into()),
        ("x-delivery-limit", integer(delivery_limit.into())),
        ("x-overflow", "reject-publish".into()),
    ];
    dead_letter_to(dead_letter, &mut arguments);
    let limits = [
        ("x-message-ttl", queue.ttl.map(milliseconds)),
        ("x-max-length", queue.messages_max.map(integer)),
        ("x-max-length-bytes", queue.bytes_max.map(integer)),
    ];
    let limits = limits.into_iter();
    arguments.extend(limits.filter_map(|(name, limit)| Some((name, limit?))));
    if queue.single_active_consumer {
        arguments.push(("x-single-active-consumer", true.into()));
    }
    arguments
}

fn dead_letter_to(exchange: &str, arguments: &mut Arguments) {
    if !exchange.is_empty() {
        arguments.push(("x-dead-letter-exchange", exchange.into()));
        arguments.push(("x-dead-letter-strategy", "at-least-once".into()));
    }
}

fn milliseconds(duration: Duration) -> Value {
    i64::try_from(duration.as_millis())
        .unwrap_or(i64::MAX)
        .into()
}

/// AMQP has only signed integers of 64 bits.
fn integer(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(exchange) => write!(formatter, "exchange `{}`", exchange.name),
            Self::Queue(queue) => write!(formatter, "queue `{}`", queue.name),
            Self::Binding(binding) => write!(
                formatter,
                "binding of queue `{}` to exchange `{}` with key `{}`",
                binding.queue, binding.exchange, binding.key
            ),
        }
    }
}
