//! `discard`.

use super::{DEAD, bridge_with, dead_letters, holds, ids, put_letters};
use crate::support::broker::Broker;
use crate::support::sessions::everything_in;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_is_gone_and_the_others_keep_their_order() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    put_letters(&vhost, "a", 10, "nacked").await;
    let told = dead_letters(&bridge, "discard --all").await.exits(2);
    assert!(told.err.contains("--yes"), "{told:?}");
    let told = dead_letters(&bridge, "discard --yes").await.exits(2);
    assert!(told.err.contains("which messages?"), "{told:?}");
    let told = dead_letters(&bridge, "discard --yes --reason invalid")
        .await
        .exits(1);
    assert!(told.err.contains("none of the 10 messages"), "{told:?}");
    holds(&vhost, DEAD, 10).await;

    let told = dead_letters(&bridge, "discard --yes a-3 nobody a-5")
        .await
        .exits(1);
    assert_eq!(told.text, "discarded a-3\ndiscarded a-5\n");
    assert!(told.err.contains("no message `nobody`"), "{told:?}");
    let told = dead_letters(&bridge, "discard --yes --json --session a-0")
        .await
        .exits(0);
    assert_eq!(told.field("outcome"), ["discarded"]);
    assert_eq!(told.field("id"), ["a-0"]);
    holds(&vhost, DEAD, 7).await;
    let left = everything_in(&vhost, DEAD).await;
    assert_eq!(
        ids(&left),
        ["a-1", "a-2", "a-4", "a-6", "a-7", "a-8", "a-9"]
    );
    dead_letters(&bridge, "discard --yes --all").await.exits(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_the_queue_is_discarded_over_many_windows() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    put_letters(&vhost, "a", 1_000, "nacked").await;
    dead_letters(&bridge, "discard --yes --until 1h")
        .await
        .exits(0);
    // What the broker may forget of the last removals is left to the next pass.
    let left = vhost.message_count(DEAD).await.unwrap();
    assert!(left <= 64, "{left} of 1,000 are left");
    eventually("the next passes discard what is left", SOON, || async {
        let left = vhost.message_count(DEAD).await.unwrap();
        if left > 0 {
            dead_letters(&bridge, "discard --yes --all").await;
        }
        left == 0
    })
    .await;
}
