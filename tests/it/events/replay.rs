//! Events are published again: unchanged, in order, to the routes of the present configuration or
//! to one queue.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{accept, bridge_with_queue, done, failed, objects};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::everything_in;
use crate::support::message::Message;
use crate::support::proxy::Proxy;
use crate::support::wait::{SOON, eventually};

/// All properties of the message but the time of the replay.
fn without_replayed_at(message: &Message) -> Message {
    let mut message = message.clone();
    message.headers.remove("replayed-at");
    message.redelivered = false;
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_publishes_equal_messages_in_order() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with_queue(&vhost, "all").await;
    for status in ["created", "handled", "missed", "completed"] {
        let sessions: Vec<_> = (0..100).map(|n| format!("s{n}")).collect();
        let sessions: Vec<_> = sessions.iter().map(|id| (id.as_str(), status)).collect();
        accept(&bridge, &sessions).await;
    }
    bridge.post("malformed").await;
    bridge.backlog_is_empty().await;
    let before = everything_in(&vhost, "all").await;
    assert_eq!(before.len(), 400);
    everything_in(&vhost, "chat-sessions.dead-letter").await;

    let told = done(&bridge.run("events", &["replay", "--all", "--json"]).await);
    let told = &objects(&told)[0];
    assert_eq!(
        (&told["confirmed"], &told["failed"]),
        (&json!(401), &json!(0)),
        "{told}"
    );
    let again = everything_in(&vhost, "all").await;
    let by_session = |messages: &[Message]| {
        let mut by_session: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for message in messages {
            let lane = by_session
                .entry(message.correlation_id.clone())
                .or_default();
            lane.push(without_replayed_at(message));
        }
        by_session
    };
    assert_eq!(by_session(&again), by_session(&before));
    for message in &again {
        let at = message.header("replayed-at").as_str().unwrap();
        assert!(at.ends_with('Z') && at.starts_with("20"), "{at}");
    }
    let letters = everything_in(&vhost, "chat-sessions.dead-letter").await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].header("dead-letter-reason"), "malformed");
    assert_eq!(letters[0].body, b"malformed");

    eventually("the replay is counted", SOON, || async {
        bridge.metrics().await.sum("replayed_total") == 401.0
    })
    .await;
    let counters = bridge.status().await["counters"].clone();
    for (name, count) in [("accepted", 401), ("published", 400), ("dead_lettered", 1)] {
        assert_eq!(counters[name], count, "replays do not change `{name}`");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_selects_by_filter_and_id() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with_queue(&vhost, "all").await;
    accept(
        &bridge,
        &[
            ("a", "created"),
            ("b", "missed"),
            ("a", "handled"),
            ("c", "missed"),
        ],
    )
    .await;
    bridge.backlog_is_empty().await;
    let before = everything_in(&vhost, "all").await;
    let replays = async |arguments: &[&str], expected: &[&str]| {
        let arguments = [&["replay"], arguments].concat();
        done(&bridge.run("events", &arguments).await);
        let messages = everything_in(&vhost, "all").await;
        let name = |message: &Message| {
            let status = message.header("status").as_str().unwrap();
            format!("{} {status}", message.correlation_id.as_deref().unwrap())
        };
        let replayed: Vec<_> = messages.iter().map(name).collect();
        assert_eq!(replayed, expected, "{arguments:?}");
    };
    replays(&["--session", "a"], &["a created", "a handled"]).await;
    let missed = ["b missed", "c missed"];
    replays(&["--status", "missed", "--since", "1h"], &missed).await;
    let is_b = |message: &&Message| message.correlation_id.as_deref() == Some("b");
    let id = before.iter().find(is_b).unwrap().id();
    replays(&["4", id], &missed).await;
    replays(&["--session", "a", "--dry-run"], &[]).await;
    let dry = done(
        &bridge
            .run(
                "events",
                &["replay", "--session", "a", "--dry-run", "--json"],
            )
            .await,
    );
    let keys: Vec<Value> = objects(&dry)
        .iter()
        .map(|object| object["routing_key"].clone())
        .collect();
    assert_eq!(keys, ["chat-session.created", "chat-session.handled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_to_one_queue_reaches_no_other() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with_queue(&vhost, "old").await;
    accept(
        &bridge,
        &[("a", "created"), ("b", "created"), ("a", "completed")],
    )
    .await;
    bridge.post("malformed").await;
    bridge.backlog_is_empty().await;
    vhost
        .declare_queue("new", json!({"x-queue-type": "quorum"}))
        .await;
    let output = bridge
        .run("events", &["replay", "--all", "--to-queue", "new"])
        .await;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(done(&output), "3 events confirmed\n");
    assert!(err.contains("1 event left out"), "{err}");
    let old = everything_in(&vhost, "old").await;
    let new = everything_in(&vhost, "new").await;
    let ids = |messages: &[Message]| -> Vec<String> {
        let mut ids: Vec<_> = messages
            .iter()
            .map(|message| message.id().to_owned())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&old), ids(&new));
    let of_a: Vec<_> = new
        .iter()
        .filter(|message| message.correlation_id.as_deref() == Some("a"))
        .map(|message| message.header("status"))
        .collect();
    assert_eq!(of_a, ["created", "completed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unroutable_replays_are_reported_and_skipped() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost)
        .with("queues = [{name = 'created', keys = ['chat-session.created']}]")
        .with("routing.statuses.missed = {exchange = 'alarms'}")
        .start()
        .await;
    accept(
        &bridge,
        &[
            ("a", "created"),
            ("b", "missed"),
            ("c", "created"),
            ("d", "handled"),
        ],
    )
    .await;
    bridge.backlog_is_empty().await;
    everything_in(&vhost, "created").await;
    // No queue receives other statuses than `created` now, and the exchange for `missed` is gone.
    bridge.terminate().await;
    vhost.delete_exchange("chat-sessions").await;
    vhost.delete_exchange("alarms").await;
    vhost
        .declare_exchange("chat-sessions", "topic", json!({}))
        .await;
    vhost
        .bind("created", "chat-sessions", "chat-session.created")
        .await;
    bridge.reconfigure("rabbitmq.topology = 'verify'");
    let output = bridge.run("events", &["replay", "--all", "--json"]).await;
    let err = failed(&output, 1);
    let told = &objects(&String::from_utf8_lossy(&output.stdout))[0];
    assert_eq!(
        (&told["confirmed"], &told["failed"]),
        (&json!(2), &json!(2)),
        "{told}"
    );
    assert!(
        err.contains("event 2: NOT_FOUND") && err.contains("event 4: returned: 312"),
        "{err}"
    );
    assert_eq!(everything_in(&vhost, "created").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_body_is_not_replayed() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = bridge_with_queue(&vhost, "all").await;
    accept(&bridge, &[("a", "created"), ("b", "created")]).await;
    bridge.backlog_is_empty().await;
    everything_in(&vhost, "all").await;
    bridge.terminate().await;
    let database = bridge.database();
    let damage = "UPDATE webhooks SET bodies = CAST(substr(bodies, 1, 9) || 'Z' || substr(bodies, 11) AS BLOB)
                  WHERE first = 1";
    database.execute_batch(damage).unwrap();
    database.close().unwrap();
    let output = bridge.run("events", &["replay", "--all"]).await;
    let err = failed(&output, 1);
    assert!(err.contains("event 1: its body is damaged"), "{err}");
    let sessions: Vec<_> = everything_in(&vhost, "all").await;
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].correlation_id.as_deref(), Some("b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_events_are_left_to_the_bridge() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let mut bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("queues = [{name = 'all', keys = ['#']}]")
        .connected()
        .await;
    accept(&bridge, &[("w", "created")]).await;
    bridge.backlog_is_empty().await;
    proxy.refuse();
    bridge.broker_is("connecting").await;
    accept(&bridge, &[("w", "handled")]).await;
    // Only the replay can reach the broker.
    bridge.reconfigure(&format!("rabbitmq.urls = ['{}']", vhost.amqp_url));
    let replay = ["replay", "--status", "handled"];
    let err = failed(&bridge.run("events", &replay).await, 1);
    assert!(err.contains("the bridge has still to publish"), "{err}");
    let told = done(&bridge.run("events", &["replay", "--all", "--json"]).await);
    let told = &objects(&told)[0];
    assert_eq!(
        (&told["confirmed"], &told["pending"]),
        (&json!(1), &json!(1))
    );
    let all = everything_in(&vhost, "all").await;
    let keys: Vec<_> = all.iter().map(|one| &*one.routing_key).collect();
    assert_eq!(keys, ["chat-session.created"; 2]);
}
