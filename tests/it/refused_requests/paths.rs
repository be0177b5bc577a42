//! Requests for a path or a source that does not exist.

use super::{answer_to, bridge, refused, request};
use crate::support::sender::RawClient;

#[tokio::test(flavor = "multi_thread")]
async fn served_paths_are_named_to_the_operator_only() {
    let bridge = bridge().start().await;
    let served = "webhooks: `/webhooks/deskdirector`; ";
    for (line, status, reason, hint) in [
        ("POST /webhooks/deskdirektor", 404, "unknown-source", served),
        ("POST /webhook/deskdirector", 404, "unknown-path", served),
        ("GET /webhooks/deskdirector", 405, "method", "/readyz"),
    ] {
        let headers = "X-Forwarded-For: 192.0.2.7\r\n";
        let answer = answer_to(&bridge, request(line, headers)).await.unwrap();
        assert_eq!(answer.status, status, "{line}");
        let body = String::from_utf8_lossy(&answer.body);
        assert!(!body.contains("deskdirector"), "{body}");
        let said = bridge.says(&format!("reason=\"{reason}\"")).await;
        for part in ["WARN", hint, line, "192.0.2.7", "127.0.0.1:"] {
            assert!(said.contains(part), "no `{part}` in {said}");
        }
        assert_eq!(refused(&bridge, reason).await, 1.0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_counted_and_logged_once_a_second() {
    let bridge = bridge().start().await;
    let seven = request("POST /nothing", "").repeat(7);
    let mut client = RawClient::connect(bridge.address()).await;
    client.write(seven + "hello\r\n\r\n").await;
    for _ in 0..8 {
        client.answer().await.expect("an answer each");
    }
    bridge.says("malformed-head").await;
    assert_eq!(refused(&bridge, "unknown-path").await, 7.0);
    assert_eq!(refused(&bridge, "malformed-head").await, 1.0);
    let log = bridge.stderr();
    let lines = log.lines().filter(|line| line.contains("unknown-path"));
    assert!(lines.count() < 5, "{log}");
}
