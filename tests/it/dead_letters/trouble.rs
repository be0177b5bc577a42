//! What is not there, not ours or not right: a sentence, an exit code, nothing changed.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::json;

use super::replaying::{begun, id_of, orders};
use super::{DEAD, Put, Told, bridge_with, dead_letters, holds, put_letters};
use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::proxy::Proxy;
use crate::support::vhost::connect;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_and_a_queue_that_is_not_there_are_said() {
    let nobody = format!("amqp://guest:guest@{}", free_address());
    let bridge = BridgeBuilder::at(&nobody).build();
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
        "looking declares nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_somebody_elses_is_left_alone() {
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

    // Quorum queues know no exclusive consumers.
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
async fn arguments_that_mean_nothing_are_usage_errors() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).build();
    for (line, expected) in [
        ("replay", "which messages?"),
        ("replay --all x", "cannot be used with"),
        ("replay --body x a b", "--body is for one message"),
        ("list --since tomorrow", "how long ago such as 2h"),
        ("show", "required"),
        ("", "Usage"),
    ] {
        let told = dead_letters(&bridge, line).await.exits(2);
        assert!(told.err.contains(expected), "{line}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replayed_stays_with_the_reason() {
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
        "kept large: its body is in the journal: `deskbridge events replay`",
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
    // `fine` comes back to the same queue, behind the others, and is not taken a second time.
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
async fn a_lost_connection_leaves_a_doubt_about_what_was_on_its_way_and_about_nothing_else() {
    const COUNT: usize = 3_000;
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = bridge_with(&vhost, "").await;
    bridge.kill().await; // only the command is connected
    orders(&vhost, json!({"x-queue-type": "quorum"})).await;
    put_letters(&vhost, "a", COUNT, "nacked").await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = vhost.amqp_url_through(proxy.address());
    bridge.reconfigure(&format!("rabbitmq.urls = ['{url}']"));
    let consumer = Consumer::of(&vhost, "orders").await;
    let told: Told = begun(&bridge, &consumer, |_| proxy.close()).await.into();
    let told = told.exits(1);
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
    assert!(!perhaps.is_empty(), "it was not in the middle");
    let doubt = format!("but for {} that may be gone", perhaps.len());
    assert!(told.err.contains(&doubt), "{}", told.err);

    bridge.reconfigure(&format!("rabbitmq.urls = ['{}']", vhost.amqp_url));
    eventually("the letters are back", SOON, || async {
        let left = vhost.message_count(DEAD).await.unwrap() as usize;
        vhost.connections_named("deskbridge").await == 0
            && COUNT - left <= sure.len() + perhaps.len()
    })
    .await;
    let left = dead_letters(&bridge, "list --json").await.exits(0);
    let left: BTreeSet<_> = left.objects().iter().map(id_of).collect();
    let is_left = |id: &String| left.contains(id);
    assert!(!sure.iter().any(is_left), "told too early");
    let gone = (0..COUNT).map(|n| format!("a-{n}"));
    let gone: BTreeSet<_> = gone.filter(|id| !is_left(id)).collect();
    let told_of: BTreeSet<_> = sure.union(&perhaps).cloned().collect();
    assert!(gone.is_subset(&told_of), "gone and not told of");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_of_the_broker_ends_a_replay_and_nothing_is_lost() {
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
async fn a_forbidden_exchange_is_told_the_same_each_time() {
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
    // Which of 64 calls learns the broker's reply, and which only that the channel is closing, is a
    // matter of timing.
    for _ in 0..5 {
        let told = dead_letters(&bridge, "replay --all --to-exchange orders")
            .await
            .exits(1);
        let refused = told.text.matches("the broker refused it: ACCESS_REFUSED");
        assert_eq!(refused.count(), LETTERS, "{told:?}");
        holds(&vhost, DEAD, LETTERS).await;
    }
}
