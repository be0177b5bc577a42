//! Where messages go, a channel for each status and one for dead letters, and where they lie, a
//! channel for each queue of the plan.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::messages::{DEAD_LETTER, GIVEN_UP};
use super::{BINDING_VERSION, headers, key};
use crate::config::Config;
use crate::rabbitmq::topology::{Argument, Binding, Object, Queue, Topology};
use crate::webhook::routing::{Address, Routing};

/// Of a queue with a `retry_delay`.
const RETRIED: &str = "Rejected messages come again after a while. Here as below RabbitMQ 4.3: the \
    bridge retries what is rejected without `requeue`. From 4.3 on the broker retries what is \
    rejected with `requeue`, without `.rejected` and the like; `/status` says which is in use.";

/// Channels by key, and what the bridge does with them.
pub(super) struct Channels {
    pub(super) channels: Map<String, Value>,
    pub(super) operations: Map<String, Value>,
}

impl Channels {
    pub(super) fn of(config: &Config, routing: &Routing, topology: &Topology, vhost: &str) -> Self {
        let mut all = Self {
            channels: Map::new(),
            operations: Map::new(),
        };
        let addresses: Vec<Address> = routing.addresses().collect();
        for address in &addresses {
            let message = key(&address.status);
            let channel = status_channel(address, &message, vhost);
            all.publish(format!("session-{message}"), &message, channel);
        }
        let dead_letter = config.dead_letter.exchange.as_str();
        all.publish(
            "dead-letters".into(),
            DEAD_LETTER,
            dead_letters(dead_letter, vhost),
        );
        for object in &topology.objects {
            if let Object::Queue(queue) = object {
                let bindings = bindings(topology, queue);
                let messages = match Some(&queue.name) {
                    name if name == topology.dead_letter_queue.as_ref() => {
                        vec![DEAD_LETTER.to_owned(), GIVEN_UP.to_owned()]
                    }
                    name if name == topology.unrouted_queue.as_ref() => {
                        let statuses = addresses.iter().map(|address| &address.status);
                        statuses.map(|status| key(status)).collect()
                    }
                    _ => taken(&bindings, &addresses),
                };
                let name = all.hold(queue, &bindings, &messages, vhost);
                if topology.by_broker.iter().any(|one| one.name == queue.name) {
                    all.channels[&name]["description"] = RETRIED.into();
                }
            }
        }
        all
    }

    fn publish(&mut self, name: String, message: &str, channel: Value) {
        let operation = json!({
            "action": "send",
            "channel": { "$ref": format!("#/channels/{name}") },
            "messages": [{ "$ref": format!("#/channels/{name}/messages/{message}") }],
            "bindings": { "amqp": {
                "deliveryMode": 2,
                "mandatory": true,
                "timestamp": true,
                "bindingVersion": BINDING_VERSION,
            } },
        });
        self.operations.insert(format!("publish-{name}"), operation);
        self.channels.insert(name, channel);
    }

    /// Returns the channel's name.
    fn hold(
        &mut self,
        queue: &Queue,
        bindings: &[&Binding],
        messages: &[String],
        vhost: &str,
    ) -> String {
        let mut name = format!("queue-{}", key(&queue.name));
        while self.channels.contains_key(&name) {
            name.push('_');
        }
        let bound = bindings
            .iter()
            .map(|binding| json!({ "exchange": binding.exchange, "routingKey": binding.key }));
        let arguments = queue
            .arguments
            .iter()
            .map(|(name, value)| (*name, argument(value)));
        let channel = json!({
            "address": queue.name,
            "title": format!("Queue {}", queue.name),
            "messages": references(messages),
            "bindings": { "amqp": {
                "is": "queue",
                "queue": {
                    "name": queue.name,
                    "durable": true,
                    "exclusive": false,
                    "autoDelete": false,
                    "vhost": vhost,
                },
                "bindingVersion": BINDING_VERSION,
            } },
            "x-bindings": bound.collect::<Vec<_>>(),
            "x-arguments": arguments.collect::<BTreeMap<_, _>>(),
        });
        self.channels.insert(name.clone(), channel);
        name
    }
}

fn status_channel(address: &Address, message: &str, vhost: &str) -> Value {
    let names = address.routing_key.split('{').skip(1);
    let names = names
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name);
    let parameters: Map<_, _> = names
        .map(|name| (name.to_owned(), json!({ "description": parameter(name) })))
        .collect();
    json!({
        "address": address.routing_key,
        "title": format!("Sessions, {}", address.status),
        "parameters": parameters,
        "messages": references(&[message.to_owned()]),
        "bindings": topic(&address.exchange, vhost),
    })
}

fn parameter(name: &str) -> &'static str {
    match name {
        "type" => "The session's type, or `none`.",
        "source" => "The source in the webhook's URL.",
        "previous_status" => "The last of `pastStatus`, or `none`.",
        "company" => "`creator.company.identifier`, or `none`; what may not stand in a key is `_`.",
        _ => "A value of the session.",
    }
}

fn dead_letters(exchange: &str, vhost: &str) -> Value {
    json!({
        "address": "{reason}",
        "title": "Dead letters",
        "parameters": { "reason": {
            "description": "Why it is a dead letter.",
            "enum": headers::reasons(),
        } },
        "messages": references(&[DEAD_LETTER.to_owned()]),
        "bindings": topic(exchange, vhost),
    })
}

fn topic(exchange: &str, vhost: &str) -> Value {
    json!({ "amqp": {
        "is": "routingKey",
        "exchange": {
            "name": exchange,
            "type": "topic",
            "durable": true,
            "autoDelete": false,
            "vhost": vhost,
        },
        "bindingVersion": BINDING_VERSION,
    } })
}

fn references(messages: &[String]) -> Map<String, Value> {
    let reference = |message: &String| {
        let target = format!("#/components/messages/{message}");
        (message.clone(), json!({ "$ref": target }))
    };
    messages.iter().map(reference).collect()
}

fn argument(value: &Argument) -> Value {
    match value {
        Argument::Text(text) => json!(text),
        Argument::Integer(number) => json!(number),
        Argument::Flag(flag) => json!(flag),
    }
}

fn bindings<'t>(topology: &'t Topology, queue: &Queue) -> Vec<&'t Binding> {
    let of_queue = |object: &'t Object| match object {
        Object::Binding(binding) if binding.queue == queue.name => Some(binding),
        _ => None,
    };
    topology.objects.iter().filter_map(of_queue).collect()
}

/// The messages that these bindings may take.
fn taken(bindings: &[&Binding], addresses: &[Address]) -> Vec<String> {
    let may_take = |address: &&Address| {
        let words: Vec<&str> = address.routing_key.split('.').collect();
        bindings.iter().any(|binding| {
            let pattern: Vec<&str> = binding.key.split('.').collect();
            *binding.exchange == *address.exchange && may_match(&pattern, &words)
        })
    };
    let taken = addresses.iter().filter(may_take);
    taken.map(|address| key(&address.status)).collect()
}

/// A word with a placeholder may be any word.
pub(super) fn may_match(pattern: &[&str], words: &[&str]) -> bool {
    match pattern {
        [] => words.is_empty(),
        ["#", rest @ ..] => (0..=words.len()).any(|skipped| may_match(rest, &words[skipped..])),
        [word, rest @ ..] => words.split_first().is_some_and(|(first, words)| {
            (*word == "*" || word == first || first.contains('{')) && may_match(rest, words)
        }),
    }
}
