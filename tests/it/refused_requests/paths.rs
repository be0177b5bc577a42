//! Requests for a source that does not exist, or whose name is spelled differently.

use super::{answer_to, bridge, refused, request};
use crate::support::http::Client;
use crate::support::sender::{SECRET, array_of_new, sign};
use hyper::Method;

#[tokio::test(flavor = "multi_thread")]
async fn trailing_slash_and_case_are_ignored() {
    let bridge = bridge()
        .with("sources.Acme.secrets = [\"the secret of acme in any case\"]")
        .start()
        .await;
    let mut client = Client::new(bridge.address());
    for (path, secret) in [
        ("/webhooks/deskdirector/", SECRET),
        ("/webhooks/DeskDirector", SECRET),
        ("/webhooks/DESKDIRECTOR/", SECRET),
        ("/webhooks/acme", "the secret of acme in any case"),
        ("/webhooks/Acme", "the secret of acme in any case"),
    ] {
        let body = array_of_new(path, 1);
        let signature = sign(secret, &body);
        let headers = [("x-dd-signature", &*signature)];
        let answer = client.request(Method::POST, path, &headers, body).await;
        assert_eq!(answer.unwrap().status, 202, "{path}");
    }
    let metrics = bridge.metrics().await;
    for (source, expected) in [("deskdirector", 3.0), ("Acme", 2.0)] {
        let labels = [("source", source), ("code", "202")];
        assert_eq!(metrics.sum_where("webhooks_total", &labels), expected);
    }
    assert_eq!(metrics.sum("http_refused_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_differing_in_case_are_a_finding() {
    let mut bridge = bridge()
        .with("sources.DeskDirector.secrets = [\"the secret of another one\"]")
        .build();
    assert_eq!(bridge.run_to_exit().await.status.code(), Some(2));
    let said = bridge.stderr();
    assert!(said.contains("only in case"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn probable_path_is_named_to_the_operator_only() {
    let bridge = bridge().start().await;
    let meant = "did you mean `/webhooks/deskdirector`?";
    for (line, status, reason, hint) in [
        ("POST /webhooks/deskdirektor", 404, "unknown-source", meant),
        ("POST /webhook/deskdirector", 404, "unknown-path", meant),
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
    let mut client = Client::new(bridge.address());
    for _ in 0..5 {
        let answer = client.request(Method::POST, "/nothing", &[], "").await;
        assert_eq!(answer.unwrap().status, 404);
    }
    let twice = request("POST /nothing", "").repeat(2);
    answer_to(&bridge, twice + "hello\r\n\r\n").await;
    bridge.says("malformed-head").await;
    assert_eq!(refused(&bridge, "unknown-path").await, 7.0);
    assert_eq!(refused(&bridge, "malformed-head").await, 1.0);
    let log = bridge.stderr();
    let lines = log.lines().filter(|line| line.contains("unknown-path"));
    assert!(lines.count() < 5, "{log}");
}
