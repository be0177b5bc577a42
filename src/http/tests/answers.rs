//! Every documented answer of the public listener, over a socket.

use std::time::Duration;

use super::support::*;
use crate::http::sources::Source;
use crate::journal::WriteError;
use crate::webhook::signature::sign;

/// Asserts that a refusal is a problem document with this status, which says what to do and reveals
/// no internals.
fn check_problem(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{answer:?}");
    assert!(
        problem["title"].is_string() && problem["type"].is_string(),
        "{answer:?}"
    );
    assert!(problem["detail"].as_str().unwrap().len() > 10, "{answer:?}");
    for internal in ["src/", "sqlite", "panicked", "journal.db", SECRET] {
        let text = answer.body.to_lowercase();
        assert!(!text.contains(internal), "{answer:?}");
    }
}

#[tokio::test]
async fn authentic_webhook_is_stored_and_answered_202() {
    let bridge = Bridge::start().await;
    let answer = bridge
        .ask(&signed(&format!("[{},{{\"id\":\"2\"}}]", session("1"))))
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(
        (body["accepted"].as_u64(), body["dead_lettered"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(body["problems"][0]["index"], 1);
    assert_eq!(body["problems"][0]["reason"], "invalid");
    assert!(
        body["problems"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("status"),
        "{body}"
    );
    let held = bridge.shelf.webhooks.lock().unwrap();
    assert_eq!(body["webhook_id"], held[0].envelope.webhook_id.to_string());
    assert_eq!(held[0].events.len(), 2);
}

#[tokio::test]
async fn empty_array_is_202_with_zero_counts() {
    let bridge = Bridge::start().await;
    for empty in ["[]", " [ \n ] \n", "\u{feff}[]"] {
        let answer = bridge.ask(&signed(empty)).await;
        assert_eq!(answer.status, 202);
        let mut body = answer.json();
        body["webhook_id"].take();
        let expected = r#"{"accepted":0,"dead_lettered":0,"problems":[],"webhook_id":null}"#;
        assert_eq!(body.to_string(), expected);
    }
    assert_eq!(bridge.held(), 0);
}

#[tokio::test]
async fn authentic_malformed_body_is_stored_whole() {
    let bridge = Bridge::start().await;
    for body in ["[{]", "12", "", "\"x\"", "null", "[] []"] {
        let answer = bridge.ask(&signed(body)).await;
        assert_eq!(answer.status, 202, "{body}: {answer:?}");
        let json = answer.json();
        assert_eq!(
            (json["accepted"].as_u64(), json["dead_lettered"].as_u64()),
            (Some(0), Some(1))
        );
        assert_eq!(json["problems"][0]["reason"], "malformed");
    }
    let held = bridge.shelf.webhooks.lock().unwrap();
    assert_eq!(held[0].events[0].body, "[{]");
}

#[tokio::test]
async fn unsigned_malformed_body_is_400_with_position() {
    let bridge = Bridge::start().await;
    let answer = bridge.ask(&post("open", &[], "[\n{]")).await;
    check_problem(&answer, 400);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("line 2") && detail.contains("column"),
        "{detail}"
    );
    assert_eq!(bridge.held(), 0);
    let some = format!("[{},7]", session("1"));
    let taken = bridge.ask(&post("open", &[], &some)).await;
    assert_eq!(
        (taken.status, &taken.json()["dead_lettered"]),
        (202, &1.into())
    );
}

#[tokio::test]
async fn every_invalid_signature_is_401_and_stores_nothing() {
    let bridge = Bridge::start().await;
    let body = session("1");
    let right = sign(SECRET.as_bytes(), body.as_bytes());
    let wrong = sign(b"a secret of somebody else", body.as_bytes());
    let name = "x-dd-signature";
    let mut bodies = Vec::new();
    for headers in [
        vec![],
        vec![(name, "")],
        vec![(name, &*wrong)],
        vec![(name, &*right), (name, &*right)],
        vec![(name, &right[7..])],
        vec![(name, "sha256=zz")],
        vec![(name, &right[..right.len() - 1])],
    ] {
        let answer = bridge.ask(&post("acme", &headers, &body)).await;
        check_problem(&answer, 401);
        bodies.push(answer.body);
    }
    let other = bridge.ask(&post("acme", &[(name, &right)], "[]")).await;
    check_problem(&other, 401);
    // A sender without a valid signature is not told what is wrong with the body. The same JSON in
    // other bytes is another body.
    for body in [
        "no JSON",
        "[",
        "\"a text\"",
        "[{}]",
        &format!("{body}\n"),
        &format!("\u{feff}{body}"),
        &body.replace(',', ", "),
        &body.replace("id", "\\u0069d"),
    ] {
        let answer = bridge.ask(&post("acme", &[(name, &right)], body)).await;
        check_problem(&answer, 401);
        bodies.push(answer.body);
    }
    assert!(bodies.iter().all(|body| *body == other.body), "{bodies:?}");
    assert_eq!(bridge.held(), 0);
    assert_eq!(
        bridge
            .ask(&post("acme", &[(name, &right)], &body))
            .await
            .status,
        202
    );
}

#[tokio::test]
async fn unknown_sources_and_paths_are_404() {
    let bridge = Bridge::start().await;
    for path in [
        "/webhooks/nobody",
        "/webhooks/acme//",
        "/webhooks/",
        "/",
        "/metrics",
        "/webhooks/%ff",
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: b\r\ncontent-length: 0\r\n\r\n");
        check_problem(&bridge.ask(request.as_bytes()).await, 404);
    }
}

#[tokio::test]
async fn wrong_method_is_405_with_allow() {
    let bridge = Bridge::start().await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let request = format!("{method} /webhooks/acme HTTP/1.1\r\nhost: b\r\n\r\n");
        let answer = bridge.ask(request.as_bytes()).await;
        check_problem(&answer, 405);
        assert_eq!(answer.header("allow"), Some("POST"));
    }
}

#[tokio::test]
async fn load_balancer_learns_whether_webhooks_are_accepted() {
    let bridge = Bridge::start().await;
    let ask = async |method: &str| {
        let request = format!("{method} /healthz HTTP/1.1\r\nhost: b\r\n\r\n");
        bridge.ask(request.as_bytes()).await.status
    };
    assert_eq!([ask("GET").await, ask("PUT").await], [200, 404]);
    *bridge.shelf.refusal.lock().unwrap() = Some(WriteError::DiskFull);
    assert_eq!(ask("GET").await, 503);
}

#[tokio::test]
async fn body_one_byte_over_the_limit_is_413() {
    let bridge = Bridge::tuned(|tuning| tuning.http.body_bytes_max = 1000).await;
    let body = |length: usize| {
        format!(
            "{}{}",
            session("1"),
            " ".repeat(length - session("1").len())
        )
    };
    let chunked = |body: &str| {
        let signature = sign(SECRET.as_bytes(), body.as_bytes());
        let headers = [
            ("x-dd-signature", &*signature),
            ("transfer-encoding", "chunked"),
        ];
        let mut request = head("acme", &headers);
        request.extend(format!("\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes());
        request
    };
    assert_eq!(bridge.ask(&signed(&body(1000))).await.status, 202);
    assert_eq!(bridge.ask(&chunked(&body(1000))).await.status, 202);
    check_problem(&bridge.ask(&signed(&body(1001))).await, 413);
    check_problem(&bridge.ask(&chunked(&body(1001))).await, 413);
    assert_eq!(bridge.held(), 2);
}

#[tokio::test]
async fn excess_sessions_are_413_and_none_is_stored() {
    let bridge = Bridge::tuned(|tuning| tuning.http.sessions_max = 3).await;
    let sessions = |count: usize| format!("[{}]", vec![session("1"); count].join(","));
    assert_eq!(bridge.ask(&signed(&sessions(3))).await.status, 202);
    let answer = bridge.ask(&signed(&sessions(4))).await;
    check_problem(&answer, 413);
    assert!(answer.body.contains("at most 3"), "{answer:?}");
    assert_eq!(bridge.held(), 3);
}

#[tokio::test]
async fn slow_body_is_408() {
    let bridge =
        Bridge::tuned(|tuning| tuning.http.body_timeout = Duration::from_millis(200)).await;
    let mut client = bridge.connect().await;
    let request = signed(&session("1"));
    client.send(&request[..request.len() - 1]).await;
    let answer = client.answer().await;
    check_problem(&answer, 408);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(bridge.held(), 0);
}

#[tokio::test]
async fn excessive_headers_are_431() {
    let bridge = Bridge::start().await;
    let fields = |count: usize| "x: y\r\n".repeat(count);
    let large = |length: usize| format!("x: {}\r\n", "y".repeat(length));
    let request = |extra: String| {
        let mut request = head("open", &[]);
        request.extend(format!("{extra}content-length: 2\r\n\r\n[]").into_bytes());
        request
    };
    assert_eq!(bridge.ask(&request(fields(98))).await.status, 202);
    assert_eq!(bridge.ask(&request(large(15 << 10))).await.status, 202);
    for refused in [
        fields(99),
        fields(5000),
        large(16 << 10),
        large(30_000),
        large(1 << 20),
    ] {
        let mut client = bridge.connect().await;
        client.send(&request(refused)).await;
        check_problem(&client.answer().await, 431);
        assert_eq!(client.rest().await, "");
    }
}

#[tokio::test]
async fn encoded_unsigned_body_is_415_before_reading() {
    let bridge = Bridge::start().await;
    let many = "gzip, ".repeat(9) + "gzip";
    for encoding in [
        "gzip",
        "GZIP",
        "br",
        "zstd",
        "*",
        "x",
        "identity, gzip",
        &many,
    ] {
        let mut client = bridge.connect().await;
        let mut request = head("open", &[("content-encoding", encoding)]);
        // Possibly ten gigabytes when unpacked; the bridge answers before the first byte.
        request.extend(b"content-length: 10000000\r\n\r\n");
        client.send(&request).await;
        let answer = client.answer().await;
        check_problem(&answer, 415);
        assert_eq!(answer.header("connection"), Some("close"), "{encoding}");
    }
    for encoding in ["identity", "Identity", ""] {
        let request = post("open", &[("content-encoding", encoding)], "[]");
        assert_eq!(bridge.ask(&request).await.status, 202, "{encoding}");
    }
}

#[tokio::test]
async fn signed_body_ignores_its_content_encoding() {
    let bridge = Bridge::start().await;
    let post = |coding: &str, body: &str| {
        let signature = sign(SECRET.as_bytes(), body.as_bytes());
        let headers = [
            ("x-dd-signature", &*signature),
            ("content-encoding", coding),
        ];
        post("acme", &headers, body)
    };
    for coding in ["gzip", "UTF-8", "none", "identity, br"] {
        let answer = bridge.ask(&post(coding, &session(coding))).await;
        assert_eq!(
            (answer.status, &answer.json()["accepted"]),
            (202, &1.into())
        );
        let answer = bridge.ask(&post(coding, "packed")).await;
        assert_eq!(
            (answer.status, &answer.json()["accepted"]),
            (202, &0.into())
        );
        let webhooks = bridge.shelf.webhooks.lock().unwrap();
        let last = webhooks.last().unwrap();
        let named = coding.replace("identity, ", "");
        let begin = format!("sent with the content coding {named}: ");
        assert!(last.malformed().unwrap().detail.starts_with(&begin));
        assert_eq!(&*last.events[0].body, b"packed");
    }
    let forged = super::support::post("acme", &[("content-encoding", "gzip")], "packed");
    check_problem(&bridge.ask(&forged).await, 401);
    for odd in ["\u{202e}", "x\u{7f}", &"x".repeat(65)] {
        let answer = bridge.ask(&post(odd, "packed")).await;
        assert!([202, 400].contains(&answer.status), "{answer:?}");
        assert!(!answer.body.contains(odd), "{answer:?}");
    }
}

#[tokio::test]
async fn refusing_journal_is_503_with_retry_after() {
    let bridge = Bridge::start().await;
    let request = signed(&session("1"));
    for error in [
        WriteError::BacklogFull,
        WriteError::DiskFull,
        WriteError::DiskFailing,
    ] {
        bridge.shelf.disk.send_replace(Disk::Fails(error.clone()));
        let late = bridge.ask(&request).await;
        bridge.shelf.disk.send_replace(Disk::Writes);
        *bridge.shelf.refusal.lock().unwrap() = Some(error);
        let early = bridge.ask(&request).await;
        *bridge.shelf.refusal.lock().unwrap() = None;
        for answer in [late, early] {
            check_problem(&answer, 503);
            assert_eq!(answer.header("retry-after"), Some("10"));
        }
    }
    assert_eq!(bridge.held(), 0);
    assert_eq!(bridge.ask(&request).await.status, 202);
}

#[tokio::test]
async fn hanging_disk_is_503_after_the_deadline() {
    let bridge = Bridge::tuned(|tuning| tuning.append_timeout = Duration::from_millis(200)).await;
    bridge.shelf.disk.send_replace(Disk::Hangs);
    check_problem(&bridge.ask(&signed(&session("1"))).await, 503);
    bridge.shelf.disk.send_replace(Disk::Writes);
    // It may be stored all the same.
    eventually(|| bridge.held() == 1).await;
}

#[tokio::test]
async fn panic_is_500_for_its_request_only() {
    let bridge = Bridge::start().await;
    bridge.shelf.disk.send_replace(Disk::Panics);
    check_problem(&bridge.ask(&signed(&session("1"))).await, 500);
    bridge.shelf.disk.send_replace(Disk::Writes);
    assert_eq!(bridge.ask(&signed(&session("1"))).await.status, 202);
}

#[tokio::test]
async fn new_secret_applies_to_the_next_request() {
    let bridge = Bridge::start().await;
    bridge.sources.replace([acme("another secret of acme")]);
    assert_eq!(bridge.ask(&signed(&session("1"))).await.status, 401);
    assert_eq!(bridge.ask(&post("open", &[], "[]")).await.status, 404);
    bridge.sources.replace([acme(SECRET)]);
    assert_eq!(bridge.ask(&signed(&session("1"))).await.status, 202);
}

#[tokio::test]
async fn valid_trace_context_is_kept() {
    let bridge = Bridge::start().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let long = "x".repeat(600);
    let of_parent = ("traceparent", parent);
    for (headers, expected) in [
        (&[][..], (None, None)),
        (&[of_parent], (Some(parent), None)),
        (
            &[of_parent, ("tracestate", "a=1"), ("tracestate", "b=2")],
            (Some(parent), Some("a=1,b=2")),
        ),
        (&[("tracestate", "a=1")], (None, None)),
        (&[("traceparent", "caf\u{e9}")], (None, None)),
        (&[("traceparent", &*long)], (None, None)),
        (&[of_parent, ("tracestate", &*long)], (Some(parent), None)),
    ] {
        bridge.ask(&post("open", headers, "[]")).await;
        let webhooks = bridge.shelf.webhooks.lock().unwrap();
        let envelope = &webhooks.last().unwrap().envelope;
        let kept = (
            envelope.traceparent.as_deref(),
            envelope.tracestate.as_deref(),
        );
        assert_eq!(kept, expected, "{headers:?}");
    }
}

#[tokio::test]
async fn trailing_slash_and_case_are_ignored() {
    let bridge = Bridge::start().await;
    let signature = sign(SECRET.as_bytes(), b"[]");
    for configured in ["acme", "Acme"] {
        let source = Source {
            name: configured.into(),
            ..acme(SECRET)
        };
        bridge.sources.replace([source]);
        for path in ["acme", "acme/", "Acme", "ACME/"] {
            let request = post(path, &[("x-dd-signature", &signature)], "[]");
            assert_eq!(bridge.ask(&request).await.status, 202, "{path}");
        }
        let series = format!("deskbridge_webhooks_total{{source=\"{configured}\",code=\"202\"}}");
        assert_eq!(metric(&bridge.metrics, &series).as_deref(), Some("4"));
    }
}

#[tokio::test]
async fn answers_are_counted_by_source_and_code() {
    let bridge = Bridge::start().await;
    bridge.ask(&signed(&session("1"))).await;
    bridge.ask(&post("acme", &[], "[]")).await;
    bridge.ask(&post("mallory", &[], "[]")).await;
    bridge
        .ask(b"GET /elsewhere HTTP/1.1\r\nhost: b\r\n\r\n")
        .await;
    let count = |source: &str, code: u16| {
        let series = format!("deskbridge_webhooks_total{{source=\"{source}\",code=\"{code}\"}}");
        metric(&bridge.metrics, &series).unwrap_or_default()
    };
    assert_eq!((&*count("acme", 202), &*count("acme", 401)), ("1", "1"));
    assert_eq!((&*count("-", 404), &*count("mallory", 404)), ("2", ""));
    let last = metric(
        &bridge.metrics,
        "deskbridge_webhook_last_received_seconds{source=\"acme\"}",
    );
    assert!(last.unwrap().parse::<f64>().unwrap() > 1e9);
}

#[tokio::test]
async fn answer_lists_100_problems_and_counts_all() {
    let bridge = Bridge::start().await;
    let answer = bridge
        .ask(&signed(&format!("[{}]", vec!["1"; 250].join(","))))
        .await;
    let body = answer.json();
    assert_eq!(body["dead_lettered"], 250);
    assert_eq!(body["problems"].as_array().unwrap().len(), 100);
}
