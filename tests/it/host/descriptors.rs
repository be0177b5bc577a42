//! Descriptors run out: genuine webhooks are answered all the same, and nothing spins.

use std::process::Command;
use std::time::Duration;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::sender::{RawClient, array_of_new};
use crate::support::wait::{SOON, eventually};

/// Connections that say nothing, or begin a request and never go on.
async fn flood(bridge: &Bridge, connections: usize) -> Vec<RawClient> {
    let mut clients = Vec::new();
    for number in 0..connections {
        let mut client = RawClient::connect(bridge.address()).await;
        if number % 2 == 0 {
            client.write("POST /webhooks/deskdirector HT").await;
        }
        clients.push(client);
    }
    clients
}

/// Sets how many descriptors the running process may have.
fn limit_descriptors(bridge: &Bridge, limit: usize) {
    let limited = Command::new("prlimit")
        .args(["--pid", &bridge.pid().to_string()])
        .arg(format!("--nofile={limit}:4096"))
        .output()
        .unwrap();
    assert!(limited.status.success(), "{limited:?}");
}

fn descriptors(bridge: &Bridge) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", bridge.pid()));
    open.unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_64_descriptors_a_flood_keeps_no_webhook_out_and_costs_no_processor_time() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .under(&["prlimit", "--nofile=64:64"])
        .start()
        .await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let mut clients = flood(&bridge, 200).await;
    for number in 0..20 {
        let genuine = bridge.post(array_of_new(&format!("genuine-{number}"), 1));
        assert_eq!(genuine.await.status, 202);
        clients.extend(flood(&bridge, 10).await);
    }
    assert_eq!(consumer.receive_n(20).await.len(), 20);
    assert!(descriptors(&bridge) <= 64);
    assert_eq!(bridge.status().await["broker"]["reconnects"], 0);
    let before = bridge.processor_time();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = bridge.processor_time().saturating_sub(before);
    assert!(
        spent < Duration::from_millis(500),
        "{spent:?} in two seconds"
    );
    drop(clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_accepting_fails_silent_connections_give_way_and_nothing_spins() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .under(&["prlimit", "--nofile=4096:4096"])
        .start()
        .await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    // As if something else in the process had taken all the others.
    limit_descriptors(&bridge, descriptors(&bridge) + 5);
    let clients = flood(&bridge, 30).await;
    eventually("accepting fails", SOON, || async {
        bridge.stderr().contains("accepting connections fails")
    })
    .await;
    let before = bridge.processor_time();
    let answer = bridge.post(array_of_new("genuine", 1)).await;
    assert_eq!(answer.status, 202);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let spent = bridge.processor_time().saturating_sub(before);
    assert!(spent < Duration::from_secs(1), "{spent:?}");
    assert_eq!(consumer.receive().await.header("session-id"), "genuine-0");
    drop(clients);
}
