//! Stopping without losing an answer.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::support::*;

#[tokio::test]
async fn what_arrives_on_open_connections_is_answered_with_close() {
    let bridge = Bridge::start().await;
    let mut used = bridge.connect().await;
    used.send(&signed("[]")).await;
    assert_eq!(used.answer().await.header("connection"), None);
    let mut fresh = bridge.connect().await;
    sleep(Duration::from_millis(50)).await;

    bridge.stop.drain.cancel();
    eventually_refused(&bridge).await;
    assert!(
        used.is_quiet_for(Duration::from_millis(100)).await,
        "closed while it could be used"
    );
    for client in [&mut used, &mut fresh] {
        client.send(&signed(&session("1"))).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.header("connection")),
            (202, Some("close"))
        );
        assert_eq!(client.rest().await, "");
    }
    assert_eq!(bridge.held(), 2);
    drop((used, fresh));
    timeout(Duration::from_secs(5), bridge.task)
        .await
        .expect("still serving")
        .unwrap();
}

#[tokio::test]
async fn a_request_in_the_middle_is_answered_even_after_the_close() {
    let bridge = Bridge::start().await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    let mut client = bridge.connect().await;
    client.send(&signed(&session("1"))).await;
    let mut idle = bridge.connect().await;
    sleep(Duration::from_millis(50)).await;
    bridge.stop.drain.cancel();
    bridge.stop.close.cancel();
    assert_eq!(idle.rest().await, "");
    assert!(client.is_quiet_for(Duration::from_millis(100)).await);
    assert!(!bridge.task.is_finished());
    bridge.shelf.disk.send_replace(Disk::Writes);
    assert_eq!(client.answer().await.status, 202);
    timeout(Duration::from_secs(5), bridge.task)
        .await
        .expect("still serving")
        .unwrap();
}

#[tokio::test]
async fn whoever_the_kernel_has_accepted_before_the_drain_is_served() {
    let bridge = Bridge::start().await;
    // Nothing else runs in between: the server has not seen this connection yet.
    let stream = std::net::TcpStream::connect(bridge.address).unwrap();
    bridge.stop.drain.cancel();
    stream.set_nonblocking(true).unwrap();
    let mut client = Client::of(TcpStream::from_std(stream).unwrap());
    client.send(&signed("[]")).await;
    assert_eq!(client.answer().await.status, 202);
}

async fn eventually_refused(bridge: &Bridge) {
    for _ in 0..200 {
        if TcpStream::connect(bridge.address).await.is_err() {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("still listening");
}
