//! Requests whose connection is closed because another one needs its slot.

use std::net::SocketAddr;

use super::{bridge, refused};
use crate::support::sender::{PATH, RawClient, SECRET, sign};
use crate::support::wait::{SOON, eventually};

/// Whether the bridge has read everything that this client has sent.
fn is_read(bridge: SocketAddr, client: &RawClient) -> bool {
    let (bridge, client) = (hex(bridge), hex(client.address()));
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // The line of the bridge's socket: its own address comes first. The fifth field has the sizes
    // of the send and receive queues.
    let mut of_bridge = sockets.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields[1] == bridge && fields[2] == client).then(|| fields[4].to_owned())
    });
    let queues = of_bridge.next().expect("the connection is open");
    queues.ends_with(":00000000")
}

fn hex(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else {
        panic!("{address} is not in /proc/net/tcp");
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}

fn request(signature: &str, length: usize, body: &str) -> String {
    format!(
        "POST {PATH} HTTP/1.1\r\nHost: b\r\nX-DD-Signature: {signature}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn evicted_requests_are_counted() {
    let bridge = bridge().with("http.connections_max = 3").start().await;
    let page = bridge.metrics().await;
    let series = [("reason", "evicted")];
    assert!(page.has_where("http_refused_total", &series), "{page:?}");

    let forged = format!("sha256={}", "0".repeat(64));
    let head = "POST /webhooks/deskd".to_owned();
    let mut strangers = Vec::new();
    for sent in [String::new(), head, request(&forged, 100, "[")] {
        let mut stranger = RawClient::connect(bridge.address()).await;
        stranger.write(sent).await;
        eventually("the bridge has read it", SOON, || async {
            is_read(bridge.address(), &stranger)
        })
        .await;
        strangers.push(stranger);
    }
    // A connection that has sent an authentic request is evicted after connections that have not.
    let mut genuine = Vec::new();
    for _ in 0..3 {
        let mut client = RawClient::connect(bridge.address()).await;
        client.write(request(&sign(SECRET, b"[]"), 2, "[]")).await;
        assert_eq!(client.answer().await.expect("an answer").status, 202);
        genuine.push(client);
    }
    for stranger in &mut strangers {
        assert!(stranger.is_closed_within(SOON).await);
    }
    eventually("both requests are counted", SOON, || async {
        refused(&bridge, "evicted").await == 2.0
    })
    .await;
    let all = bridge.metrics().await.sum("http_refused_total");
    assert_eq!(
        all, 2.0,
        "a connection without a byte is not counted as a request"
    );
    let line = bridge.says("reason=\"evicted\"").await;
    assert!(
        line.contains("WARN") && line.contains("127.0.0.1:"),
        "{line}"
    );
    for client in &mut genuine {
        client.write(request(&sign(SECRET, b"[]"), 2, "[]")).await;
        assert_eq!(client.answer().await.expect("an answer").status, 202);
    }
}
