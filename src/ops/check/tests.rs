//! Findings about descriptions in the form of the management API, for states that the broker of the
//! tests cannot have or that are too expensive to set up.

use std::time::Duration;

use serde_json::{Value, from_value, json};

use super::finding::{Findings, Severity};
use super::input::CheckInput;
use super::{exchanges, statuses};
use crate::config::Config;
use crate::config::queues::QueueConfig;
use crate::rabbitmq::snapshot::{BrokerSnapshot, FoundBinding, FoundExchange, FoundQueue};

/// A consumer's queue `own` for all keys, in addition to what the bridge declares.
struct Seed {
    existing: BrokerSnapshot,
    queue: Value,
}

impl Seed {
    fn of(version: &str, arguments: &Value) -> Self {
        let existing = BrokerSnapshot {
            version: version.into(),
            knows_policies: true,
            bindings: vec![binding("chat-sessions", "own", "#")],
            ..BrokerSnapshot::default()
        };
        let queue = json!({
            "name": "own", "type": "quorum", "durable": true, "auto_delete": false,
            "exclusive": false, "arguments": arguments, "policy": null,
            "effective_policy_definition": [], "state": "running"
        });
        Self { existing, queue }
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.queue[key] = value;
        self
    }

    fn exchange(mut self, exchange: Value) -> Self {
        self.existing
            .exchanges
            .push(from_value::<FoundExchange>(exchange).unwrap());
        self
    }

    #[track_caller]
    fn has(self, expected: &[&str]) {
        self.has_for(&Config::default(), expected);
    }

    /// Checks the findings, in order, by the beginnings of their lines.
    #[track_caller]
    fn has_for(self, config: &Config, expected: &[&str]) {
        self.found(config).begin_with(expected);
    }

    /// All findings except for notes.
    fn found(mut self, config: &Config) -> Findings {
        let queue = from_value::<FoundQueue>(self.queue).unwrap();
        self.existing.queues.push(queue);
        let mut input = CheckInput::of(config);
        input.existing = self.existing.with_missing_of(&input.plan);
        input.present = input.existing.clone();
        let mut list = Findings::default();
        exchanges::judge(&input, &mut list);
        statuses::judge(&input, &mut list);
        list.0.retain(|one| one.severity != Severity::Note);
        list
    }
}

/// A configuration in which the bridge declares `own`, for all keys.
fn with_own(ttl: Option<Duration>) -> Config {
    let mut config = Config::default();
    config.queues.push(QueueConfig {
        name: "own".into(),
        keys: vec!["#".into()],
        ttl,
        ..QueueConfig::default()
    });
    config
}

/// A value with other members.
fn and(mut value: Value, with: &Value) -> Value {
    for (key, member) in with.as_object().unwrap() {
        value[key] = member.clone();
    }
    value
}

fn binding(source: &str, queue: &str, key: &str) -> FoundBinding {
    from_value(json!({
        "source": source, "destination": queue, "destination_type": "queue", "routing_key": key
    }))
    .unwrap()
}

fn safe() -> Value {
    json!({
        "x-queue-type": "quorum", "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "chat-sessions.dead-letter",
        "x-dead-letter-strategy": "at-least-once",
    })
}

#[test]
fn safe_queue_is_safe_on_every_version() {
    for version in ["3.10.8", "4.0.2", "4.3.0", "weird"] {
        Seed::of(version, &safe()).has(&[]);
    }
}

#[test]
fn delivery_limit_depends_on_the_version() {
    const DROPS: &str = "error: quorum queue `own` drops a message after ";
    let none = "warning: quorum queue `own` has no dead-letter exchange";
    Seed::of("3.10.8", &json!({})).has(&[none]);
    Seed::of("4.0.2", &json!({})).has(&[&format!("{DROPS}20 deliveries")]);
    // Unlimited on 4.x; on 3.x the first return already exceeds it.
    Seed::of("4.0.2", &json!({"x-delivery-limit": -1})).has(&[none]);
    Seed::of("3.10.8", &json!({"x-delivery-limit": -1})).has(&[DROPS]);
    Seed::of("4.0.2", &json!({"x-delivery-limit": 1_000_000_000})).has(&[none]);
    Seed::of("4.0.2", &json!({"x-delivery-limit": 50}))
        .with("effective_policy_definition", json!({"delivery-limit": 3}))
        .has(&[&format!("{DROPS}3 deliveries")]);
}

