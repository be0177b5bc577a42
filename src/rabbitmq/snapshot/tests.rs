//! Which queues messages reach, in snapshots as the management API returns them.

use serde_json::{Value, from_value, json};

use super::key::KeyPattern;
use super::*;
use crate::config::Config;

fn exchange(name: &str, kind: &str, alternate: Option<&str>) -> FoundExchange {
    let arguments = alternate.map_or(json!({}), |name| json!({ "alternate-exchange": name }));
    from_value(json!({"name": name, "type": kind, "durable": true, "arguments": arguments}))
        .unwrap()
}

fn queue(name: &str, arguments: &Value, policy: &Value) -> FoundQueue {
    from_value(json!({
        "name": name, "type": "quorum", "durable": true, "arguments": arguments,
        "effective_policy_definition": policy, "policy": null
    }))
    .unwrap()
}

fn binding(source: &str, kind: &str, destination: &str, key: &str) -> FoundBinding {
    from_value(json!({
        "source": source, "destination": destination, "destination_type": kind,
        "routing_key": key, "arguments": {}, "properties_key": "~"
    }))
    .unwrap()
}

fn queues(existing: &BrokerSnapshot, exchange: &str, key: &str) -> Vec<String> {
    let reach = existing.reach(exchange, &KeyPattern::literal(key));
    reach.queues.into_iter().map(ToOwned::to_owned).collect()
}

#[test]
fn messages_are_followed_through_all_exchange_types() {
    let existing = BrokerSnapshot {
        exchanges: vec![
            exchange("top", "topic", Some("rest")),
            exchange("by-key", "direct", None),
            exchange("all", "fanout", None),
            exchange("rest", "fanout", None),
            exchange("hashed", "x-consistent-hash", None),
        ],
        queues: vec![queue("own", &json!({}), &json!([]))],
        bindings: vec![
            binding("top", "queue", "missed", "*.missed"),
            binding("top", "exchange", "by-key", "chat.#"),
            binding("by-key", "queue", "created", "chat.created"),
            binding("by-key", "exchange", "top", "chat.created"),
            binding("all", "queue", "everything", "ignored"),
            binding("rest", "queue", "left", ""),
            binding("hashed", "queue", "shard", "10"),
        ],
        ..BrokerSnapshot::default()
    };
    assert_eq!(queues(&existing, "top", "chat.missed"), ["missed"]);
    assert_eq!(queues(&existing, "top", "chat.created"), ["created"]);
    assert_eq!(queues(&existing, "top", "other"), ["left"]);
    assert_eq!(queues(&existing, "all", "other"), ["everything"]);
    assert_eq!(queues(&existing, "hashed", "other"), ["shard"]);
    assert_eq!(queues(&existing, "", "own"), ["own"]);
    assert!(queues(&existing, "nowhere", "own").is_empty());
    // A binding matches, but the exchange behind it routes nowhere: the broker returns the message.
    assert!(queues(&existing, "top", "chat.handled").is_empty());
    let unrouted = existing.reach("top", &KeyPattern::literal("other"));
    assert_eq!(unrouted.alternate, Some("rest"));
}

#[test]
fn alternate_exchange_may_come_from_a_policy() {
    let by_policy = FoundExchange {
        policy: Some("unrouted".into()),
        ..exchange("top", "topic", None)
    };
    let mut existing = BrokerSnapshot {
        exchanges: vec![by_policy, exchange("rest", "fanout", None)],
        bindings: vec![binding("rest", "queue", "left", "")],
        ..BrokerSnapshot::default()
    };
    assert!(queues(&existing, "top", "k").is_empty());
    existing.alternates.insert("unrouted".into(), "rest".into());
    assert_eq!(queues(&existing, "top", "k"), ["left"]);
}

#[test]
fn policies_apply_like_arguments() {
    let both = queue(
        "q",
        &json!({"x-max-length": 10, "x-overflow": "reject-publish"}),
        &json!({"max-length": 5, "overflow": "drop-head", "message-ttl": 7}),
    );
    assert_eq!(both.number("max-length"), Some(5));
    assert_eq!(both.number("message-ttl"), Some(7));
    assert_eq!(both.text("overflow"), Some("reject-publish"));
    let none = queue("q", &json!({}), &json!([]));
    assert_eq!(
        (none.number("max-length"), none.text("overflow")),
        (None, None)
    );
    assert!(none.is_durable());
    assert!(queue("q", &json!({"x-expires": 1}), &json!([])).is_transient());
}

#[test]
fn missing_planned_objects_count_as_declared() {
    let mut config = Config::default();
    config.queues.push(crate::config::queues::QueueConfig {
        name: "tickets".into(),
        keys: vec!["chat-session.missed".into()],
        ..crate::config::queues::QueueConfig::default()
    });
    let plan = Topology::plan(&config);
    let existing = BrokerSnapshot::default().with_missing_of(&plan);
    assert!(plan.objects.iter().all(|object| existing.has(object)));
    let of = |status: &str| {
        queues(
            &existing,
            "chat-sessions",
            &format!("chat-session.{status}"),
        )
    };
    assert_eq!(of("missed"), ["tickets"]);
    assert_eq!(of("created"), ["chat-sessions.unrouted"]);
    assert!(existing.queue("tickets").unwrap().is_durable());
    let count = existing.bindings.len();
    assert_eq!(
        existing.with_missing_of(&plan).bindings.len(),
        count,
        "declared twice"
    );
}
