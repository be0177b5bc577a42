//! Request heads that cannot be parsed or are incomplete.

use super::{answer_to, bridge, refused, request};
use crate::support::sender::RawClient;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_are_counted_and_named() {
    let bridge = bridge().start().await;
    for (bytes, reason, words) in [
        (
            &b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 8080\r\n"[..],
            "proxy-protocol",
            "this is the PROXY protocol;",
        ),
        (
            b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03random bytes",
            "tls",
            "looks like TLS",
        ),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "http2",
            "this is HTTP/2",
        ),
        (b"AMQP\0\0\x09\x01", "malformed-head", "this is AMQP"),
    ] {
        let mut client = RawClient::connect(bridge.address()).await;
        client.write(bytes).await;
        assert!(client.is_closed_within(SOON).await, "{words}");
        let line = bridge.says(words).await;
        assert!(
            line.contains("WARN") && line.contains("127.0.0.1:"),
            "{line}"
        );
        assert_eq!(refused(&bridge, reason).await, 1.0, "{words}");
    }
    let all = bridge.metrics().await.sum("http_refused_total");
    assert_eq!(all, 4.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_head_is_logged_with_its_proxy() {
    let bridge = bridge().start().await;
    let many = "x: y\r\n".repeat(200);
    let headers = format!("X-Forwarded-For: 192.0.2.7\r\n{many}");
    let request = request("POST /webhooks/deskdirector", &headers);
    let answer = answer_to(&bridge, request).await.unwrap();
    assert_eq!(answer.status, 431);
    assert_eq!(refused(&bridge, "head-too-large").await, 1.0);
    let line = bridge.says("head-too-large").await;
    assert!(line.contains("forwarded_for=\"192.0.2.7\""), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_head_is_counted() {
    let bridge = bridge()
        .with("http.header_timeout = \"200ms\"")
        .start()
        .await;
    let idle = RawClient::connect(bridge.address()).await;
    let mut slow = RawClient::connect(bridge.address()).await;
    slow.write("POST /webhooks/desk").await;
    assert!(slow.is_closed_within(SOON).await);
    eventually("the request is counted", SOON, || async {
        refused(&bridge, "head-timeout").await == 1.0
    })
    .await;
    let all = bridge.metrics().await.sum("http_refused_total");
    assert_eq!(
        all, 1.0,
        "a connection without a byte is not counted as a request"
    );
    drop(idle);
}
