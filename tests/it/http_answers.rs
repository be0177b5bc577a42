//! Every documented answer to senders, requested from the real process. A raw socket sends requests
//! that a client library would refuse to send.

use std::time::{Duration, Instant};

use futures_util::future::select_all;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::http::Answer;
use crate::support::sender::{
    PATH, RawAnswer, RawClient, SECRET, array_of, array_of_new, session, sign, signed_head,
};
use crate::support::wait::SOON;

/// A bridge without a broker: these answers do not depend on one. The source `open` accepts
/// unsigned webhooks.
fn bridge() -> BridgeBuilder {
    BridgeBuilder::without_broker().with("sources.open.signature = \"none\"")
}

/// Panics unless the refusal is a problem of RFC 9457 that says what to do and reveals no
/// internals.
#[track_caller]
fn check_problem(status: u16, content_type: Option<&str>, body: &[u8], expected: u16) {
    let text = String::from_utf8_lossy(body);
    assert_eq!(status, expected, "{text}");
    assert_eq!(content_type, Some("application/problem+json"), "{text}");
    let problem: serde_json::Value = serde_json::from_slice(body).expect("a problem is JSON");
    assert_eq!(problem["status"], expected, "{text}");
    assert!(
        problem["type"].is_string() && problem["title"].is_string(),
        "{text}"
    );
    assert!(problem["detail"].as_str().unwrap().len() > 10, "{text}");
    for internal in ["src/", "sqlite", "panicked", "journal.db", SECRET] {
        assert!(!text.to_lowercase().contains(internal), "{text}");
    }
}

#[track_caller]
fn is_problem(answer: &Answer, expected: u16) {
    check_problem(
        answer.status,
        answer.header("content-type"),
        &answer.body,
        expected,
    );
}

#[track_caller]
fn is_raw_problem(answer: &RawAnswer, expected: u16) {
    check_problem(
        answer.status,
        answer.header("content-type"),
        &answer.body,
        expected,
    );
}

/// Sends these bytes on a new connection.
async fn writing(bridge: &Bridge, bytes: impl AsRef<[u8]>) -> RawClient {
    let mut client = RawClient::connect(bridge.address()).await;
    client.write(bytes).await;
    client
}

/// The first answer to these bytes on a new connection.
async fn answer_to(bridge: &Bridge, bytes: impl AsRef<[u8]>) -> RawAnswer {
    writing(bridge, bytes)
        .await
        .answer()
        .await
        .expect("an answer")
}

/// A complete signed request.
fn signed(body: impl AsRef<[u8]>) -> Vec<u8> {
    [signed_head(body.as_ref()).as_bytes(), body.as_ref()].concat()
}

