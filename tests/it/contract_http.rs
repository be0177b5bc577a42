//! Every row of the contract's table for senders, asked of the real process. A raw socket sends
//! what a client library would be too polite to send.

use std::time::{Duration, Instant};

use futures_util::future::select_all;
use hyper::Method;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::bridge::run::Bridge;
use crate::support::http::{Answer, Client};
use crate::support::sender::{
    PATH, RawAnswer, RawClient, SECRET, array_of, array_of_new, session, sign, signed_head,
};
use crate::support::wait::{SOON, eventually};

/// A bridge without a broker: its answers do not depend on one. `open` takes unsigned webhooks.
fn bridge() -> BridgeBuilder {
    BridgeBuilder::at(&format!("amqp://guest:guest@{}/", free_address()))
        .with("sources.open.signature = \"none\"")
}

/// How many events the bridge has accepted.
async fn accepted(bridge: &Bridge) -> u64 {
    bridge.status().await["counters"]["accepted"]
        .as_u64()
        .unwrap()
}

/// A refusal is a problem of RFC 9457 that says what to do, and nothing of what is inside.
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

/// Writes these bytes to a fresh connection.
async fn writing(bridge: &Bridge, bytes: impl AsRef<[u8]>) -> RawClient {
    let mut client = RawClient::connect(bridge.address()).await;
    client.write(bytes).await;
    client
}

/// The first answer to these bytes.
async fn answer_to(bridge: &Bridge, bytes: impl AsRef<[u8]>) -> RawAnswer {
    writing(bridge, bytes)
        .await
        .answer()
        .await
        .expect("an answer")
}

/// A whole signed request.
fn signed(body: impl AsRef<[u8]>) -> Vec<u8> {
    [signed_head(body.as_ref()).as_bytes(), body.as_ref()].concat()
}

