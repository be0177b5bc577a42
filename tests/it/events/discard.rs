//! `discard` and a replay end an event's exemption from retention.

use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use super::{accept, done, failed};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of, session};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

const LIMIT: &str = "rabbitmq.message_bytes_max = '64KiB'\nhttp.body_bytes_max = '64KiB'";
const NO_LIMIT: &str = "rabbitmq.message_bytes_max = '16MiB'\nhttp.body_bytes_max = '10MiB'";

/// A bridge whose event 1 became a dead letter without its body, and whose event 2 was published.
/// Retention keeps nothing longer than necessary.
async fn with_too_large(vhost: &Vhost) -> Bridge {
    let proxy = Proxy::to(vhost.amqp_address()).await;
    proxy.refuse();
    let mut bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("queues = [{name = 'all', keys = ['#']}]")
        .start()
        .await;
    let large = session(
        "large",
        "created",
        json!({"summary": "x".repeat(100 << 10)}),
    );
    assert_eq!(bridge.post(array_of(&[large])).await.status, 202);
    accept(&bridge, &[("small", "created")]).await;
    bridge.terminate().await;
    bridge.reconfigure(LIMIT);
    bridge.reconfigure(&format!("rabbitmq.urls = ['{}']", vhost.amqp_url));
    bridge.start().await;
    bridge.backlog_is_empty().await;
    bridge
}

/// Whether the event is exempt from retention; `None` if it has been deleted.
fn is_kept(bridge: &Bridge, seq: i64) -> Option<bool> {
    let path = bridge.journal_dir().join("journal.db");
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let kept = "SELECT kept FROM settled JOIN events USING (seq) WHERE seq = ?1";
    database.query_row(kept, [seq], |row| row.get(0)).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn discarded_event_is_deleted_by_retention() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = with_too_large(&vhost).await;
    bridge.reconfigure("journal.retention = '0s'");
    bridge.terminate().await;
    bridge.start().await;
    eventually("the event that is not exempt is deleted", SOON, || async {
        is_kept(&bridge, 2).is_none()
    })
    .await;
    assert_eq!(is_kept(&bridge, 1), Some(true));
    let counters = bridge.status().await["counters"].clone();

    let err = failed(&bridge.run("events", &["discard", "1", "77"]).await, 1);
    assert!(err.contains("no event 77"), "{err}");
    assert_eq!(
        is_kept(&bridge, 1),
        Some(true),
        "an unknown event number discards nothing"
    );
    // Without a bridge, the next start does it.
    bridge.terminate().await;
    let told = done(&bridge.run("events", &["discard", "1"]).await);
    assert_eq!(
        told,
        "1 event will be subject to retention again when the bridge runs\n"
    );
    assert_eq!(is_kept(&bridge, 1), Some(true));
    bridge.start().await;
    eventually("the discarded event is deleted", SOON, || async {
        is_kept(&bridge, 1).is_none()
    })
    .await;
    assert_eq!(bridge.status().await["counters"], counters);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_event_is_exempt_until_replayed() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = with_too_large(&vhost).await;
    let err = failed(&bridge.run("events", &["discard", "2"]).await, 1);
    assert!(err.contains("not exempt from retention: 2"), "{err}");
    let replay = ["replay", "1"];
    let err = failed(&bridge.run("events", &replay).await, 1);
    assert!(
        err.contains("more than rabbitmq.message_bytes_max"),
        "{err}"
    );
    assert_eq!(is_kept(&bridge, 1), Some(true));

    bridge.reconfigure(NO_LIMIT);
    vhost.purge_queue("all").await;
    vhost.declare_queue("one", json!({})).await;
    done(
        &bridge
            .run("events", &["replay", "1", "--to-queue", "one"])
            .await,
    );
    assert_eq!(vhost.message_count("one").await, Some(1));
    assert_eq!(
        is_kept(&bridge, 1),
        Some(true),
        "other queues still miss the event"
    );
    done(&bridge.run("events", &replay).await);
    assert_eq!(vhost.message_count("all").await, Some(1));
    eventually("the event is no longer exempt", SOON, || async {
        is_kept(&bridge, 1) == Some(false)
    })
    .await;
    eventually("both replays are counted", SOON, || async {
        bridge.counter("replayed").await == 2
    })
    .await;
}
