//! A consumer's queue that is deleted while events flow: they are held elsewhere and the others
//! are disturbed by nothing. (What an operator purges is gone: that is outside of the promise.)

use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::sender::array_of_new;
use crate::support::sessions::everything_in;
use crate::support::vhost::Vhost;

async fn bodies(vhost: &Vhost, queue: &str) -> usize {
    everything_in(vhost, queue).await.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_for_a_queue_that_was_deleted_wait_in_the_queue_for_what_nobody_wants() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    vhost.queue_bound("crm", "chat-sessions", "#").await;
    bridge.post(array_of_new("before", 20)).await;
    bridge.backlog_is_empty().await;
    assert_eq!(bodies(&vhost, "crm").await, 20);

    vhost.delete_queue("crm").await;
    assert_eq!(bridge.post(array_of_new("after", 30)).await.status, 202);
    bridge.backlog_is_empty().await;
    assert_eq!(bodies(&vhost, "chat-sessions.unrouted").await, 30);
    let counters = bridge.status().await["counters"].clone();
    assert_eq!(counters["published"], json!(50));
    assert_eq!(bridge.status().await["broker"]["reconnects"], 0);
}
