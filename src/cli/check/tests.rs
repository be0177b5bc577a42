//! Judgements on descriptions as the management API gives them, for what the broker of the tests
//! cannot be or is too expensive to make.

use deskbridge::config::Config;
use deskbridge::rabbitmq::existing::{Binding, Exchange, Existing, Queue};
use deskbridge::rabbitmq::topology::Topology;
use serde_json::{Value, from_value, json};

use super::case::Case;
use super::{exchanges, statuses};

/// A consumer's queue `own` for everything, beside what the bridge declares.
struct Seed {
    existing: Existing,
    queue: Value,
}

impl Seed {
    fn of(version: &str, arguments: &Value) -> Self {
        let existing = Existing {
            version: version.into(),
            knows_policies: true,
            bindings: vec![binding("chat-sessions", "own", "#")],
            ..Existing::default()
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
            .push(from_value::<Exchange>(exchange).unwrap());
        self
    }

    #[track_caller]
    fn has(self, expected: &[&str]) {
        self.has_for(&Config::default(), expected);
    }

    /// The findings, by the beginning of their lines, in order.
    #[track_caller]
    fn has_for(mut self, config: &Config, expected: &[&str]) {
        let queue = from_value::<Queue>(self.queue).unwrap();
        self.existing.queues.push(queue);
        let plan = Topology::plan(config);
        let existing = self.existing.with_missing_of(&plan);
        let case = Case {
            existing: &existing,
            present: &existing,
            plan: &plan,
            config,
            vhost: "/",
        };
        let lines = [exchanges::judge(&case), statuses::judge(&case)].concat();
        let lines = lines.iter().map(ToString::to_string);
        let found: Vec<_> = lines.filter(|line| !line.starts_with("note: ")).collect();
        let fits = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(found, expected)| found.starts_with(expected));
        assert!(fits, "{found:#?}\nexpected {expected:#?}");
    }
}

fn binding(source: &str, queue: &str, key: &str) -> Binding {
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
fn a_safe_queue_is_safe_on_every_version() {
    for version in ["3.10.8", "4.0.2", "4.3.0", "weird"] {
        Seed::of(version, &safe()).has(&[]);
    }
}

#[test]
fn the_delivery_limit_depends_on_the_version() {
    const DROPS: &str = "error: quorum queue `own` drops a message after ";
    let none = "warning: quorum queue `own` has no dead-letter exchange";
    Seed::of("3.10.8", &json!({})).has(&[none]);
    Seed::of("4.0.2", &json!({})).has(&[&format!("{DROPS}20 deliveries")]);
    // Without limit on 4.x; on 3.x the first return is one too many.
    Seed::of("4.0.2", &json!({"x-delivery-limit": -1})).has(&[none]);
    Seed::of("3.10.8", &json!({"x-delivery-limit": -1})).has(&[DROPS]);
    Seed::of("4.0.2", &json!({"x-delivery-limit": 1_000_000_000})).has(&[none]);
    Seed::of("4.0.2", &json!({"x-delivery-limit": 50}))
        .with("effective_policy_definition", json!({"delivery-limit": 3}))
        .has(&[&format!("{DROPS}3 deliveries")]);
}

#[test]
fn policies_count_like_arguments_and_arguments_win() {
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
fn kinds_and_states_of_queues_are_told() {
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
            "error: quorum queue `own` expires when nobody uses it",
        ]);
}

