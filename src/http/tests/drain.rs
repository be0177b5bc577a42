//! Stopping without losing an answer.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::support::*;

#[tokio::test]
async fn draining_answers_open_connections_with_close() {
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
async fn started_request_is_answered_while_draining() {
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
async fn backlog_of_the_listener_is_served_at_drain() {
    let bridge = Bridge::start().await;
    // No other task runs in between, so the server has not seen this connection yet.
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