#[test]
fn policies_apply_unless_arguments_override_them() {
    let policy = json!({
        "overflow": "reject-publish", "dead-letter-exchange": "chat-sessions.dead-letter",
        "dead-letter-strategy": "at-least-once"
    });
    Seed::of("4.0.2", &json!({}))
        .with("effective_policy_definition", policy.clone())
        .has(&[]);
    Seed::of("4.0.2", &json!({"x-overflow": "drop-head"}))
        .with("effective_policy_definition", policy)
        .has(&[
            "error: quorum queue `own` dead-letters at most once: `at-least-once` works only with",
        ]);
}

#[test]
fn queue_kinds_and_states_are_reported() {
    let stream =
        "error: queue `own` is a stream queue, which confirms before it has written to the disk";
    Seed::of("4.0.2", &json!({}))
        .with("type", json!("stream"))
        .has(&[
            stream,
            "warning: stream queue `own` has no dead-letter exchange",
        ]);
    Seed::of("4.0.2", &safe())
        .with("state", json!("minority"))
        .has(&["error: quorum queue `own` is `minority`"]);
    Seed::of("4.0.2", &safe())
        .with("effective_policy_definition", json!({"expires": 1000}))
        .has(&[
            "error: status `created`",
            "error: status `handled`",
            "error: status `missed`",
            "error: status `completed`",
            "error: status `callback`",
            "error: status `unknown`",
            "error: quorum queue `own` expires when it is unused",
        ]);
}

#[test]
fn unsafe_dead_lettering_is_reported() {
    let own = |arguments: &Value| Seed::of("4.0.2", &and(safe(), arguments));
    own(&json!({"x-dead-letter-strategy": null})).has(&[
        "error: quorum queue `own` dead-letters at most once: `dead-letter-strategy` is not `at-least-once`",
    ]);
    own(&json!({"x-overflow": "drop-head"})).has(&[
        "error: quorum queue `own` dead-letters at most once: `at-least-once` works only with `overflow=reject-publish`",
    ]);
    own(&json!({"x-queue-type": "classic"}))
        .with("type", json!("classic"))
        .has(&[
            "error: queue `own` is a classic queue, which confirms before it has written",
            "error: classic queue `own` dead-letters at most once: only quorum queues can do better",
        ]);
    own(&json!({})).with("durable", json!(false)).has(&[
        "error: status `created`",
        "error: status `handled`",
        "error: status `missed`",
        "error: status `completed`",
        "error: status `callback`",
        "error: status `unknown`",
        "error: quorum queue `own` is not durable",
    ]);
}

/// A queue of the bridge with a policy.
fn with_policy(name: &str, arguments: &Value, policy: &Value) -> FoundQueue {
    from_value(json!({
        "name": name, "type": "quorum", "durable": true, "auto_delete": false, "exclusive": false,
        "arguments": arguments, "policy": "all", "effective_policy_definition": policy
    }))
    .unwrap()
}

