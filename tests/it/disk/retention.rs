//! Completed events are deleted; pending events are not.

use super::rows;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;

#[tokio::test(flavor = "multi_thread")]
async fn only_completed_events_are_deleted() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("journal.retention = \"0s\"")
        .connected()
        .await;
    let journal = bridge.journal_dir();
    let stored = || (rows(&journal, "events"), rows(&journal, "settled"));
    bridge.post(array_of_new("settled", 30)).await;
    bridge.post("a dead letter").await;
    bridge.backlog_is_empty().await;
    assert_eq!(stored(), (0, 0));
    assert_eq!(bridge.counter("published").await, 30);

    proxy.refuse();
    bridge.post(array_of_new("waiting", 20)).await;
    assert_eq!(stored(), (20, 0));
    proxy.pass();
    bridge.backlog_is_empty().await;
    assert_eq!(stored(), (0, 0));
}
