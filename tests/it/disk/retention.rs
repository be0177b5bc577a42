//! What is settled is kept for a while, then deleted; what is not settled is not.

use std::time::Duration;

use super::rows;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn retention_deletes_what_is_settled_and_nothing_else() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("journal.retention = \"2s\"")
        .start()
        .await;
    bridge.broker_is("connected").await;
    let journal = bridge.journal_dir();
    bridge.post(array_of_new("settled", 30)).await;
    bridge.post("a dead letter").await;
    bridge.backlog_is_empty().await;
    assert_eq!(
        (rows(&journal, "events"), rows(&journal, "settled")),
        (31, 31),
        "kept at first"
    );

    proxy.refuse();
    bridge.post(array_of_new("waiting", 20)).await;
    eventually("what is settled is deleted", SOON, || async {
        rows(&journal, "settled") == 0
    })
    .await;
    // Long enough for everything that waits to be as old as what was deleted, and a look or two.
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(
        (rows(&journal, "events"), rows(&journal, "pending")),
        (20, 20)
    );

    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    proxy.pass();
    let messages = consumer.receive_n(20).await;
    assert!(
        messages
            .iter()
            .all(|message| message.text().contains("waiting-"))
    );
    eventually("these are deleted too", SOON, || async {
        rows(&journal, "events") == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_no_retention_what_is_settled_is_gone_at_once() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with("journal.retention = \"0s\"")
        .start()
        .await;
    bridge.broker_is("connected").await;
    bridge.post(array_of_new("settled", 30)).await;
    bridge.post("a dead letter").await;
    bridge.backlog_is_empty().await;
    let journal = bridge.journal_dir();
    assert_eq!(
        (rows(&journal, "events"), rows(&journal, "settled")),
        (0, 0)
    );
    assert_eq!(bridge.status().await["counters"]["published"], 30);
}