#[test]
fn policies_of_the_bridges_own_queues_are_reported() {
    let unlimited = json!({"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000});
    let mut seed = Seed::of("4.0.2", &safe());
    let forgetful = json!({"message-ttl": 1000, "max-length": 10});
    let holding = with_policy("chat-sessions.dead-letter", &unlimited, &forgetful);
    seed.existing.queues.push(holding);
    seed.has(&[
        "warning: quorum queue `chat-sessions.dead-letter` was declared differently and is left as it is: `x-overflow`",
        "error: quorum queue `chat-sessions.dead-letter` drops its oldest messages (`drop-head`) beyond 10 messages",
        "error: quorum queue `chat-sessions.dead-letter` lets messages expire after 1000 ms",
    ]);

    let mut config = with_own(None);
    config.queues[0].retry_delay = Some(Duration::from_secs(30));
    let mut seed = Seed::of("4.0.2", &safe());
    let short = json!({"max-length": 3});
    // As an earlier version declared it.
    let rejected = with_policy("own.rejected", &unlimited, &short);
    let arguments = json!({
        "x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000,
        "x-overflow": "reject-publish", "x-message-ttl": 30_000,
        "x-dead-letter-exchange": "own.retried", "x-dead-letter-strategy": "at-least-once",
    });
    let retry = with_policy("own.retry", &arguments, &json!({"message-ttl": 1000}));
    seed.existing.queues.extend([rejected, retry]);
    let mut found = seed.found(&config);
    found.0.retain(|one| one.problem.contains("`own.re"));
    found.begin_with(&[
        "error: quorum queue `own.rejected` drops its oldest messages (`drop-head`) beyond 3 messages",
        "warning: quorum queue `own.rejected` was declared differently",
        "warning: quorum queue `own.retry` lets messages expire after 1000 ms because of a policy",
    ]);
}

#[test]
fn fix_names_the_policy_to_change() {
    let arguments = json!({"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000});
    let found = Seed::of("4.0.2", &arguments)
        .with("policy", json!("for-own"))
        .with("effective_policy_definition", json!({"max-length": 1000}))
        .found(&Config::default());
    let lines: Vec<_> = found.0.iter().map(ToString::to_string).collect();
    let dropping =
        "error: quorum queue `own` drops its oldest messages (`drop-head`) beyond 1000 messages";
    let is_it = |line: &&String| line.starts_with(dropping);
    let line = lines.iter().find(is_it).expect("it is reported");
    assert!(line.contains("in its policy `for-own`"), "{line}");
}

#[test]
fn full_queue_that_rejects_is_reported() {
    let of = |limits: &Value, messages: i64, unacknowledged: i64, bytes: i64| {
        Seed::of("4.0.2", &and(safe(), limits))
            .with("messages", json!(messages))
            .with("messages_unacknowledged", json!(unacknowledged))
            .with("message_bytes_ready", json!(bytes))
    };
    let full = "error: quorum queue `own` is full ";
    let two = json!({"x-max-length": 2});
    let three_of_two = format!("{full}(3 of 2 messages) and refuses new messages; its events");
    of(&two, 3, 0, 90).has(&[&three_of_two]);
    of(&two, 2, 0, 90).has(&[&format!("{full}(2 of 2 messages) and refuses")]);
    of(&two, 1, 0, 90).has(&[]);
    // Unacknowledged messages do not count.
    of(&two, 5, 4, 90).has(&[]);
    let bytes = json!({"x-max-length": 2, "x-max-length-bytes": 90});
    of(&bytes, 1, 0, 90).has(&[&format!("{full}(90 of 90 bytes) and refuses")]);
    of(&bytes, 1, 0, 89).has(&[]);
    // Such a queue drops its oldest messages, which is a finding.
    let dropping = json!({"x-max-length": 2, "x-overflow": "drop-head"});
    of(&dropping, 2, 0, 0).has(&[
        "error: quorum queue `own` drops its oldest messages",
        "error: quorum queue `own` dead-letters at most once",
    ]);
    // A broker without statistics causes no finding.
    Seed::of("4.0.2", &safe()).has(&[]);
}

#[test]
fn planned_but_missing_bindings_do_not_count() {
    let config = with_own(None);
    let existing = BrokerSnapshot::default().with_missing_of(&CheckInput::of(&config).plan);
    let told = |present: &BrokerSnapshot| {
        let input = CheckInput {
            existing: existing.clone(),
            present: present.clone(),
            ..CheckInput::of(&config)
        };
        let mut list = Findings::default();
        statuses::judge(&input, &mut list);
        let lines = list.0.iter().map(ToString::to_string);
        let of_created: Vec<_> = lines.filter(|line| line.contains("`created`")).collect();
        of_created
    };
    let bound = told(&existing);
    assert_eq!(bound.len(), 1, "{bound:#?}");
    assert!(bound[0].ends_with(": `own` (quorum)"), "{bound:#?}");

    let nothing = told(&BrokerSnapshot::default());
    assert!(nothing[0].ends_with(": `own` (missing)"), "{nothing:#?}");
    assert!(
        nothing[1].contains("wait in the journal until"),
        "{nothing:#?}"
    );

    let mut without_queue = existing.clone();
    without_queue.queues.retain(|queue| queue.name != "own");
    without_queue
        .bindings
        .retain(|binding| binding.destination != "own");
    let caught = told(&without_queue);
    assert!(caught[0].ends_with("; `own` (missing)"), "{caught:#?}");
    assert!(
        caught[1].starts_with("warning: ")
            && caught[1].contains("its events wait in `chat-sessions.unrouted`"),
        "{caught:#?}"
    );

    without_queue
        .exchanges
        .retain(|exchange| exchange.name == "chat-sessions");
    without_queue.exchanges[0].arguments = Value::Null;
    let returned = told(&without_queue);
    assert!(
        returned[1].starts_with("error: ") && returned[1].contains("become dead letters"),
        "{returned:#?}"
    );
}

#[test]
fn safe_expiry_is_a_warning_unless_configured() {
    let mut expiring = and(safe(), &json!({"x-message-ttl": 1000}));
    Seed::of("4.0.2", &expiring)
        .has(&["warning: quorum queue `own` lets messages expire after 1000 ms"]);
    expiring["x-delivery-limit"] = json!(5);
    let config = with_own(Some(Duration::from_secs(1)));
    Seed::of("4.0.2", &expiring).has_for(&config, &[]);
}

#[test]
fn differing_exchanges_are_reported() {
    let exchange = |with: Value| {
        let exchange = json!({
            "name": "chat-sessions", "type": "topic", "durable": true, "auto_delete": false,
            "internal": false, "arguments": {"alternate-exchange": "chat-sessions.unrouted"},
            "policy": null
        });
        Seed::of("4.0.2", &safe()).exchange(and(exchange, &with))
    };
    exchange(json!({})).has(&[]);
    exchange(json!({"type": "fanout"}))
        .has(&["error: exchange `chat-sessions` is of type fanout, not topic"]);
    exchange(json!({"durable": false})).has(&["error: exchange `chat-sessions` is not durable"]);
    exchange(json!({"auto_delete": true})).has(&["error: exchange `chat-sessions` is auto-delete"]);
    exchange(json!({"internal": true})).has(&["error: exchange `chat-sessions` is internal"]);
    exchange(json!({"arguments": {}}))
        .has(&["error: exchange `chat-sessions` has no alternate exchange"]);
    exchange(json!({"arguments": {"alternate-exchange": "other"}}))
        .has(&["warning: exchange `chat-sessions` has the alternate exchange `other`, not `chat-sessions.unrouted`"]);
    let mut unread = exchange(json!({"arguments": {}, "policy": "some"}));
    unread.existing.knows_policies = false;
    unread.has(&[
        "warning: it is unknown whether exchange `chat-sessions` has an alternate exchange",
    ]);
}

#[test]
fn session_keys_are_checked_for_all_possible_values() {
    let mut config = Config::default();
    config.routing.routing_key = "{company}.{status}".into();
    let mut seed = Seed::of("4.0.2", &safe());
    seed.existing.bindings = vec![binding("chat-sessions", "own", "acme.*")];
    seed.has_for(&config, &[]);
    let mut seed = Seed::of("4.0.2", &safe());
    seed.existing.bindings = vec![binding("chat-sessions", "own", "*.*.created")];
    seed.has_for(&config, &[
        "warning: status `created`: no durable queue is bound to exchange `chat-sessions` for its key `*.created`",
        "warning: status `handled`", "warning: status `missed`", "warning: status `completed`",
        "warning: status `callback`", "warning: status `unknown`",
    ]);
}

#[test]
fn dead_letter_exchange_without_queue_is_reported() {
    let mut seed = Seed::of("4.0.2", &safe());
    let direct = json!({"name": "chat-sessions.dead-letter", "type": "direct", "durable": true});
    seed = seed.exchange(direct);
    seed.has(&[
        "error: exchange `chat-sessions.dead-letter` is of type direct, not topic",
        "error: the dead-letter exchange `chat-sessions.dead-letter` of quorum queue `own` leads to no queue",
        "error: no durable queue is bound to the dead-letter exchange `chat-sessions.dead-letter` for invalid, malformed",
    ]);
}
