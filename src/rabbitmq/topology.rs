//! What has to exist on the broker, as plain values: decided by the configuration alone. How it is
//! declared is [`declare`]'s business.

pub(super) mod declare;
pub(super) mod layout;
pub(super) mod scratch;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::config::Config;
use crate::config::queues::{Queue as QueueConfig, Satellite};
use crate::config::rabbitmq::TopologyMode;

/// "For ever" on every version: 4.x drops after 20 deliveries without it, and 3.x drops at the
/// first with `-1`.
pub(super) const DELIVERY_LIMIT_NONE: i64 = 1_000_000_000;

/// Everything the bridge declares or checks, in the order in which it can be declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Whether missing objects are declared.
    pub mode: TopologyMode,
    /// Exchanges, queues and bindings.
    pub objects: Vec<Object>,
    /// The queue for events nobody has subscribed to.
    pub unrouted_queue: Option<String>,
    /// The dead-letter queue.
    pub dead_letter_queue: Option<String>,
    /// Consumer queues whose rejected messages come again after a while.
    pub delayed: Vec<Delayed>,
    /// The queues of those as they are declared where the broker lets rejected messages wait.
    pub by_broker: Vec<Queue>,
}

/// One thing on the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A durable exchange.
    Exchange(Exchange),
    /// A durable quorum queue.
    Queue(Queue),
    /// A queue's subscription to an exchange.
    Binding(Binding),
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: Kind,
    /// Takes what it cannot route.
    pub alternate: Option<String>,
}

/// A consumer queue whose rejected messages come again after a while. Its satellites are a queue and
/// a fanout exchange of the same name each, so that a message keeps its routing key all the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delayed {
    /// The consumers' queue.
    pub queue: String,
    /// Where the broker puts what dies in it; the bridge takes it from there.
    pub rejected: String,
    /// Where the bridge puts what is to come again; the broker lets it wait there.
    pub retry: String,
    /// Where the broker puts it then, and with that into the consumers' queue.
    pub retried: String,
    /// Rejections before a message is a dead letter.
    pub attempts_max: u32,
    /// Where dead letters go.
    pub dead_letter: String,
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By patterns of keys.
    Topic,
    /// To every queue.
    Fanout,
}

/// A durable quorum queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its arguments, `x-queue-type` included.
    pub arguments: Vec<(&'static str, Argument)>,
}

/// The value of a queue's argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A string.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A boolean.
    Flag(bool),
}

/// A queue's subscription to an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Where messages go.
    pub queue: String,
    /// Where they come from.
    pub exchange: String,
    /// Which ones.
    pub key: String,
}

impl Topology {
    /// What this configuration needs.
    #[must_use]
    pub fn plan(config: &Config) -> Self {
        let mut plan = Self {
            mode: config.rabbitmq.topology,
            objects: Vec::new(),
            unrouted_queue: None,
            dead_letter_queue: None,
            delayed: Vec::new(),
            by_broker: Vec::new(),
        };
        plan.add_dead_letter(&config.dead_letter.exchange);
        plan.add_unrouted(config);
        plan.add_routing(config);
        for queue in &config.queues {
            plan.add_queue(queue, config);
        }
        plan
    }

    /// The objects without which this exchange does nothing: itself, its bindings, their queues.
    /// Empty for an exchange that is not ours to declare.
    #[must_use]
    pub fn around(&self, exchange: &str) -> Vec<usize> {
        let is_ours =
            |object: &Object| matches!(object, Object::Exchange(one) if one.name == exchange);
        if !self.objects.iter().any(is_ours) {
            return Vec::new();
        }
        let bound: BTreeSet<&str> = self
            .bindings(exchange)
            .map(|binding| binding.queue.as_str())
            .collect();
        let belongs = |object: &Object| match object {
            Object::Exchange(one) => one.name == exchange,
            Object::Queue(queue) => bound.contains(queue.name.as_str()),
            Object::Binding(binding) => binding.exchange == exchange,
        };
        (0..self.objects.len())
            .filter(|&index| belongs(&self.objects[index]))
            .collect()
    }

    /// Whether messages come again by way of this binding.
    pub(super) fn is_of_retries(&self, binding: &Binding) -> bool {
        self.delayed.iter().any(|delayed| {
            let is_between_satellites =
                [&delayed.rejected, &delayed.retry].contains(&&binding.queue);
            let is_last = binding.queue == delayed.queue && binding.exchange == delayed.retried;
            is_between_satellites || is_last
        })
    }

    fn bindings<'a>(&'a self, exchange: &'a str) -> impl Iterator<Item = &'a Binding> {
        self.objects.iter().filter_map(move |object| match object {
            Object::Binding(binding) if binding.exchange == exchange => Some(binding),
            _ => None,
        })
    }

    fn add_dead_letter(&mut self, exchange: &str) {
        if exchange.is_empty() {
            return;
        }
        self.add_exchange(exchange, Kind::Topic, None);
        self.objects.push(Object::Queue(Queue {
            name: exchange.into(),
            arguments: vec![
                ("x-queue-type", "quorum".into()),
                ("x-delivery-limit", Argument::Integer(DELIVERY_LIMIT_NONE)),
            ],
        }));
        self.bind(exchange, exchange, "#");
        self.dead_letter_queue = Some(exchange.into());
    }

    fn add_unrouted(&mut self, config: &Config) {
        let exchange = config.unrouted.exchange.as_str();
        if exchange.is_empty() {
            return;
        }
        self.add_exchange(exchange, Kind::Fanout, None);
        self.objects.push(Object::Queue(Queue {
            name: exchange.into(),
            arguments: vec![
                ("x-queue-type", "quorum".into()),
                ("x-delivery-limit", Argument::Integer(DELIVERY_LIMIT_NONE)),
                ("x-message-ttl", milliseconds(config.unrouted.ttl)),
                ("x-max-length-bytes", integer(config.unrouted.bytes_max)),
                ("x-overflow", "drop-head".into()),
            ],
        }));
        self.bind(exchange, exchange, "");
        self.unrouted_queue = Some(exchange.into());
    }

