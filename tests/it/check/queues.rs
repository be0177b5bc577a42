//! Queues that may lose messages that they have confirmed, and what the output says about them.

use serde_json::{Value, json};

use super::setup::{Setup, TICKETS, safe};
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

const UNBOUND: [&str; 6] = [
    "warning: status `created`: no durable queue is bound",
    "warning: status `handled`: no durable queue is bound",
    "warning: status `missed`: no durable queue is bound",
    "warning: status `completed`: no durable queue is bound",
    "warning: status `callback`: no durable queue is bound",
    "warning: status `unknown`: no durable queue is bound",
];

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
async fn deleted_queue_is_found_until_sighup() {
    let setup = Setup::of(TICKETS).await;
    setup.vhost.delete_queue("tickets").await;
    let missing = "warning: queue `tickets` is missing; `serve` declares it when it starts, after a reconnect, or on SIGHUP";
    let checked = setup.finds(0, &[&[missing], &UNBOUND[..]].concat()).await;
    let created = "note: status `created`: exchange `chat-sessions`, key `chat-session.created`: \
                   `chat-sessions.unrouted` (quorum), by the alternate exchange \
                   `chat-sessions.unrouted`; `tickets` (missing)";
    assert_eq!(checked.notes[0], created, "{checked:#?}");
    assert!(checked.output.contains("`kill -HUP "), "{checked:#?}");
    setup.bridge.hang_up();
    let checked = setup.finds(0, &[]).await;
    assert!(
        checked.notes[0].ends_with("`tickets` (quorum)"),
        "{checked:#?}"
    );
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