/// A complete request to the source that needs no signature.
fn open(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /webhooks/open HTTP/1.1\r\nHost: b\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn authentic_webhook_is_202_with_counts_and_problems() {
    let bridge = bridge().start().await;
    let good = session("1", "created", json!({}));
    let answer = bridge
        .post(array_of(&[good.clone(), json!({"id": "2"})]))
        .await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (202, Some("application/json"))
    );
    let mut body = answer.json();
    let id: uuid::Uuid = body["webhook_id"].take().as_str().unwrap().parse().unwrap();
    assert!(!id.is_nil());
    let expected = json!({
        "webhook_id": null,
        "accepted": 1,
        "dead_lettered": 1,
        "problems": [{"index": 1, "reason": "invalid", "detail": "missing field `status`"}],
    });
    assert_eq!(body, expected);
    let bare = bridge.post(good.to_string()).await;
    assert_eq!(bare.json()["accepted"], 1, "an object is an array of one");
    assert_eq!(bridge.post("[]").await.json()["accepted"], 0);
    assert_eq!(bridge.counter("accepted").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_body_is_202_signed_and_400_unsigned() {
    let bridge = bridge().start().await;
    for body in [
        "[{\"id\":]".as_bytes(),
        b"",
        b"null",
        b"12",
        b"\"[]\"",
        b"[] []",
        b"[\"\xff\"]",
        b"\xfe\xff\0[",
    ] {
        let answer = bridge.post(body).await;
        assert_eq!(answer.status, 202, "{body:?}: {}", answer.text());
        let receipt = answer.json();
        assert_eq!(
            (&receipt["accepted"], &receipt["dead_lettered"]),
            (&json!(0), &json!(1))
        );
        assert_eq!(receipt["problems"][0]["reason"], "malformed");
    }
    let before = bridge.counter("accepted").await;
    assert_eq!(before, 8);
    let refused = answer_to(&bridge, open("", "[\n  {\"id\": nonsense}]")).await;
    is_raw_problem(&refused, 400);
    let detail = refused.json()["detail"].to_string();
    assert!(
        detail.contains("line 2") && detail.contains("column"),
        "{detail}"
    );
    assert_eq!(
        bridge.counter("accepted").await,
        before,
        "no event of it is stored"
    );
    let taken = answer_to(&bridge, open("", r#"[{"id":"1","status":"created"},7]"#)).await;
    assert_eq!(
        (taken.status, &taken.json()["dead_lettered"]),
        (202, &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signature_error_is_the_same_401() {
    let bridge = bridge().start().await;
    let body = array_of_new("s", 1);
    let refused = bridge.post_with(&[], &body).await.unwrap();
    is_problem(&refused, 401);
    let right = sign(SECRET, &body);
    for headers in [
        vec![("x-dd-signature", "sha256=zz")],
        vec![("x-dd-signature", &right[..70])],
        vec![("x-dd-signature", &right), ("x-dd-signature", &right)],
    ] {
        let answer = bridge.post_with(&headers, &body).await.unwrap();
        assert_eq!(
            (answer.status, &answer.body),
            (401, &refused.body),
            "{headers:?}"
        );
    }
    let nonsense = bridge.post_with(&[], "nonsense").await.unwrap();
    assert_eq!(
        (nonsense.status, nonsense.body),
        (401, refused.body),
        "no event was stored"
    );
    assert_eq!(bridge.counter("accepted").await, 0);
    assert_eq!(bridge.post(&body).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn body_over_the_limit_is_413() {
    let bridge = bridge()
        .with("http.body_bytes_max = \"10KiB\"\nhttp.sessions_max = 5")
        .start()
        .await;
    let body = |length: usize| {
        let mut body = array_of_new("s", 1);
        body.resize(length, b' ');
        body
    };
    let chunked = |body: &[u8]| {
        let length = format!("Content-Length: {}", body.len());
        let head = signed_head(body).replace(&length, "Transfer-Encoding: chunked");
        let size = format!("{:x}\r\n", body.len());
        [head.as_bytes(), size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
    };
    let limit = 10 << 10;
    assert_eq!(answer_to(&bridge, signed(body(limit))).await.status, 202);
    assert_eq!(answer_to(&bridge, chunked(&body(limit))).await.status, 202);
    is_raw_problem(&answer_to(&bridge, signed(body(limit + 1))).await, 413);
    is_raw_problem(&answer_to(&bridge, chunked(&body(limit + 1))).await, 413);

    assert_eq!(bridge.post(array_of_new("five", 5)).await.status, 202);
    let six = bridge.post(array_of_new("six", 6)).await;
    is_problem(&six, 413);
    assert!(six.text().contains("at most 5"), "{}", six.text());
    assert_eq!(
        bridge.counter("accepted").await,
        7,
        "no event of a refused array is stored"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_body_is_408_and_slow_head_is_closed() {
    let bridge = bridge()
        .with("http.header_timeout = \"300ms\"\nhttp.body_timeout = \"300ms\"")
        .start()
        .await;
    let request = signed(array_of_new("slow", 1));
    let begin = Instant::now();
    let mut client = writing(&bridge, &request[..request.len() - 1]).await;
    let answer = client.answer().await.expect("an answer");
    is_raw_problem(&answer, 408);
    assert!(
        begin.elapsed() >= Duration::from_millis(290),
        "{:?}",
        begin.elapsed()
    );
    assert!(client.is_closed_within(SOON).await);

    let begin = Instant::now();
    let mut client = writing(&bridge, &request[..40]).await;
    assert_eq!(client.read_to_end().await, b"", "closed without an answer");
    assert!(
        begin.elapsed() >= Duration::from_millis(290),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(bridge.counter("accepted").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_body_ignores_content_encoding() {
    let bridge = bridge().start().await;
    let post = async |coding: &str, body: &[u8]| {
        let signature = sign(SECRET, body);
        let headers = [
            ("x-dd-signature", &*signature),
            ("content-encoding", coding),
        ];
        bridge.post_with(&headers, body.to_vec()).await.unwrap()
    };
    for coding in ["UTF-8", "none", "gzip", "br, gzip", "*", "x y"] {
        let answer = post(coding, &array_of_new(coding, 2)).await;
        assert_eq!(answer.status, 202, "{coding}");
        let counts = answer.json();
        assert_eq!(counts["accepted"], 2, "{coding}");
        assert_eq!(counts["dead_lettered"], 0, "{coding}");
    }
    let compressed = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x8b\x8e\x05\0";
    let answer = post("gzip", compressed).await;
    assert_eq!(answer.status, 202);
    let problem = answer.json()["problems"][0].clone();
    assert_eq!(problem["reason"], "malformed");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("content coding gzip"), "{detail}");
    let line = bridge.says("has no valid session").await;
    assert!(line.contains("looks like gzip"), "{line}");

    let forged = bridge
        .post_with(&[("content-encoding", "gzip")], &compressed[..])
        .await
        .unwrap();
    is_problem(&forged, 401);
    assert_eq!(bridge.counter("accepted").await, 13);
}

/// Locks the journal for writing until it is rolled back or dropped.
fn occupied(bridge: &Bridge) -> rusqlite::Connection {
    let database = bridge.database();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    database
}

/// Posts the body in another task.
fn posting(bridge: &Bridge, body: Vec<u8>) -> JoinHandle<RawAnswer> {
    let address = bridge.address();
    tokio::spawn(async move {
        let mut client = RawClient::connect(address).await;
        client.write(signed(body)).await;
        client.answer().await.expect("an answer")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_body_memory_is_503_with_retry_after() {
    let bridge = bridge()
        .with("http.body_bytes_max = \"64KiB\"\nhttp.buffered_bytes_max = \"64KiB\"\nhttp.body_timeout = \"500ms\"")
        .start()
        .await;
    let mut large = array_of_new("large", 1);
    large.resize(60 << 10, b' ');
    let held_up = occupied(&bridge);
    // The two bodies do not fit into memory together, whichever comes first.
    let mut small = array_of_new("small", 1);
    small.resize(8 << 10, b' ');
    let two = [large.clone(), small].map(|body| posting(&bridge, body));
    let (refused, _, other) = select_all(two).await;
    let refused = refused.unwrap();
    is_raw_problem(&refused, 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    held_up.execute_batch("ROLLBACK").unwrap();
    let held = other.into_iter().next().unwrap().await.unwrap();
    assert_eq!(held.status, 202, "the other body had memory");
    assert_eq!(posting(&bridge, large).await.unwrap().status, 202);
    assert_eq!(bridge.counter("accepted").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_body_is_awaited_for_five_seconds() {
    let bridge = bridge().start().await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: b\r\nContent-Length: 1000000\r\n\r\nx");
    let mut client = writing(&bridge, head).await;
    is_raw_problem(&client.answer().await.expect("an answer at once"), 401);
    assert!(client.is_closed_within(Duration::from_secs(8)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_connections_max_the_longest_silent_is_evicted() {
    let bridge = bridge().with("http.connections_max = 3").start().await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(writing(&bridge, "POST /webhooks").await);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(answer_to(&bridge, signed("[]")).await.status, 202);
    assert!(
        silent[0].is_closed_within(SOON).await,
        "the longest silent connection was evicted"
    );
    let rest = "/open HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n[]";
    silent[2].write(rest).await;
    assert_eq!(
        silent[2]
            .answer()
            .await
            .expect("the last connection was not evicted")
            .status,
        202
    );

    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(TcpStream::connect(bridge.address()).await.unwrap());
    }
    assert_eq!(
        bridge.post("[]").await.status,
        202,
        "a flood of connections does not keep others out"
    );
}
