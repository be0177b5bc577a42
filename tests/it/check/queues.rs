//! Queues that may lose messages that they have confirmed.

use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};

use super::setup::{NO_LIMIT, Setup, TICKETS, safe};
use crate::support::broker::Broker;

/// A consumer queue for all statuses but `callback`.
const MOST: &str = "[[queues]]\nname = \"tickets\"\nkeys = [\"chat-session.created\", \"chat-session.handled\", \
                    \"chat-session.missed\", \"chat-session.completed\", \"chat-session.unknown\"]\n";

/// A healthy bridge, and next to its queue another queue with these arguments.
async fn beside(arguments: &Value) -> Setup {
    let setup = Setup::of(TICKETS).await;
    setup.vhost.declare_queue("own", safe(arguments)).await;
    setup
        .vhost
        .bind("own", "chat-sessions", "chat-session.missed")
        .await;
    setup
}

/// A healthy bridge, and another queue that is the only one for `callback`.
async fn alone(options: QueueDeclareOptions) -> (Setup, lapin::Channel) {
    let setup = Setup::of(MOST).await;
    let channel = setup.vhost.channel().await;
    channel
        .queue_declare("own".into(), options, FieldTable::default())
        .await
        .unwrap();
    let bind = QueueBindOptions::default();
    channel
        .queue_bind(
            "own".into(),
            "chat-sessions".into(),
            "*.callback".into(),
            bind,
            FieldTable::default(),
        )
        .await
        .unwrap();
    (setup, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_setup_has_no_findings() {
    let mut setup = beside(&json!({})).await;
    let checked = setup.finds(0, &[]).await;
    for line in [
        "note: status `created`: exchange `chat-sessions`, key `chat-session.created`: `tickets` (quorum)",
        "note: status `missed`: exchange `chat-sessions`, key `chat-session.missed`: `own` (quorum), `tickets` (quorum)",
        "note: status `unknown`: exchange `chat-sessions`, key `chat-session.unknown`: `tickets` (quorum)",
    ] {
        assert!(
            checked.notes.iter().any(|note| note == line),
            "{line}: {checked:#?}"
        );
    }
    let shown = setup.bridge.run("check", &[]).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.ends_with("healthy: nothing stops webhooks or events, or loses messages\n")
            || shown.contains("tmpfs"),
        "{shown}"
    );
    setup.bridge.reconfigure("rabbitmq.management_url = \"\"");
    let shown = setup.bridge.run("check", &[]).await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    let last = shown.lines().last().unwrap_or_default();
    let is_incomplete = last.starts_with("incomplete: nothing that was inspected stops");
    assert!(is_incomplete || shown.contains("tmpfs"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn classic_queue_is_found() {
    let classic = json!({"x-queue-type": "classic", "x-dead-letter-strategy": null});
    let setup = beside(&classic).await;
    let found = [
        "error: queue `own` is a classic queue, which confirms before it has written to the disk",
        "error: classic queue `own` dead-letters at most once: only quorum queues can do better",
    ];
    let checked = setup.finds(1, &found).await;
    assert!(
        checked.output.contains(" 'own' --if-empty`"),
        "{checked:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_is_found_until_drained() {
    let setup = beside(&json!({"x-max-length": 2})).await;
    for body in [b"1", b"2", b"3"] {
        let key = "chat-session.missed";
        setup.vhost.publish("chat-sessions", key, body).await;
    }
    let found = "error: quorum queue `own` is full (3 of 2 messages) and refuses";
    let shared = "warning: quorum queue `own` refuses beyond its limit and shares the keys `chat-session.missed` with `tickets`";
    let checked = setup.finds(1, &[found, shared]).await;
    assert_eq!(checked.causes, 1, "{checked:#?}");
    setup.vhost.purge_queue("own").await;
    setup.finds(0, &[shared]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_head_policy_is_found() {
    let setup = beside(&json!({
        "x-overflow": null, "x-dead-letter-strategy": null, "x-dead-letter-exchange": null,
        "x-delivery-limit": NO_LIMIT,
    }))
    .await;
    let missing = "warning: quorum queue `own` has no dead-letter exchange";
    setup.finds(0, &[missing]).await;
    setup
        .vhost
        .policy("queues", "own", json!({"max-length": 1000}))
        .await;
    let found =
        "error: quorum queue `own` drops its oldest messages (`drop-head`) beyond 1000 messages";
    let checked = setup.finds(1, &[missing, found]).await;
    assert!(
        checked.output.contains("in its policy `for-own`"),
        "{checked:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn printed_command_fixes_a_missing_dlx() {
    let none = json!({"x-dead-letter-exchange": null, "x-dead-letter-strategy": null, "x-overflow": null, "x-delivery-limit": 20});
    let setup = beside(&none).await;
    let found = "error: quorum queue `own` drops a message after 20 deliveries and has no dead-letter exchange";
    let checked = setup.finds(1, &[found]).await;
    let line: Value = checked
        .output
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| line["severity"] == "error")
        .unwrap();
    let typed = line["fix"].as_str().unwrap().trim_matches('`');
    Broker::shared().await.type_in(typed);
    setup.finds(0, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn message_ttl_is_found() {
    let expiring = json!({
        "x-message-ttl": 60000, "x-dead-letter-exchange": null, "x-dead-letter-strategy": null,
        "x-delivery-limit": NO_LIMIT,
    });
    let setup = beside(&expiring).await;
    let found = [
        "error: quorum queue `own` lets messages expire after 60000 ms",
        "warning: quorum queue `own` has no dead-letter exchange",
    ];
    setup.finds(1, &found).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_once_dead_lettering_is_found() {
    let setup = beside(&json!({"x-dead-letter-strategy": null})).await;
    let found = "error: quorum queue `own` dead-letters at most once: `dead-letter-strategy` is not `at-least-once`";
    setup.finds(1, &[found]).await;
    let setup = beside(&json!({"x-overflow": "drop-head"})).await;
    let found = "error: quorum queue `own` dead-letters at most once: `at-least-once` works only with `overflow=reject-publish`";
    setup.finds(1, &[found]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_dead_letter_exchange_is_found() {
    let setup = beside(&json!({"x-dead-letter-exchange": "nowhere"})).await;
    let found = "error: the dead-letter exchange `nowhere` of quorum queue `own` does not exist";
    setup.finds(1, &[found]).await;
    setup
        .vhost
        .declare_exchange("nowhere", "direct", json!({}))
        .await;
    let found = "error: the dead-letter exchange `nowhere` of quorum queue `own` leads to no queue";
    setup.finds(1, &[found]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_queue_is_found() {
    if Broker::shared()
        .await
        .ctl(&["version"])
        .await
        .starts_with("4.3")
    {
        return; // this release no longer has such queues
    }
    let (setup, _channel) = alone(QueueDeclareOptions::default()).await;
    let found = [
        "error: classic queue `own` is not durable",
        "error: status `callback`: no durable queue is bound to exchange `chat-sessions`",
        "warning: classic queue `own` has no dead-letter exchange",
    ];
    setup.finds(1, &found).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_delete_and_exclusive_queues_are_found() {
    let auto_delete = QueueDeclareOptions {
        auto_delete: true,
        durable: true,
        ..Default::default()
    };
    let (setup, _channel) = alone(auto_delete).await;
    let unbound = "error: status `callback`: no durable queue is bound to exchange `chat-sessions` for its key `chat-session.callback`";
    let found = [
        unbound,
        "error: classic queue `own` is auto-delete: it is deleted with its last consumer",
    ];
    setup.finds(1, &found).await;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    let (setup, _channel) = alone(exclusive).await;
    let found = [
        unbound,
        "error: classic queue `own` is exclusive: it is deleted with the connection that declared it",
    ];
    setup.finds(1, &found).await;
    // Next to a durable queue it is only an observer's queue, and no problem.
    setup.vhost.declare_queue("lasting", safe(&json!({}))).await;
    setup.vhost.bind("lasting", "chat-sessions", "#").await;
    setup
        .finds(0, &["warning: classic queue `own` is exclusive"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lossy_dead_letter_queue_is_found() {
    let setup = Setup::of(TICKETS).await;
    let forgetful = json!({"message-ttl": 1000, "max-length": 10});
    setup
        .vhost
        .policy("queues", "chat-sessions.dead-letter", forgetful)
        .await;
    let found = [
        "error: quorum queue `chat-sessions.dead-letter` lets messages expire after 1000 ms",
        "error: quorum queue `chat-sessions.dead-letter` drops its oldest messages (`drop-head`) beyond 10 messages",
    ];
    setup.finds(1, &found).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unbound_status_is_named() {
    let setup = Setup::of(MOST).await;
    let unbound = "status `callback`: no durable queue is bound to exchange `chat-sessions` for its key `chat-session.callback`";
    let checked = setup.finds(0, &[&format!("warning: {unbound}")]).await;
    assert!(
        checked.output.contains(
            "its events wait in `chat-sessions.unrouted`, which drops what is older than 7d"
        ),
        "{checked:#?}"
    );
    let setup = Setup::of(&format!("unrouted.exchange = \"\"\n{MOST}")).await;
    let checked = setup.finds(1, &[&format!("error: {unbound}")]).await;
    assert!(
        checked
            .output
            .contains("become dead letters (`unroutable`)"),
        "{checked:#?}"
    );
    let setup = Setup::of(&format!(
        "{TICKETS}[[queues]]\nname = \"slip\"\nkeys = [\"chat-session.mised\"]\n"
    ))
    .await;
    setup
        .finds(0, &["warning: queue `slip` of `[[queues]]` gets nothing"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn differently_declared_queue_is_found() {
    let vhost = Broker::shared().await.vhost().await;
    vhost
        .declare_queue("tickets", safe(&json!({"x-delivery-limit": 7})))
        .await;
    let setup = Setup::on(vhost, TICKETS).await;
    let found = "warning: quorum queue `tickets` was declared differently and is left as it is: `x-delivery-limit` is 7, not 5";
    let checked = setup.finds(0, &[found]).await;
    // Quorum queues do not support `--if-empty`, so the suggested command has none; it must work as
    // printed.
    let vhost = &setup.vhost.name;
    let typed = format!("rabbitmqctl delete_queue -p '{vhost}' 'tickets'");
    assert!(
        checked.output.contains(&format!("`{typed}`")),
        "{checked:#?}"
    );
    Broker::shared().await.type_in(&typed);
    setup.bridge.hang_up();
    setup.finds(0, &[]).await;
}

/// A queue declared by an earlier version stays as it is. Policies are checked for the bridge's own
/// queues, too.
#[tokio::test(flavor = "multi_thread")]
async fn retry_queue_policies_are_found() {
    let vhost = Broker::shared().await.vhost().await;
    let earlier = json!({"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT});
    vhost.declare_queue("tickets.rejected", earlier).await;
    for (queue, definition) in [
        ("tickets.rejected", json!({"max-length": 3})),
        ("tickets.retry", json!({"message-ttl": 1000})),
    ] {
        vhost.policy("queues", queue, definition).await;
    }
    let setup = Setup::on(vhost, &format!("{TICKETS}retry_delay = \"30s\"\n")).await;
    let expected = [
        "error: quorum queue `tickets.rejected` drops its oldest messages (`drop-head`) beyond 3 messages",
        "warning: quorum queue `tickets.rejected` was declared differently",
        "warning: quorum queue `tickets.retry` lets messages expire after 1000 ms because of a policy",
    ];
    setup.finds(1, &expected).await;
}
