//! `replay --to-queue`: one queue alone receives the messages, with the guarantees of every replay.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::json;

use super::replay::{LONG, begun, different, id_of, orders, replayed};
use super::{DEAD, Put, UNROUTED, bridge_with, dead_letters, holds, ids, put_letters, reject};
use crate::support::broker::Broker;
use crate::support::consumer::{Consumer, everything_in};
use crate::support::process::signal;
use crate::support::sender::{array_of, session};
use crate::support::wait::eventually;

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
async fn messages_that_the_queue_refuses_stay() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    let full = json!({"x-max-length": 3, "x-overflow": "reject-publish"});
    vhost.declare_queue("small", full).await;
    put_letters(&vhost, "a", 5, "nacked").await;
    let told = dead_letters(&bridge, "replay --all --to-queue small")
        .await
        .exits(1);
    assert!(
        told.text.contains("kept a-4: the broker refused it"),
        "{told:?}"
    );
    let there = vhost.messages("small").await;
    let here = everything_in(&vhost, DEAD).await;
    let all: BTreeSet<_> = ids(&there).into_iter().chain(ids(&here)).collect();
    assert_eq!(all.len(), 5);
    assert_eq!(
        there.len() + here.len(),
        5,
        "each message is in exactly one queue"
    );
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

#[tokio::test(flavor = "multi_thread")]
async fn unrouted_events_go_into_one_queue_in_order() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    for step in 0..20 {
        bridge
            .post(array_of(&[session("s", "created", json!({"step": step}))]))
            .await;
    }
    bridge.backlog_is_empty().await;
    holds(&vhost, UNROUTED, 20).await;
    vhost.declare_queue("crm", json!({})).await;
    let line = format!("replay --queue {UNROUTED} --all --to-queue crm");
    let told = dead_letters(&bridge, &line).await.exits(0);
    assert!(told.err.contains("20 replayed, 0 kept"), "{told:?}");
    holds(&vhost, UNROUTED, 0).await;
    let arrived = everything_in(&vhost, "crm").await;
    let steps: Vec<_> = arrived
        .iter()
        .map(|one| one.json()["step"].clone())
        .collect();
    assert_eq!(steps, (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_replay_to_a_queue_loses_nothing() {
    const COUNT: usize = 3_000;
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = bridge_with(&vhost, "").await;
    orders(&vhost, json!({"x-queue-type": "quorum"})).await;
    vhost.queue_bound("other", "orders", "k").await;
    put_letters(&vhost, "a", COUNT, "nacked").await;
    bridge.kill().await; // only the commands may be connected
    let consumer = Consumer::of(&vhost, "orders").await;
    let to = ["--to-queue", "orders"];
    let told = begun(&bridge, &consumer, to, |pid| signal(pid, Signal::KILL)).await;
    let done = replayed(&told.stdout, "queue orders");
    // The broker requeues the unacknowledged messages of the killed command when it notices the
    // loss of its connection.
    eventually("the dead letters are requeued", LONG, || async {
        let left = vhost.message_count(DEAD).await.unwrap() as usize;
        vhost.connections_named("deskbridge").await == 0
            && COUNT - left <= different(&consumer.all()).len()
    })
    .await;
    let left = dead_letters(&bridge, "list --json").await.exits(0);
    let left: BTreeSet<_> = left.objects().iter().map(id_of).collect();
    assert!(!left.is_empty(), "the replay was complete before the kill");
    assert!(
        done.iter().all(|id| !left.contains(id)),
        "reported as replayed before it was removed"
    );
    let arrived = consumer.all();
    let arrived = different(&arrived);
    for id in (0..COUNT).map(|n| format!("a-{n}")) {
        assert!(left.contains(&id) || arrived.contains(&*id), "{id} is lost");
    }
    eventually("all have arrived", LONG, || async {
        dead_letters(&bridge, "replay --all --to-queue orders").await;
        let arrived = consumer.all();
        different(&arrived).len() == COUNT && vhost.message_count(DEAD).await == Some(0)
    })
    .await;
    let arrived = consumer.all();
    for id in &done {
        let times = arrived.iter().filter(|one| one.id() == id).count();
        assert_eq!(times, 1, "{id}");
    }
    holds(&vhost, "other", 0).await;
}
