//! A missing queue, a foreign queue, invalid messages: each is reported in a sentence, with an exit
//! code, and nothing is changed.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::json;

use super::replay::{begun, id_of, orders};
use super::{DEAD, Put, Told, bridge_with, dead_letters, holds, put_letters};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::proxy::Proxy;
use crate::support::vhost::connect;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn missing_broker_and_queue_are_reported() {
    let bridge = BridgeBuilder::without_broker().build();
    for command in ["list", "show x", "replay --all", "discard --all --yes"] {
        let told = dead_letters(&bridge, command).await.exits(1);
        assert!(told.err.contains("connecting to"), "{told:?}");
        assert!(told.err.contains("try: "), "{told:?}");
        assert!(!told.err.contains("guest:guest"), "{told:?}");
    }
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).build();
    for command in ["list", "show x", "replay --all", "discard --all --yes"] {
        let told = dead_letters(&bridge, &format!("{command} --queue nix"))
            .await
            .exits(1);
        assert!(told.err.contains("there is no queue `nix`"), "{told:?}");
    }
    assert_eq!(
        vhost.message_count("nix").await,
        None,
        "listing declares nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exclusive_queues_are_left_unchanged() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    let other = connect(&vhost.amqp_url).await;
    let channel = other.create_channel().await.unwrap();
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    channel
        .queue_declare("mine".into(), exclusive, FieldTable::default())
        .await
        .unwrap();
    let told = dead_letters(&bridge, "list --queue mine").await.exits(1);
    assert!(told.err.contains("RESOURCE_LOCKED"), "{told:?}");

    // Quorum queues do not support exclusive consumers.
    let classic = json!({"x-queue-type": "classic"});
    vhost.declare_queue("legacy", classic).await;
    let exclusive = BasicConsumeOptions {
        exclusive: true,
        ..Default::default()
    };
    let one = BasicQosOptions::default();
    channel.basic_qos(1, one).await.unwrap();
    let mut deliveries = channel
        .basic_consume("legacy".into(), "".into(), exclusive, FieldTable::default())
        .await
        .unwrap();
    for _ in 0..2 {
        assert!(vhost.publish("", "legacy", b"{}").await);
    }
    let _held = deliveries.next().await.unwrap().unwrap();
    let told = dead_letters(&bridge, "list --queue legacy").await.exits(1);
    assert!(told.err.contains("exclusive"), "{told:?}");
    other.close(200, "OK".into()).await.unwrap();
    holds(&vhost, "legacy", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_arguments_are_usage_errors() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).build();
    for (line, expected) in [
        ("replay", "no messages selected"),
        ("replay --all x", "cannot be used with"),
        ("replay --body x a b", "--body is for one message"),
        (
            "replay --all --to-queue a --to-exchange b",
            "cannot be used with",
        ),
        ("replay --all --to-queue a --body b", "cannot be used with"),
        (
            "replay --all --to-queue chat-sessions.dead-letter",
            "in this queue already",
        ),
        (
            "replay --all --queue a --to-queue a",
            "in this queue already",
        ),
        (
            "replay --all --queue a --to-queue chat-sessions.dead-letter",
            "this is the dead-letter queue",
        ),
        ("list --since tomorrow", "how long ago such as 2h"),
        ("show", "required"),
        ("", "Usage"),
    ] {
        let told = dead_letters(&bridge, line).await.exits(2);
        assert!(told.err.contains(expected), "{line}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unreplayable_messages_stay_with_a_reason() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    let put = |id: &'static str, headers: serde_json::Value| Put {
        exchange: DEAD,
        key: "x",
        id: Some(id),
        headers,
        body: b"",
    };
    let going_to =
        |exchange: &str| json!({"original-exchange": exchange, "original-routing-key": "k"});
    let too_large = json!({
        "dead-letter-reason": "too-large", "journal-event": 7,
        "original-exchange": "chat-sessions", "original-routing-key": "k",
    });
    let puts = [
        put("bare", json!({})),
        put("missing", going_to("nix")),
        put("large", too_large),
        put("fine", going_to(DEAD)),
    ];
    Put::all(&vhost, &puts).await;
    holds(&vhost, DEAD, 4).await;
    let told = dead_letters(&bridge, "replay --all").await.exits(1);
    for kept in [
        "kept bare: it has neither `original-exchange`",
        "kept missing: it says that it was going to exchange `nix`",
        "kept large: its body is in the journal: use `deskbridge events replay`",
        "kept fine: it says that it was going to exchange `chat-sessions.dead-letter`",
    ] {
        assert!(told.text.contains(kept), "{told:?}");
    }
    assert!(told.err.contains("0 replayed, 4 kept"), "{told:?}");
    let told = dead_letters(&bridge, "replay missing --to-exchange nix")
        .await
        .exits(1);
    assert!(
        told.text
            .contains("kept missing: the broker refused it: NOT_FOUND"),
        "{told:?}"
    );
    // `fine` returns to the same queue, behind the others, and is not replayed a second time.
    let line = format!("replay fine --to-exchange {DEAD}");
    let told = dead_letters(&bridge, &line).await.exits(0);
    assert!(
        told.text
            .contains("replayed fine to chat-sessions.dead-letter k"),
        "{told:?}"
    );
    holds(&vhost, DEAD, 4).await;
    let left = dead_letters(&bridge, "list --json").await.exits(0);
    assert_eq!(left.field("id"), ["bare", "missing", "large", "fine"]);
    dead_letters(&bridge, "replay nobody").await.exits(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connection_leaves_only_in_flight_unknown() {
    const COUNT: usize = 3_000;
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = bridge_with(&vhost, "").await;
    bridge.kill().await; // only the command may be connected
    orders(&vhost, json!({"x-queue-type": "quorum"})).await;
    put_letters(&vhost, "a", COUNT, "nacked").await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = vhost.amqp_url_through(proxy.address());
    bridge.reconfigure(&format!("rabbitmq.urls = ['{url}']"));
    let consumer = Consumer::of(&vhost, "orders").await;
    let told = Told::from(begun(&bridge, &consumer, |_| proxy.close()).await).exits(1);
    assert!(
        told.err.contains("run it again when the broker is"),
        "{}",
        told.err
    );
    let of = |verb: &str| -> BTreeSet<String> {
        let lines = told.text.lines().filter_map(|line| line.strip_prefix(verb));
        let id = |line: &str| line.strip_suffix(" to orders k").unwrap().to_owned();
        lines.map(id).collect()
    };
    let (sure, perhaps) = (of("replayed "), of("perhaps replayed "));
    assert_eq!(sure.len() + perhaps.len(), told.text.lines().count());
    let summed_up = format!("interrupted: {} replayed", sure.len());
    assert!(told.err.contains(&summed_up), "{}", told.err);
    assert!(
        !perhaps.is_empty(),
        "the replay was complete before the interruption"
    );
    let doubt = format!("except {} that may be gone", perhaps.len());
    assert!(told.err.contains(&doubt), "{}", told.err);

    bridge.reconfigure(&format!("rabbitmq.urls = ['{}']", vhost.amqp_url));
    eventually("the dead letters are requeued", SOON, || async {
        let left = vhost.message_count(DEAD).await.unwrap() as usize;
        vhost.connections_named("deskbridge").await == 0
            && COUNT - left <= sure.len() + perhaps.len()
    })
    .await;
    let left = dead_letters(&bridge, "list --json").await.exits(0);
    let left: BTreeSet<_> = left.objects().iter().map(id_of).collect();
    let is_left = |id: &String| left.contains(id);
    assert!(
        !sure.iter().any(is_left),
        "reported as replayed before it was removed"
    );
    let gone = (0..COUNT).map(|n| format!("a-{n}"));
    let gone: BTreeSet<_> = gone.filter(|id| !is_left(id)).collect();
    let told_of: BTreeSet<_> = sure.union(&perhaps).cloned().collect();
    assert!(
        gone.is_subset(&told_of),
        "a message is gone that was not reported"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_alarm_ends_a_replay_without_loss() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let bridge = bridge_with(&vhost, "rabbitmq.confirm_timeout = '1s'").await;
    vhost.declare_exchange("orders", "topic", json!({})).await;
    vhost.queue_bound("orders", "orders", "k").await;
    put_letters(&vhost, "a", 3, "nacked").await;
    broker.raise_memory_alarm().await;
    let told = dead_letters(&bridge, "replay --all --to-exchange orders")
        .await
        .exits(1);
    assert!(told.err.contains("an alarm of memory or disk"), "{told:?}");
    assert!(
        told.err
            .contains("0 replayed, everything else is still in queue"),
        "{told:?}"
    );
    dead_letters(&bridge, "list").await.exits(0);
    broker.clear_memory_alarm().await;
    holds(&vhost, DEAD, 3).await;
    dead_letters(&bridge, "replay --all --to-exchange orders")
        .await
        .exits(0);
    holds(&vhost, DEAD, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forbidden_exchange_is_reported_consistently() {
    const LETTERS: usize = 64;
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = bridge_with(&vhost, "").await;
    orders(&vhost, json!({})).await;
    put_letters(&vhost, "a", LETTERS, "nacked").await;
    let user = format!("{}-user", vhost.name);
    vhost.user(&user, "some-password").await;
    vhost.allow(&user, ".*", "^chat-sessions", ".*").await;
    let url = vhost.amqp_url_as(&user, "some-password");
    bridge.reconfigure(&format!("rabbitmq.urls = [{url:?}]"));
    // Timing decides which of 64 calls gets the broker's reply and which only learns that the
    // channel is closing.
    for _ in 0..5 {
        let told = dead_letters(&bridge, "replay --all --to-exchange orders")
            .await
            .exits(1);
        let refused = told.text.matches("the broker refused it: ACCESS_REFUSED");
        assert_eq!(refused.count(), LETTERS, "{told:?}");
        holds(&vhost, DEAD, LETTERS).await;
    }
}
