//! `replay --to-queue`: one queue alone receives the messages, in order. `replay` tests what is the
//! same for every replay.

use serde_json::json;

use super::replay::different;
use super::{DEAD, Put, bridge_with, dead_letters, holds, ids, put_letters, reject};
use crate::support::broker::Broker;
use crate::support::consumer::everything_in;
use crate::support::sender::{array_of, session};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_queue_that_lost_messages_gets_them() {
    const COUNT: usize = 5;
    let vhost = Broker::shared().await.vhost().await;
    let queues = "queues = [{name = 'crm', keys = ['chat-session.#']}, \
                  {name = 'other', keys = ['chat-session.#']}]";
    let bridge = bridge_with(&vhost, queues).await;
    let sent: Vec<_> = (0..COUNT)
        .map(|n| session(&format!("s{n}"), "missed", json!({})))
        .collect();
    bridge.post(array_of(&sent)).await;
    bridge.backlog_is_empty().await;
    reject(&vhost, "crm", COUNT).await;
    holds(&vhost, DEAD, COUNT).await;

    let listed = dead_letters(&bridge, "list --json").await.exits(0);
    assert_eq!(listed.field("original_queue"), ["crm"; COUNT]);
    let line = "replay --reason rejected --to-queue crm";
    let told = dead_letters(&bridge, &format!("{line} --dry-run"))
        .await
        .exits(0);
    assert_eq!(told.text.matches(" to queue crm\n").count(), COUNT);
    holds(&vhost, DEAD, COUNT).await;
    let told = dead_letters(&bridge, &format!("{line} --json"))
        .await
        .exits(0);
    assert_eq!(told.field("outcome"), ["replayed"; COUNT]);
    assert_eq!(told.field("exchange"), [""; COUNT]);
    assert_eq!(told.field("routing_key"), ["crm"; COUNT]);
    assert_eq!(told.field("id"), listed.field("id"), "in the same order");
    holds(&vhost, DEAD, 0).await;
    let arrived = everything_in(&vhost, "crm").await;
    assert_eq!(ids(&arrived), listed.field("id"));
    let other = everything_in(&vhost, "other").await;
    assert_eq!(other.len(), COUNT, "each message once");
    assert_eq!(different(&arrived), different(&other));
    for message in &arrived {
        let headers: Vec<_> = message.headers.keys().map(String::as_str).collect();
        assert!(headers.contains(&"replayed-at"), "{message:?}");
        assert!(
            !headers.iter().any(|name| name.starts_with("x-")),
            "{message:?}"
        );
        assert_eq!(message.kind.as_deref(), Some("chat-session.missed"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_queue_is_found_before_publishing() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    put_letters(&vhost, "a", 3, "nacked").await;
    for line in [
        "replay --all --to-queue nix",
        "replay --all --to-queue nix --dry-run",
    ] {
        let told = dead_letters(&bridge, line).await.exits(1);
        assert_eq!(told.text, "");
        assert!(
            told.err
                .contains("checking queue `nix`: queue `nix` is missing"),
            "{told:?}"
        );
        assert!(told.err.contains("try: nothing was published"), "{told:?}");
    }
    holds(&vhost, DEAD, 3).await;
    assert_eq!(vhost.message_count("nix").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn message_without_known_origin_is_replayed() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    vhost.declare_queue("crm", json!({})).await;
    let bare = Put {
        exchange: DEAD,
        key: "x",
        id: Some("bare"),
        headers: json!({"CC": ["other"]}),
        body: b"{}",
    };
    vhost.declare_queue("other", json!({})).await;
    Put::all(&vhost, &[bare]).await;
    bridge.post(r#"[{"id":"x"}]"#).await;
    bridge.backlog_is_empty().await;
    holds(&vhost, DEAD, 2).await;
    let told = dead_letters(&bridge, "replay --all --to-queue crm")
        .await
        .exits(1);
    assert!(
        told.text.contains("replayed bare to queue crm\n"),
        "{told:?}"
    );
    assert!(told.text.contains(": it is invalid; "), "{told:?}");
    holds(&vhost, DEAD, 1).await;
    assert_eq!(ids(&everything_in(&vhost, "crm").await), ["bare"]);
    // The header would have sent a copy to another queue.
    holds(&vhost, "other", 0).await;
}