#[test]
fn a_queue_that_is_full_and_refuses_is_told() {
    let of = |limits: Value, messages: i64, unacknowledged: i64, bytes: i64| {
        let mut arguments = safe();
        for (name, limit) in limits.as_object().unwrap() {
            arguments[name] = limit.clone();
        }
        Seed::of("4.0.2", &arguments)
            .with("messages", json!(messages))
            .with("messages_unacknowledged", json!(unacknowledged))
            .with("message_bytes_ready", json!(bytes))
    };
    let full = "error: quorum queue `own` is full ";
    let two = || json!({"x-max-length": 2});
    of(two(), 3, 0, 90).has(&[&format!(
        "{full}(3 of 2 messages) and refuses; events for it"
    )]);
    of(two(), 2, 0, 90).has(&[&format!("{full}(2 of 2 messages) and refuses")]);
    of(two(), 1, 0, 90).has(&[]);
    // What consumers have does not count.
    of(two(), 5, 4, 90).has(&[]);
    let bytes = || json!({"x-max-length": 2, "x-max-length-bytes": 90});
    of(bytes(), 1, 0, 90).has(&[&format!("{full}(90 of 90 bytes) and refuses")]);
    of(bytes(), 1, 0, 89).has(&[]);
    // The oldest go there, and that is told.
    of(
        json!({"x-max-length": 2, "x-overflow": "drop-head"}),
        2,
        0,
        0,
    )
    .has(&[
        "error: quorum queue `own` drops its oldest messages",
        "error: quorum queue `own` dead-letters at most once",
    ]);
    // A broker that counts nothing says nothing.
    Seed::of("4.0.2", &safe()).has(&[]);
}

#[test]
fn what_is_planned_and_not_there_yet_is_not_taken_to_be_bound() {
    let mut config = Config::default();
    config.queues.push(deskbridge::config::queues::Queue {
        name: "own".into(),
        keys: vec!["#".into()],
        ..deskbridge::config::queues::Queue::default()
    });
    let plan = Topology::plan(&config);
    let existing = Existing::default().with_missing_of(&plan);
    let told = |present: &Existing| {
        let case = Case {
            existing: &existing,
            present,
            plan: &plan,
            config: &config,
            vhost: "/",
        };
        let lines = statuses::judge(&case);
        let lines = lines.iter().map(ToString::to_string);
        let of_created: Vec<_> = lines.filter(|line| line.contains("`created`")).collect();
        of_created
    };
    let bound = told(&existing);
    assert_eq!(bound.len(), 1, "{bound:#?}");
    assert!(bound[0].ends_with(": `own` (quorum)"), "{bound:#?}");

    let nothing = told(&Existing::default());
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
fn what_expires_into_a_safe_dead_letter_queue_is_a_warning_unless_it_was_asked_for() {
    let mut expiring = safe();
    expiring["x-message-ttl"] = json!(1000);
    Seed::of("4.0.2", &expiring)
        .has(&["warning: quorum queue `own` lets messages expire after 1000 ms"]);
    let mut config = Config::default();
    config.queues.push(deskbridge::config::queues::Queue {
        name: "own".into(),
        keys: vec!["#".into()],
        ttl: Some(std::time::Duration::from_secs(1)),
        ..deskbridge::config::queues::Queue::default()
    });
    expiring["x-delivery-limit"] = json!(5);
    Seed::of("4.0.2", &expiring).has_for(&config, &[]);
}

#[test]
fn exchanges_that_are_not_what_was_planned_are_told() {
    let exchange = |with: Value| {
        let mut exchange = json!({
            "name": "chat-sessions", "type": "topic", "durable": true, "auto_delete": false,
            "internal": false, "arguments": {"alternate-exchange": "chat-sessions.unrouted"},
            "policy": null
        });
        for (key, value) in with.as_object().unwrap() {
            exchange[key] = value.clone();
        }
        Seed::of("4.0.2", &safe()).exchange(exchange)
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
        "warning: whether exchange `chat-sessions` has an alternate exchange cannot be seen",
    ]);
}

#[test]
fn keys_that_depend_on_the_session_are_judged_by_what_they_may_be() {
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
fn a_dead_letter_exchange_without_its_queue_is_told() {
    let mut seed = Seed::of("4.0.2", &safe());
    let direct = json!({"name": "chat-sessions.dead-letter", "type": "direct", "durable": true});
    seed = seed.exchange(direct);
    seed.has(&[
        "error: exchange `chat-sessions.dead-letter` is of type direct, not topic",
        "error: the dead-letter exchange `chat-sessions.dead-letter` of quorum queue `own` leads to no queue",
        "error: no durable queue is bound to the dead-letter exchange `chat-sessions.dead-letter` for invalid, malformed",
    ]);
}
