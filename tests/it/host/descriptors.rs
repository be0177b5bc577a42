//! File descriptors run out: genuine webhooks are still answered, and no loop spins.

use std::process::Command;
use std::time::Duration;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::sender::{RawClient, array_of_new};
use crate::support::wait::{SOON, eventually};

/// Opens connections that send nothing, or begin a request and never finish it.
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

/// Sets the descriptor limit of the running process.
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
async fn flood_with_64_descriptors_blocks_no_webhook() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .under(&["prlimit", "--nofile=64:64"])
        .connected()
        .await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let mut clients = flood(&bridge, 200).await;
    for number in 0..20 {
        let genuine = bridge.post(array_of_new(&format!("genuine-{number}"), 1));
        assert_eq!(genuine.await.status, 202);
        clients.extend(flood(&bridge, 10).await);
    }
    assert_eq!(consumer.receive_n(20).await.len(), 20);
    assert!(descriptors(&bridge) <= 64);
    assert_eq!(bridge.reconnects().await, 0);
    let before = bridge.processor_time();
    tokio::time::sleep(Duration::from_millis(900)).await;
    let spent = bridge.processor_time().saturating_sub(before);
    assert!(spent < Duration::from_millis(225), "{spent:?} in 0.9 s");
    drop(clients);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_accept_evicts_silent_connections() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .under(&["prlimit", "--nofile=4096:4096"])
        .connected()
        .await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    // As if another part of the process had used all other descriptors.
    limit_descriptors(&bridge, descriptors(&bridge) + 5);
    let clients = flood(&bridge, 30).await;
    eventually("accepting fails", SOON, || async {
        bridge.stderr().contains("accept failed")
    })
    .await;
    let before = bridge.processor_time();
    let answer = bridge.post(array_of_new("genuine", 1)).await;
    assert_eq!(answer.status, 202);
    tokio::time::sleep(Duration::from_millis(900)).await;
    let spent = bridge.processor_time().saturating_sub(before);
    assert!(spent < Duration::from_millis(450), "{spent:?} in 0.9 s");
    assert_eq!(consumer.receive().await.header("session-id"), "genuine-0");
    drop(clients);
}
