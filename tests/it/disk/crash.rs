//! The process is killed, or starts on the journal of a killed process.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::proxy::{Direction, Proxy};
use crate::support::sender::{array_of, array_of_new, session};

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_nothing() {
    let (vhost, mut bridge) = on_shared_broker("").await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let load = Load::start(bridge.address(), 8);
    for round in 0..4_u32 {
        load.accepts(150 + 37 * round as usize).await;
        bridge.kill().await;
        bridge.start().await;
    }
    load.accepts(100).await;
    let ledger = load.stop().await;
    assert!(ledger.unanswered > 0, "no request was hit by a kill");
    assert!(ledger.answers.keys().eq([&202]), "{:?}", ledger.answers);
    let repeated = ledger.arrives_at(&consumer).await;
    bridge.backlog_is_empty().await;
    // At most the messages in flight at each kill.
    assert!(repeated <= 4 * 256, "{repeated} repetitions");
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_events_are_forwarded_after_kill_9() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = vhost.amqp_url_through(proxy.address());
    let mut bridge = BridgeBuilder::at(&url).connected().await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    proxy.refuse();
    let load = Load::start(bridge.address(), 8);
    load.accepts(300).await;
    bridge.kill().await;
    let ledger = load.stop().await;
    assert!(
        consumer.count() < ledger.len(),
        "some events were pending at a kill"
    );
    proxy.pass();
    bridge.start().await;
    ledger.arrives_at(&consumer).await;
    bridge.backlog_is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unconfirmed_events_are_republished_with_equal_ids() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = vhost.amqp_url_through(proxy.address());
    let mut bridge = BridgeBuilder::at(&url).connected().await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    bridge.post(array_of_new("warm", 1)).await;
    bridge.backlog_is_empty().await;
    let warm = consumer.receive().await;

    proxy.stall(Direction::Down); // the broker gets publishes, the bridge no confirms
    let two_steps =
        |chat: &str| ["created", "handled"].map(|status| session(chat, status, json!({})));
    bridge
        .post(array_of(&[two_steps("a"), two_steps("b")].concat()))
        .await;
    let unconfirmed = consumer.receive_n(2).await;
    bridge.kill().await;
    proxy.pass();
    bridge.start().await;

    let after = consumer.receive_n(4).await;
    let ids = |messages: &[_]| -> BTreeSet<String> {
        messages
            .iter()
            .map(|message: &crate::support::message::Message| message.id().to_owned())
            .collect()
    };
    assert!(
        ids(&after).is_superset(&ids(&unconfirmed)),
        "the unconfirmed events are published again: {after:#?}"
    );
    assert_eq!(ids(&after).len(), 4);
    assert!(
        !ids(&after).contains(warm.id()),
        "a completed event is not published again"
    );
    for chat in ["a", "b"] {
        let statuses: Vec<_> = after
            .iter()
            .filter(|message| message.header("session-id") == chat)
            .map(|message| message.header("status").clone())
            .collect();
        assert_eq!(statuses, ["created", "handled"], "in order");
    }
    bridge.backlog_is_empty().await;
}
