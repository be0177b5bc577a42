//! The process is killed, or starts on what another one left.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::proxy::{Direction, Proxy};
use crate::support::sender::{array_of, array_of_new, session};

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_nothing_that_was_accepted() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
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
    // At most what was in flight at each kill.
    assert!(repeated <= 4 * 256, "{repeated} repetitions");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_at_a_kill_is_forwarded_after_the_restart() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = vhost.amqp_url_through(proxy.address());
    let mut bridge = BridgeBuilder::at(&url).start().await;
    bridge.broker_is("connected").await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    proxy.refuse();
    let load = Load::start(bridge.address(), 8);
    load.accepts(300).await;
    bridge.kill().await;
    let ledger = load.stop().await;
    assert!(
        consumer.count() < ledger.len(),
        "something must have waited"
    );
    proxy.pass();
    bridge.start().await;
    ledger.arrives_at(&consumer).await;
    bridge.backlog_is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_but_not_confirmed_at_a_kill_is_published_again_with_the_same_id() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = vhost.amqp_url_through(proxy.address());
    let mut bridge = BridgeBuilder::at(&url).start().await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    bridge.post(array_of_new("warm", 1)).await;
    bridge.backlog_is_empty().await;
    let warm = consumer.receive().await;

    proxy.stall(Direction::Down); // publishes arrive, confirms do not
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
        "the same again: {after:#?}"
    );
    assert_eq!(ids(&after).len(), 4);
    assert!(
        !ids(&after).contains(warm.id()),
        "what was settled is not repeated"
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

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_journal_is_refused_and_the_first_undisturbed() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let mut second = BridgeBuilder::new(&vhost)
        .journal_in(&bridge.journal_dir())
        .build();
    let exit = second.run_to_exit().await;
    assert_eq!(exit.status.code(), Some(1), "{}", second.stderr());
    let holder = format!("process {} on host", bridge.pid());
    assert!(
        second.stderr().contains(&holder),
        "{holder}: {}",
        second.stderr()
    );
    assert!(bridge.is_running());
    assert_eq!(
        bridge.post(array_of_new("undisturbed", 1)).await.status,
        202
    );
    assert_eq!(
        consumer.receive().await.header("session-id"),
        "undisturbed-0"
    );
}
