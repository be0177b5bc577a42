//! The clock on the wall jumps, or the machine sleeps: timestamps follow, nothing else does.

use std::time::Duration;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::process::faketime;
use crate::support::sender::array_of_new;
use crate::support::skip::skipped;

#[tokio::test(flavor = "multi_thread")]
async fn jumps_of_the_clock_lose_and_delay_nothing() {
    const TIMES: [&str; 6] = [
        "-1h",
        "+1h",
        "@1970-01-01 00:00:05",
        "@2038-01-19 03:14:00",
        "@2016-12-31 23:59:58",
        "+0",
    ];
    let Some(library) = faketime() else {
        return skipped(
            "jumps_of_the_clock_lose_and_delay_nothing",
            "needs libfaketime",
        );
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
        .start()
        .await;
    bridge.broker_is("connected").await;
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
async fn a_bridge_that_slept_longer_than_its_heartbeat_reconnects_and_goes_on() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with("rabbitmq.heartbeat = \"1s\"")
        .start()
        .await;
    bridge.broker_is("connected").await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let load = Load::start(bridge.address(), 4);
    load.accepts(100).await;
    bridge.freeze();
    tokio::time::sleep(Duration::from_secs(6)).await;
    bridge.thaw();
    load.accepts(100).await;
    let ledger = load.stop().await;
    assert!(ledger.is_without_failure(), "{ledger:?}");
    ledger.arrives_at(&consumer).await;
    bridge.post(array_of_new("load-after", 1)).await;
    bridge.backlog_is_empty().await;
    let status = bridge.status().await;
    assert!(
        status["broker"]["reconnects"].as_u64() > Some(0),
        "the broker did not notice: {status}"
    );
}
