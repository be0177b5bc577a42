use serde_json::json;

use super::*;
use crate::config::routing::StatusRouting;

fn exchange(plan: &Topology, name: &str) -> PlannedExchange {
    let found = plan.objects.iter().find_map(|object| match object {
        Object::Exchange(exchange) if exchange.name == name => Some(exchange.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("exchange {name} is planned"))
}

fn arguments(plan: &Topology, name: &str) -> Arguments {
    let found = plan.objects.iter().find_map(|object| match object {
        Object::Queue(queue) if queue.name == name => Some(queue.arguments.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("queue {name} is planned"))
}

fn shown(plan: &Topology) -> Vec<String> {
    plan.objects.iter().map(ToString::to_string).collect()
}

#[test]
fn default_plan_is_the_documented_topology() {
    let plan = Topology::plan(&Config::default());
    assert_eq!(
        shown(&plan),
        [
            "exchange `chat-sessions.dead-letter`",
            "queue `chat-sessions.dead-letter`",
            "binding of queue `chat-sessions.dead-letter` to exchange `chat-sessions.dead-letter` with key `#`",
            "exchange `chat-sessions.unrouted`",
            "queue `chat-sessions.unrouted`",
            "binding of queue `chat-sessions.unrouted` to exchange `chat-sessions.unrouted` with key ``",
            "exchange `chat-sessions`",
        ]
    );
    let main = exchange(&plan, "chat-sessions");
    assert_eq!(
        (main.kind, main.alternate.as_deref()),
        (Kind::Topic, Some("chat-sessions.unrouted"))
    );
    let dead = exchange(&plan, "chat-sessions.dead-letter");
    assert_eq!((dead.kind, dead.alternate), (Kind::Topic, None));
    assert_eq!(exchange(&plan, "chat-sessions.unrouted").kind, Kind::Fanout);
}

#[test]
fn holding_queues_are_quorum_without_delivery_limit() {
    let plan = Topology::plan(&Config::default());
    assert_eq!(
        arguments(&plan, "chat-sessions.dead-letter"),
        [
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", json!(1_000_000_000)),
            ("x-overflow", "reject-publish".into()),
        ]
    );
    assert_eq!(
        arguments(&plan, "chat-sessions.unrouted"),
        [
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", json!(1_000_000_000)),
            ("x-message-ttl", json!(7 * 86_400_000)),
            ("x-max-length-bytes", json!(1 << 30)),
            ("x-overflow", "drop-head".into()),
        ]
    );
}

#[test]
fn no_unrouted_exchange_means_no_alternate() {
    let mut config = Config::default();
    config.unrouted.exchange = String::new();
    let plan = Topology::plan(&config);
    assert_eq!(exchange(&plan, "chat-sessions").alternate, None);
    assert_eq!(plan.unrouted_queue, None);
    assert_eq!(plan.objects.len(), 4);
}

#[test]
fn every_routing_exchange_is_planned_once() {
    let mut config = Config::default();
    for (status, exchange) in [
        ("missed", "alerts"),
        ("callback", "alerts"),
        ("created", "chat-sessions"),
    ] {
        let own = StatusRouting {
            exchange: Some(exchange.into()),
            routing_key: None,
        };
        config.routing.statuses.insert(status.into(), own);
    }
    let plan = Topology::plan(&config);
    let exchanges = shown(&plan)
        .into_iter()
        .filter(|object| object.starts_with("exchange"));
    assert_eq!(exchanges.count(), 4);
    assert_eq!(
        exchange(&plan, "alerts").alternate.as_deref(),
        Some("chat-sessions.unrouted")
    );
}

#[test]
fn consumer_queues_reject_and_dead_letter_safely() {
    let queue = QueueConfig {
        name: "crm".into(),
        keys: vec![
            "chat-session.completed".into(),
            "chat-session.missed".into(),
        ],
        ttl: Some(Duration::from_mins(1)),
        messages_max: Some(10),
        bytes_max: Some(1000),
        single_active_consumer: true,
        ..QueueConfig::default()
    };
    let plan = Topology::plan(&Config {
        queues: vec![queue],
        ..Config::default()
    });
    assert_eq!(
        arguments(&plan, "crm"),
        [
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", json!(5)),
            ("x-overflow", "reject-publish".into()),
            ("x-dead-letter-exchange", "chat-sessions.dead-letter".into()),
            ("x-dead-letter-strategy", "at-least-once".into()),
            ("x-message-ttl", json!(60_000)),
            ("x-max-length", json!(10)),
            ("x-max-length-bytes", json!(1000)),
            ("x-single-active-consumer", json!(true)),
        ]
    );
    let bound = plan
        .bindings("chat-sessions")
        .map(|binding| binding.key.as_str());
    assert_eq!(
        bound.collect::<Vec<_>>(),
        ["chat-session.completed", "chat-session.missed"]
    );
}

#[test]
fn exchange_declaration_includes_bindings_and_queues() {
    let crm = QueueConfig {
        name: "crm".into(),
        keys: vec!["#".into()],
        ..QueueConfig::default()
    };
    let plan = Topology::plan(&Config {
        queues: vec![crm],
        ..Config::default()
    });
    let around = |exchange| {
        plan.around(exchange)
            .into_iter()
            .map(|index| plan.objects[index].to_string())
    };
    assert_eq!(
        around("chat-sessions").collect::<Vec<_>>(),
        [
            "exchange `chat-sessions`",
            "queue `crm`",
            "binding of queue `crm` to exchange `chat-sessions` with key `#`"
        ]
    );
    assert_eq!(around("chat-sessions.dead-letter").count(), 3);
    assert_eq!(around("somebody-elses").count(), 0);
}

#[test]
fn retry_delay_needs_rejected_and_retry_queues() {
    let queue = QueueConfig {
        name: "crm".into(),
        keys: vec!["#".into()],
        delivery_limit: 3,
        ttl: Some(Duration::from_mins(1)),
        retry_delay: Some(Duration::from_secs(30)),
        ..QueueConfig::default()
    };
    let plan = Topology::plan(&Config {
        queues: vec![queue],
        ..Config::default()
    });
    let crm = arguments(&plan, "crm");
    assert!(crm.contains(&("x-dead-letter-exchange", "crm.rejected".into())));
    assert!(crm.contains(&("x-dead-letter-strategy", "at-least-once".into())));
    assert_eq!(
        arguments(&plan, "crm.rejected"),
        [
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", json!(1_000_000_000)),
            ("x-overflow", "reject-publish".into()),
            ("x-dead-letter-exchange", "chat-sessions.dead-letter".into()),
            ("x-dead-letter-strategy", "at-least-once".into()),
        ]
    );
    assert_eq!(
        arguments(&plan, "crm.retry"),
        [
            ("x-queue-type", "quorum".into()),
            ("x-delivery-limit", json!(1_000_000_000)),
            ("x-overflow", "reject-publish".into()),
            ("x-message-ttl", json!(30_000)),
            ("x-dead-letter-exchange", "crm.retried".into()),
            ("x-dead-letter-strategy", "at-least-once".into()),
        ]
    );
    for (exchange, queue) in [
        ("crm.rejected", "crm.rejected"),
        ("crm.retry", "crm.retry"),
        ("crm.retried", "crm"),
    ] {
        assert_eq!(self::exchange(&plan, exchange).kind, Kind::Fanout);
        let bound: Vec<_> = plan
            .bindings(exchange)
            .map(|binding| &*binding.queue)
            .collect();
        assert_eq!(bound, [queue]);
    }
    assert_eq!(
        plan.delayed,
        [RetryTopology {
            queue: "crm".into(),
            rejected: "crm.rejected".into(),
            retry: "crm.retry".into(),
            retried: "crm.retried".into(),
            attempts_max: 3,
            dead_letter: "chat-sessions.dead-letter".into(),
        }]
    );
}

#[test]
fn broker_delays_retries_from_4_3_on() {
    let queue = |name: &str, retry_delay| QueueConfig {
        name: name.into(),
        keys: vec!["#".into()],
        retry_delay,
        ..QueueConfig::default()
    };
    let plan = Topology::plan(&Config {
        queues: vec![
            queue("crm", Some(Duration::from_secs(30))),
            queue("plain", None),
        ],
        ..Config::default()
    });
    let of = |version: &str| plan.for_version(crate::rabbitmq::Version::parse(version).unwrap());
    assert_eq!(of("4.2.9"), plan);
    let new = of("4.3.0");
    assert!(!shown(&new).iter().any(|object| object.contains("crm.")));
    assert_eq!(new.objects.len(), plan.objects.len() - 8);
    assert_eq!(arguments(&new, "crm"), plan.by_broker[0].arguments);
    assert_eq!(arguments(&new, "plain"), arguments(&plan, "plain"));
    assert_eq!(new.delayed, []);
}