/// A whole request to the source that needs no signature.
fn open(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /webhooks/open HTTP/1.1\r\nHost: b\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authentic_webhook_is_answered_202_with_its_counts_and_problems() {
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
    assert_eq!(accepted(&bridge).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_element_is_valid_if_it_has_a_usable_id_and_a_status() {
    let bridge = bridge().start().await;
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        format!(r#"{{"id":"x","status":"created","deep":{open}{close}}}"#)
    };
    let id = |length: usize| format!(r#"{{"id":"{}","status":"created"}}"#, "i".repeat(length));
    let valid = [
        r#"{"id":"x","status":"created"}"#.to_owned(),
        r#"{"\u0069d":"x","st\u0061tus":""}"#.to_owned(),
        r#"{"id":"x","status":"s","type":7,"pastStatus":{},"creator":[],"report":null}"#.to_owned(),
        r#"{"id":"x","status":"\ud800","n":1e999,"name":"\ud800"}"#.to_owned(),
        r#"{"id":"x","status":"s","type":1,"type":2}"#.to_owned(),
        id(255),
        nested(128),
    ];
    let invalid = [
        r#"{"status":"created"}"#.to_owned(),
        r#"{"id":"x"}"#.to_owned(),
        r#"{"id":7,"status":"created"}"#.to_owned(),
        r#"{"id":"","status":"created"}"#.to_owned(),
        r#"{"id":"x","status":null}"#.to_owned(),
        r#"{"id":"\ud800","status":"created"}"#.to_owned(),
        r#"{"id":"x","id":"x","status":"created"}"#.to_owned(),
        r#"{"id":"x","status":"a","st\u0061tus":"a"}"#.to_owned(),
        "{}".to_owned(),
        "null".to_owned(),
        "\"x\"".to_owned(),
        "[]".to_owned(),
        id(256),
        nested(129),
        nested(100_000),
    ];
    let (first_invalid, all) = (valid.len(), valid.len() + invalid.len());
    let body = format!("[{}]", [&valid[..], &invalid[..]].concat().join(","));
    let answer = bridge.post(body).await.json();
    let found: Vec<_> = answer["problems"].as_array().unwrap().iter().collect();
    let indices: Vec<_> = found
        .iter()
        .map(|problem| problem["index"].as_u64().unwrap())
        .collect();
    assert_eq!(
        indices,
        (first_invalid as u64..all as u64).collect::<Vec<_>>(),
        "{found:#?}"
    );
    assert!(
        found.iter().all(|problem| problem["reason"] == "invalid"),
        "{found:#?}"
    );
    assert_eq!(
        (&answer["accepted"], &answer["dead_lettered"]),
        (&json!(valid.len()), &json!(invalid.len()))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authentic_body_that_is_no_webhook_is_202_and_an_unsigned_one_400() {
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
    let before = accepted(&bridge).await;
    assert_eq!(before, 8);
    let refused = answer_to(&bridge, open("", "[\n  {\"id\": nonsense}]")).await;
    is_raw_problem(&refused, 400);
    let detail = refused.json()["detail"].to_string();
    assert!(
        detail.contains("line 2") && detail.contains("column"),
        "{detail}"
    );
    assert_eq!(accepted(&bridge).await, before, "nothing of it is stored");
    let taken = answer_to(&bridge, open("", r#"[{"id":"1","status":"created"},7]"#)).await;
    assert_eq!(
        (taken.status, &taken.json()["dead_lettered"]),
        (202, &json!(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_with_a_signature_the_answer_is_the_same_401() {
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
        "nothing was parsed"
    );
    assert_eq!(accepted(&bridge).await, 0);
    assert_eq!(bridge.post(&body).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_source_and_path_are_404_another_method_405() {
    let bridge = bridge().start().await;
    let mut client = Client::new(bridge.address());
    for path in [
        "/",
        "/webhooks",
        "/webhooks/",
        "/webhooks/nobody",
        "/metrics",
        "/status",
        "/webhooks/deskdirector//",
    ] {
        is_problem(
            &client.request(Method::POST, path, &[], "[]").await.unwrap(),
            404,
        );
    }
    for method in [
        Method::GET,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
    ] {
        let answer = client.request(method.clone(), PATH, &[], "").await.unwrap();
        is_problem(&answer, 405);
        assert_eq!(answer.header("allow"), Some("POST"), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_413() {
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
        accepted(&bridge).await,
        7,
        "nothing of a refused array is stored"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_408_and_a_slow_head_ends_the_connection() {
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
    assert_eq!(client.read_to_end().await, b"", "closed without a word");
    assert!(
        begin.elapsed() >= Duration::from_millis(290),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(accepted(&bridge).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let bridge = bridge()
        .with("http.header_timeout = \"200ms\"")
        .start()
        .await;
    let mut client = RawClient::connect(bridge.address()).await;
    for number in 0..2 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        client
            .write(signed(array_of_new(&format!("idle-{number}"), 1)))
            .await;
        let answer = client.answer().await.expect("still open");
        assert_eq!((answer.status, answer.header("connection")), (202, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_or_too_large_headers_are_431() {
    let bridge = bridge().start().await;
    assert_eq!(
        answer_to(&bridge, open(&"x: y\r\n".repeat(97), "[]"))
            .await
            .status,
        202
    );
    let large = format!("x: {}\r\n", "y".repeat(17 << 10));
    for headers in ["x: y\r\n".repeat(101), large] {
        let mut client = writing(&bridge, open(&headers, "[]")).await;
        is_raw_problem(&client.answer().await.expect("an answer"), 431);
        assert!(client.is_closed_within(SOON).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_body_is_taken_whatever_its_coding_is_called() {
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
    let line = bridge.says("without a single valid session").await;
    assert!(line.contains("looks like gzip"), "{line}");

    let forged = bridge
        .post_with(&[("content-encoding", "gzip")], &compressed[..])
        .await
        .unwrap();
    is_problem(&forged, 401);
    assert_eq!(accepted(&bridge).await, 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoded_unsigned_body_is_415_before_it_is_read() {
    let bridge = bridge().start().await;
    for encoding in ["gzip", "br", "deflate", "identity, gzip", "UTF-8", "none"] {
        let headers = format!("Content-Encoding: {encoding}\r\nX: ");
        let head = open(&headers, "").replace("X: Content-Length: 0", "Content-Length: 100000");
        is_raw_problem(&answer_to(&bridge, head).await, 415);
    }
    assert_eq!(
        answer_to(&bridge, open("Content-Encoding: identity\r\n", "[]"))
            .await
            .status,
        202
    );
}

/// Keeps everybody else from writing the journal until it is told to stop.
fn occupied(bridge: &Bridge) -> rusqlite::Connection {
    let database = rusqlite::Connection::open(bridge.journal_dir().join("journal.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    database
}

/// Posts it from a task of its own.
fn posting(bridge: &Bridge, body: Vec<u8>) -> JoinHandle<RawAnswer> {
    let address = bridge.address();
    tokio::spawn(async move {
        let mut client = RawClient::connect(address).await;
        client.write(signed(body)).await;
        client.answer().await.expect("an answer")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_memory_for_a_body_in_time_is_503_with_retry_after() {
    let bridge = bridge()
        .with("http.body_bytes_max = \"64KiB\"\nhttp.buffered_bytes_max = \"64KiB\"\nhttp.body_timeout = \"500ms\"")
        .start()
        .await;
    let mut large = array_of_new("large", 1);
    large.resize(60 << 10, b' ');
    let held_up = occupied(&bridge);
    // Not both fit, whichever comes first.
    let mut small = array_of_new("small", 1);
    small.resize(8 << 10, b' ');
    let two = [large.clone(), small].map(|body| posting(&bridge, body));
    let (refused, _, other) = select_all(two).await;
    let refused = refused.unwrap();
    is_raw_problem(&refused, 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    held_up.execute_batch("ROLLBACK").unwrap();
    let held = other.into_iter().next().unwrap().await.unwrap();
    assert_eq!(held.status, 202, "the other one had its place");
    assert_eq!(posting(&bridge, large).await.unwrap().status, 202);
    assert_eq!(accepted(&bridge).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_written_is_503_until_it_can() {
    let bridge = bridge().start().await;
    let held_up = occupied(&bridge);
    let refused = bridge.post(array_of_new("refused", 1)).await;
    is_problem(&refused, 503);
    assert_eq!(refused.header("retry-after"), Some("10"));
    assert!(!bridge.ready().await, "/readyz says so too");
    held_up.execute_batch("ROLLBACK").unwrap();
    eventually("webhooks are accepted again", SOON, || async {
        bridge.post(array_of_new("accepted", 1)).await.status == 202
    })
    .await;
    assert!(bridge.ready().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_can_be_read_by_somebody_who_sends_everything_first() {
    let bridge = bridge().start().await;
    let body = "x".repeat(5 << 20);
    let unsigned = format!(
        "POST {PATH} HTTP/1.1\r\nHost: b\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = writing(&bridge, unsigned).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = client.answer().await.expect("an answer");
    is_raw_problem(&answer, 401);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(client.is_closed_within(SOON).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_refused_body_is_awaited_for_five_seconds_at_most() {
    let bridge = bridge().start().await;
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: b\r\nContent-Length: 1000000\r\n\r\nx");
    let mut client = writing(&bridge, head).await;
    is_raw_problem(&client.answer().await.expect("an answer at once"), 401);
    assert!(client.is_closed_within(Duration::from_secs(8)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_ambiguous_length_is_answered_once_at_most_and_hides_no_other() {
    let bridge = bridge().start().await;
    let hidden = open("", r#"[{"id":"smuggled","status":"created"}]"#);
    for framing in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
        "Transfer-Encoding: chunked, identity\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
    ] {
        let request = format!("POST /webhooks/open HTTP/1.1\r\nHost: b\r\n{framing}{hidden}");
        let mut client = writing(&bridge, request).await;
        let all = client.read_to_end().await;
        let all = String::from_utf8_lossy(&all);
        let answers = all.matches("HTTP/1.1 2").count() + all.matches("HTTP/1.1 4").count();
        assert!(answers <= 1, "{framing:?}: {all}");
    }
    assert_eq!(accepted(&bridge).await, 0, "nothing smuggled was held");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_1_1_gets_400_or_nothing() {
    let bridge = bridge().start().await;
    for bytes in [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 a TLS hello",
        b"AMQP\0\0\x09\x01",
        b"SSH-2.0-OpenSSH_9.9\r\n",
    ] {
        let mut client = writing(&bridge, bytes).await;
        client.finish().await;
        let all = client.read_to_end().await;
        assert!(
            all.is_empty() || all.starts_with(b"HTTP/1.1 400"),
            "{bytes:?}"
        );
    }
    assert_eq!(bridge.post("[]").await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_at_once_on_one_connection_are_answered_in_order() {
    let bridge = bridge().start().await;
    let two = array_of_new("two", 2);
    let all = [
        signed("[]"),
        signed(&two),
        open("", "nonsense").into_bytes(),
        signed(array_of_new("one", 1)),
    ];
    let mut client = writing(&bridge, all.concat()).await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        let answer = client.answer().await.expect("an answer");
        answers.push((answer.status, answer.json()["accepted"].as_u64()));
    }
    assert_eq!(
        answers,
        [(202, Some(0)), (202, Some(2)), (400, None), (202, Some(1))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn at_connections_max_the_longest_silent_one_gives_way() {
    let bridge = bridge().with("http.connections_max = 3").start().await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(writing(&bridge, "POST /webhooks").await);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(answer_to(&bridge, signed("[]")).await.status, 202);
    assert!(
        silent[0].is_closed_within(SOON).await,
        "the first of them went"
    );
    let rest = "/open HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n[]";
    silent[2].write(rest).await;
    assert_eq!(
        silent[2]
            .answer()
            .await
            .expect("the last of them did not")
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
        "a flood keeps nobody out"
    );
}
