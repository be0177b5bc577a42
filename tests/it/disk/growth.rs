//! A long backlog, and a long time: memory and file size stay bounded.

use std::path::Path;

use serde_json::json;

use super::rows;
use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::wait::{SOON, eventually};

const MEMORY_MAX: u64 = 64 << 20;
/// Limit while four bodies of the maximum length arrive at a time: 24 MiB of bodies in flight, one
/// event being published with its frames, and the overhead of an unoptimised build.
const LARGEST_MAX: u64 = 104 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn long_backlog_drains_in_bounded_memory() {
    const BACKLOG: usize = 40_000;
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("telemetry.log_level = \"info\"")
        .connected()
        .await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    proxy.refuse();
    for number in 0..BACKLOG / 1000 {
        let body = array_of_new(&format!("backlog-{number}"), 1000);
        assert_eq!(bridge.post(body).await.status, 202);
    }
    assert_eq!(bridge.status().await["backlog"]["events"], BACKLOG);
    proxy.pass();
    let load = Load::start(bridge.address(), 2);
    eventually("the backlog drains", 4 * SOON, || async {
        consumer.count() >= BACKLOG
    })
    .await;
    let ledger = load.stop().await;
    assert!(
        ledger.is_without_failure() && ledger.len() > 100,
        "{}",
        ledger.len()
    );
    bridge.backlog_is_empty().await;
    eventually("everything has arrived", SOON, || async {
        consumer.count() >= BACKLOG + ledger.len()
    })
    .await;
    let most = bridge.rss_bytes_max();
    assert!(most < MEMORY_MAX, "{most} bytes");
}

/// Four senders that each post one webhook after the other, of almost `http.body_bytes_max`: with
/// one session, or with two whose bodies are kept separately.
#[tokio::test(flavor = "multi_thread")]
async fn concurrent_large_bodies_keep_memory_bounded() {
    const SENDERS: usize = 4;
    const WEBHOOKS: usize = 4;
    let (vhost, bridge) = on_shared_broker("telemetry.log_level = \"info\"").await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let send = async |sender: usize| {
        for number in 0..WEBHOOKS {
            let body = the_largest(&format!("{sender}-{number}"), 1 + number % 2);
            assert_eq!(bridge.post(body).await.status, 202);
        }
    };
    futures_util::future::join_all((0..SENDERS).map(send)).await;
    let sessions = SENDERS * WEBHOOKS * 3 / 2;
    eventually("everything has arrived", 4 * SOON, || async {
        consumer.count() >= sessions
    })
    .await;
    let arrived = consumer.all();
    let whole = arrived
        .iter()
        .filter(|message| message.body.ends_with(b"the end\"}"));
    assert_eq!(whole.count(), arrived.len());
    let most = bridge.rss_bytes_max();
    assert!(most < LARGEST_MAX, "{most} bytes");
}

/// This number of sessions, together as long as a body may be.
fn the_largest(id: &str, sessions: usize) -> String {
    let note = "0123456789".repeat((10 << 20) / 10 / sessions - 20);
    let elements = (0..sessions).map(|number| {
        format!(r#"{{"id":"{id}-{number}","status":"created","note":"{note} the end"}}"#)
    });
    format!("[{}]", elements.collect::<Vec<_>>().join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn journal_files_stay_small() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with("telemetry.log_level = \"info\"")
        .with("journal.retention_bytes = \"1MiB\"")
        .connected()
        .await;
    let (mut passed, mut most) = (0, 0);
    for number in 0..50 {
        let body = large_sessions(number);
        passed += body.len() as u64;
        assert_eq!(bridge.post(body).await.status, 202);
        bridge.backlog_is_empty().await;
        most = most.max(size_of(&bridge.journal_dir()));
    }
    assert!(
        passed > 50 << 20 && most < 24 << 20,
        "{most} bytes of {passed}"
    );
    let kept = || rows(&bridge.journal_dir(), "events");
    eventually("events beyond the limit are deleted", SOON, || async {
        kept() <= 100
    })
    .await;
    assert!(kept() > 50, "events within the limit are kept: {}", kept());
}

/// A webhook of about 1 MiB.
fn large_sessions(number: usize) -> Vec<u8> {
    let sessions = (0..100).map(|index| {
        let extra = json!({"summary": "x".repeat(10 << 10)});
        session(&format!("{number}-{index}"), "created", extra)
    });
    array_of(&sessions.collect::<Vec<_>>())
}

fn size_of(path: &Path) -> u64 {
    if path.is_file() {
        return std::fs::metadata(path).map_or(0, |found| found.len());
    }
    let files = std::fs::read_dir(path).unwrap();
    files.map(|file| size_of(&file.unwrap().path())).sum()
}
