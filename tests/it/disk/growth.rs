//! A long backlog, and a long time: memory and file stay bounded.

use std::path::Path;

use serde_json::json;

use super::rows;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::wait::{SOON, eventually};

const MEMORY_MAX: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_long_backlog_takes_no_memory_and_drains_while_webhooks_come_in() {
    const BACKLOG: usize = 40_000;
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("telemetry.log_level = \"info\"")
        .start()
        .await;
    bridge.broker_is("connected").await;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_files_stay_small_however_much_has_passed_through() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with("telemetry.log_level = \"info\"")
        .with("journal.retention_bytes = \"1MiB\"")
        .start()
        .await;
    bridge.broker_is("connected").await;
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
    eventually("what is over the limit is deleted", SOON, || async {
        kept() <= 100
    })
    .await;
    assert!(kept() > 50, "what is within it is kept: {}", kept());
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