    fn add_routing(&mut self, config: &Config) {
        let alternate = Some(config.unrouted.exchange.clone()).filter(|name| !name.is_empty());
        let of_status = config
            .routing
            .statuses
            .values()
            .filter_map(|status| status.exchange.as_deref());
        for exchange in std::iter::once(config.routing.exchange.as_str()).chain(of_status) {
            self.add_exchange(exchange, Kind::Topic, alternate.as_deref());
        }
    }

    fn add_queue(&mut self, queue: &QueueConfig, config: &Config) {
        let dead_letter = match queue.retry_delay {
            Some(delay) => {
                self.by_broker.push(Queue {
                    name: queue.name.clone(),
                    arguments: layout::arguments(queue, delay, &config.dead_letter.exchange),
                });
                self.add_delay(queue, delay, config)
            }
            None => config.dead_letter.exchange.clone(),
        };
        self.objects.push(Object::Queue(Queue {
            name: queue.name.clone(),
            arguments: queue_arguments(queue, &dead_letter),
        }));
        let exchange = queue
            .exchange
            .as_deref()
            .unwrap_or(&config.routing.exchange);
        for key in &queue.keys {
            self.bind(&queue.name, exchange, key);
        }
        if queue.retry_delay.is_some() {
            self.bind(&queue.name, &queue.satellite(Satellite::Retried), "");
        }
    }

    /// What a delay needs beside the queue; returns the exchange to dead-letter to. The broker alone
    /// cannot do it: only a reader sees how often a message has died, and a circle in which it dies
    /// of anything but a rejection makes the broker drop it.
    fn add_delay(&mut self, queue: &QueueConfig, delay: Duration, config: &Config) -> String {
        let [rejected, retry, retried] =
            [Satellite::Rejected, Satellite::Retry, Satellite::Retried]
                .map(|satellite| queue.satellite(satellite));
        // A policy may set a length or an age for every queue, and no argument can take that away.
        // With these a full queue refuses, and the one before it keeps what it could not hand on;
        // what gets too old goes on instead of being dropped.
        let kept = vec![
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", Argument::Integer(DELIVERY_LIMIT_NONE)),
            ("x-overflow", "reject-publish".into()),
        ];
        let handed_on = |exchange: &str| -> [(&'static str, Argument); 2] {
            [
                ("x-dead-letter-exchange", exchange.into()),
                ("x-dead-letter-strategy", "at-least-once".into()),
            ]
        };
        let mut waiting = kept.clone();
        waiting.push(("x-message-ttl", milliseconds(delay)));
        waiting.extend(handed_on(&retried));
        let mut kept = kept;
        if !config.dead_letter.exchange.is_empty() {
            kept.extend(handed_on(&config.dead_letter.exchange));
        }
        self.add_exchange(&retried, Kind::Fanout, None);
        for (name, arguments) in [(&rejected, kept), (&retry, waiting)] {
            self.add_exchange(name, Kind::Fanout, None);
            self.objects.push(Object::Queue(Queue {
                name: name.clone(),
                arguments,
            }));
            self.bind(name, name, "");
        }
        self.delayed.push(Delayed {
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
        let is_planned =
            |object: &Object| matches!(object, Object::Exchange(one) if one.name == name);
        // The default exchange (the empty name) is always there and takes no declaration.
        if !name.is_empty() && !self.objects.iter().any(is_planned) {
            self.objects.push(Object::Exchange(Exchange {
                name: name.into(),
                kind,
                alternate: alternate.map(Into::into),
            }));
        }
    }

    fn bind(&mut self, queue: &str, exchange: &str, key: &str) {
        self.objects.push(Object::Binding(Binding {
            queue: queue.into(),
            exchange: exchange.into(),
            key: key.into(),
        }));
    }
}

fn queue_arguments(queue: &QueueConfig, dead_letter: &str) -> Vec<(&'static str, Argument)> {
    // Dead-lettering at least once works only with `reject-publish`, limit or not.
    let mut arguments = vec![
        ("x-queue-type", Argument::from("quorum")),
        (
            "x-delivery-limit",
            Argument::Integer(queue.delivery_limit.into()),
        ),
        ("x-overflow", "reject-publish".into()),
    ];
    if !dead_letter.is_empty() {
        arguments.push(("x-dead-letter-exchange", dead_letter.into()));
        arguments.push(("x-dead-letter-strategy", "at-least-once".into()));
    }
    arguments.extend(queue.ttl.map(|ttl| ("x-message-ttl", milliseconds(ttl))));
    arguments.extend(
        queue
            .messages_max
            .map(|count| ("x-max-length", integer(count))),
    );
    arguments.extend(
        queue
            .bytes_max
            .map(|bytes| ("x-max-length-bytes", integer(bytes))),
    );
    if queue.single_active_consumer {
        arguments.push(("x-single-active-consumer", Argument::Flag(true)));
    }
    arguments
}

fn milliseconds(duration: Duration) -> Argument {
    Argument::Integer(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn integer(number: u64) -> Argument {
    Argument::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(exchange) => write!(formatter, "exchange `{}`", exchange.name),
            Self::Queue(queue) => write!(formatter, "queue `{}`", queue.name),
            Self::Binding(Binding {
                queue,
                exchange,
                key,
            }) => {
                write!(
                    formatter,
                    "binding of queue `{queue}` to exchange `{exchange}` with key `{key}`"
                )
            }
        }
    }
}
