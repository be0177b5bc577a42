//! Request heads that cannot be parsed or are incomplete.

use super::{answer_to, bridge, refused, request};
use crate::support::sender::RawClient;
use crate::support::wait::{SOON, eventually};

/// The first record of a TLS 1.2 handshake, up to the random bytes.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03random bytes";

const PROXY_V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x1f\x90\x1f\x90";

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_are_counted_and_named() {
    for (bytes, reason, words) in [
        (
            &b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 8080\r\n"[..],
            "proxy-protocol",
            "this is the PROXY protocol;",
        ),
        (PROXY_V2, "proxy-protocol", "PROXY protocol (version 2)"),
        (CLIENT_HELLO, "tls", "looks like TLS"),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "http2",
            "this is HTTP/2",
        ),
        (b"AMQP\0\0\x09\x01", "malformed-head", "this is AMQP"),
        (b"hello\r\n\r\n", "malformed-head", "malformed-head"),
    ] {
        let bridge = bridge().start().await;
        let mut client = RawClient::connect(bridge.address()).await;
        client.write(bytes).await;
        assert!(client.is_closed_within(SOON).await, "{words}");
        let line = bridge.says(words).await;
        assert!(
            line.contains("WARN") && line.contains("127.0.0.1:"),
            "{line}"
        );
        assert_eq!(refused(&bridge, reason).await, 1.0, "{words}");
        let all = bridge.metrics().await.sum("http_refused_total");
        assert_eq!(all, 1.0, "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_head_is_logged_with_its_proxy() {
    let bridge = bridge().start().await;
    let many = "x: y\r\n".repeat(200);
    let large = format!("x: {}\r\n", "y".repeat(40 << 10));
    for (number, headers) in [(1.0, many), (2.0, large)] {
        let headers = format!("X-Forwarded-For: 192.0.2.7\r\n{headers}");
        let request = request("POST /webhooks/deskdirector", &headers);
        let answer = answer_to(&bridge, request).await.unwrap();
        assert_eq!(answer.status, 431);
        assert_eq!(refused(&bridge, "head-too-large").await, number);
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn foreign_text_is_escaped_in_the_log() {
    let bridge = bridge().start().await;
    let odd = "\u{1b}[2J\u{202e}\u{2028}\u{9b}1m";
    let headers = format!("X-Forwarded-For: {odd}\r\n");
    answer_to(&bridge, request("POST /nowhere", &headers)).await;
    let path = format!("POST /webhooks/{odd}");
    answer_to(&bridge, request(&path, "")).await;
    answer_to(&bridge, request("POST /webhooks/%1b%5b2Ja", "")).await;
    bridge.says("unknown-source").await;
    bridge.says("malformed-head").await;
    let log = bridge.stderr();
    let is_odd =
        |char: char| char.is_control() && char != '\n' || ['\u{202e}', '\u{2028}'].contains(&char);
    assert!(!log.contains(is_odd), "{log:?}");
}
