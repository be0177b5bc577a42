//! One request for each documented status, answered by the real process under its configuration. A
//! raw socket sends them, because a client library would refuse some. The answers in detail are
//! tested in `src/http/tests`, those of a full or failing disk in `disk`.

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::sender::{RawAnswer, RawClient, SECRET, array_of_new, signed_head};

/// Panics unless the refusal is a problem of RFC 9457 that says what to do and reveals no
/// internals.
#[track_caller]
fn check_problem(name: &str, answer: &RawAnswer) {
    let text = String::from_utf8_lossy(&answer.body);
    let content_type = answer.header("content-type");
    assert_eq!(
        content_type,
        Some("application/problem+json"),
        "{name}: {text}"
    );
    let problem = answer.json();
    assert_eq!(problem["status"], answer.status, "{name}: {text}");
    let detail = problem["detail"].as_str().expect(name);
    assert!(detail.len() > 10, "{name}: {text}");
    for internal in ["src/", "sqlite", "panicked", "journal.db", SECRET] {
        assert!(!text.to_lowercase().contains(internal), "{name}: {text}");
    }
}

/// A complete request without a signature.
fn request(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{line} HTTP/1.1\r\nHost: b\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into()
}

/// A complete signed request.
fn signed(body: impl AsRef<[u8]>) -> Vec<u8> {
    [signed_head(body.as_ref()).as_bytes(), body.as_ref()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_gets_its_documented_status() {
    let bridge = BridgeBuilder::without_broker()
        .with("sources.open.signature = \"none\"")
        .with("http = {body_bytes_max = '10KiB', sessions_max = 5, body_timeout = '300ms'}")
        .start()
        .await;
    let open = "POST /webhooks/open";
    let mut of_the_limit = array_of_new("large", 1);
    of_the_limit.resize(10 << 10, b' ');
    let too_large = [&of_the_limit[..], b" "].concat();
    let unfinished = signed(array_of_new("slow", 1));
    let field = format!("x: {}\r\n", "y".repeat(40 << 10));
    for (name, bytes, status) in [
        ("an empty array", signed("[]"), 202),
        ("five sessions", signed(array_of_new("five", 5)), 202),
        ("a body of the maximum size", signed(&of_the_limit), 202),
        ("a malformed body", signed("nonsense"), 202),
        (
            "the same, unsigned",
            request(open, "", "[\n  nonsense]"),
            400,
        ),
        (
            "no signature",
            request("POST /webhooks/deskdirector", "", "[]"),
            401,
        ),
        ("an unknown path", request("POST /nothing", "", "[]"), 404),
        (
            "another method",
            request("PUT /webhooks/open", "", "[]"),
            405,
        ),
        (
            "no end of the body",
            unfinished[..unfinished.len() - 1].to_vec(),
            408,
        ),
        ("a body that is too large", signed(too_large), 413),
        ("six sessions", signed(array_of_new("six", 6)), 413),
        (
            "a compressed body",
            request(open, "Content-Encoding: gzip\r\n", "[]"),
            415,
        ),
        ("a head that is too large", request(open, &field, "[]"), 431),
    ] {
        let mut client = RawClient::connect(bridge.address()).await;
        client.write(bytes).await;
        let answer = client.answer().await.expect(name);
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        if status >= 400 {
            check_problem(name, &answer);
        }
    }
    // Five sessions, one session, and the malformed body.
    assert_eq!(bridge.counter("accepted").await, 7);
}
