//! The channels: where messages are published (one channel for each status and one for dead
//! letters), and where they are stored (one channel for each queue of the plan).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::messages::{DEAD_LETTER, GIVEN_UP};
use super::{BINDING_VERSION, headers, key};
use crate::config::Config;
use crate::rabbitmq::snapshot::key::KeyPattern;
use crate::rabbitmq::topology::{Object, PlannedBinding, PlannedQueue, Topology};
use crate::webhook::attributes::ATTRIBUTES;
use crate::webhook::routing::{RoutePattern, Routing};

/// Description of a queue with a `retry_delay`.
const RETRIED: &str = "Rejected messages are delivered again after a delay. Described for RabbitMQ \
    below 4.3: the bridge retries messages that are rejected without `requeue`. From 4.3 on, the \
    broker retries messages that are rejected with `requeue`, without the additional queues such as \
    `.rejected`; `/status` says which of the two is in use.";

/// Adds the channels and the operations of the bridge on them.
pub(super) fn add(document: &mut Value, config: &Config, routing: &Routing, vhost: &str) {
    let topology = Topology::plan(config);
    let addresses: Vec<RoutePattern> = routing.addresses().cloned().collect();
    for address in &addresses {
        let message = key(&address.status);
        let channel = status_channel(address, &message, vhost);
        publish(document, &format!("session-{message}"), &message, channel);
    }
    let dead_letters = dead_letters(&config.dead_letter.exchange, vhost);
    publish(document, "dead-letters", DEAD_LETTER, dead_letters);
    for object in &topology.objects {
        let Object::Queue(queue) = object else {
            continue;
        };
        let bindings = bindings(&topology, queue);
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
        let mut name = format!("queue-{}", key(&queue.name));
        while document["channels"].get(&name).is_some() {
            name.push('_');
        }
        let channel = &mut document["channels"][name];
        *channel = queue_channel(queue, &bindings, &messages, vhost);
        if topology.by_broker.iter().any(|one| one.name == queue.name) {
            channel["description"] = RETRIED.into();
        }
    }
}

fn publish(document: &mut Value, name: &str, message: &str, channel: Value) {
    document["channels"][name] = channel;
    document["operations"][format!("publish-{name}")] = json!({
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
}

fn queue_channel(
    queue: &PlannedQueue,
    bindings: &[&PlannedBinding],
    messages: &[String],
    vhost: &str,
) -> Value {
    let name = &queue.name;
    let bound = bindings
        .iter()
        .map(|binding| json!({ "exchange": binding.exchange, "routingKey": binding.key }));
    let arguments: BTreeMap<_, _> = queue.arguments.iter().cloned().collect();
    json!({
        "address": name,
        "title": format!("Queue {name}"),
        "messages": references(messages),
        "bindings": { "amqp": {
            "is": "queue",
            "queue": { "name": name, "durable": true, "exclusive": false, "autoDelete": false, "vhost": vhost },
            "bindingVersion": BINDING_VERSION,
        } },
        "x-bindings": bound.collect::<Vec<_>>(),
        "x-arguments": arguments,
    })
}

fn status_channel(address: &RoutePattern, message: &str, vhost: &str) -> Value {
    let names = address.routing_key.split('{').skip(1);
    let names = names.filter_map(|rest| rest.split_once('}'));
    let parameters: Map<_, _> = names
        .map(|(name, _)| (name.to_owned(), json!({ "description": parameter(name) })))
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
    let attribute = ATTRIBUTES.iter().find(|one| one.placeholder == name);
    attribute.map_or("The source in the webhook's URL.", |one| one.description)
}

fn dead_letters(exchange: &str, vhost: &str) -> Value {
    let reason = json!({ "description": "Why it is a dead letter.", "enum": headers::reasons() });
    json!({
        "address": "{reason}",
        "title": "Dead letters",
        "parameters": { "reason": reason },
        "messages": references(&[DEAD_LETTER.to_owned()]),
        "bindings": topic(exchange, vhost),
    })
}

fn topic(exchange: &str, vhost: &str) -> Value {
    json!({ "amqp": {
        "is": "routingKey",
        "exchange": { "name": exchange, "type": "topic", "durable": true, "autoDelete": false, "vhost": vhost },
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

fn bindings<'t>(topology: &'t Topology, queue: &PlannedQueue) -> Vec<&'t PlannedBinding> {
    let of_queue = |object: &'t Object| match object {
        Object::Binding(binding) if binding.queue == queue.name => Some(binding),
        _ => None,
    };
    topology.objects.iter().filter_map(of_queue).collect()
}

/// The messages that can match these bindings.
fn taken(bindings: &[&PlannedBinding], addresses: &[RoutePattern]) -> Vec<String> {
    let may_take = |address: &&RoutePattern| {
        let words = KeyPattern::template(&address.routing_key);
        bindings
            .iter()
            .any(|binding| *binding.exchange == *address.exchange && words.may_match(&binding.key))
    };
    let taken = addresses.iter().filter(may_take);
    taken.map(|address| key(&address.status)).collect()
}
