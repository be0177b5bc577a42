//! Completed events are kept for a while, then deleted; pending events are not deleted.

use super::rows;
use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn only_completed_events_are_deleted() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("journal.retention = \"2s\"")
        .connected()
        .await;
    let journal = bridge.journal_dir();
    bridge.post(array_of_new("settled", 30)).await;
    bridge.post("a dead letter").await;
    bridge.backlog_is_empty().await;
    assert_eq!(
        (rows(&journal, "events"), rows(&journal, "settled")),
        (31, 31),
        "completed events are kept at first"
    );

    proxy.refuse();
    bridge.post(array_of_new("waiting", 20)).await;
    eventually("completed events are deleted", SOON, || async {
        rows(&journal, "settled") == 0
    })
    .await;
    // The pending events become older than the deleted ones were.
    eventually("the pending events are old", SOON, || async {
        bridge.status().await["backlog"]["oldest_seconds"].as_f64() > Some(3.5)
    })
    .await;
    assert_eq!(
        (rows(&journal, "events"), rows(&journal, "settled")),
        (20, 0)
    );

    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    proxy.pass();
    let messages = consumer.receive_n(20).await;
    assert!(
        messages
            .iter()
            .all(|message| message.text().contains("waiting-"))
    );
    eventually("these events are deleted too", SOON, || async {
        rows(&journal, "events") == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_retention_deletes_at_completion() {
    let (_vhost, bridge) = on_shared_broker("journal.retention = \"0s\"").await;
    bridge.post(array_of_new("settled", 30)).await;
    bridge.post("a dead letter").await;
    bridge.backlog_is_empty().await;
    let journal = bridge.journal_dir();
    assert_eq!(
        (rows(&journal, "events"), rows(&journal, "settled")),
        (0, 0)
    );
    assert_eq!(bridge.counter("published").await, 30);
}
