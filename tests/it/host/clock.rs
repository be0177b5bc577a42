//! The system clock jumps, or the machine sleeps: timestamps follow, nothing else is affected.

use std::time::Duration;

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::process::faketime;
use crate::support::sender::array_of_new;
use crate::support::skip::skipped;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn clock_jumps_lose_and_delay_nothing() {
    const TIMES: [&str; 6] = [
        "-1h",
        "+1h",
        "@1970-01-01 00:00:05",
        "@2038-01-19 03:14:00",
        "@2016-12-31 23:59:58",
        "+0",
    ];
    let Some(library) = faketime() else {
        return skipped("clock_jumps_lose_and_delay_nothing", "needs libfaketime");
    };
    let vhost = Broker::shared().await.vhost().await;
    let builder = BridgeBuilder::new(&vhost).with("telemetry.log_level = \"info\"");
    let time = builder.dir().join("time");
    let set = |text: &str| {
        let next = time.with_extension("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, &time).unwrap();
    };
    set("+0");
    let mut bridge = builder
        .environment("LD_PRELOAD", &library)
        .environment("FAKETIME_TIMESTAMP_FILE", &time.display().to_string())
        .environment("FAKETIME_NO_CACHE", "1")
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .connected()
        .await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let load = Load::start(bridge.address(), 4);
    for text in TIMES {
        set(text);
        load.accepts(100).await;
    }
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
    ledger.arrives_at(&consumer).await;
    bridge.backlog_is_empty().await;
    let stamps: Vec<u64> = consumer
        .all()
        .iter()
        .filter_map(|message| message.timestamp)
        .collect();
    let has = |from: u64, to: u64| stamps.iter().any(|stamp| (from..to).contains(stamp));
    assert!(has(0, 1000), "some were received in 1970");
    assert!(has(2_147_483_000, 2_147_490_000), "some in 2038");
    let exit = bridge.terminate().await;
    assert_eq!(exit.status.code(), Some(0));
    assert!(exit.took < Duration::from_secs(8), "{:?}", exit.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn sleep_beyond_the_heartbeat_is_recovered() {
    let (vhost, bridge) = on_shared_broker("rabbitmq.heartbeat = \"1s\"").await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let load = Load::start(bridge.address(), 4);
    load.accepts(100).await;
    // The management API lists a connection some seconds after it was opened.
    eventually("the broker lists the connection", SOON, || async {
        vhost.connections_named("deskbridge").await > 0
    })
    .await;
    bridge.freeze();
    eventually("the broker closes the connection", SOON, || async {
        vhost.connections_named("deskbridge").await == 0
    })
    .await;
    bridge.thaw();
    load.accepts(100).await;
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
    ledger.arrives_at(&consumer).await;
    bridge.post(array_of_new("load-after", 1)).await;
    bridge.backlog_is_empty().await;
    assert!(bridge.reconnects().await > 0);
}
