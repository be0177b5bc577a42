//! `list` and `show`.

use serde_json::{Value, json};

use super::{DEAD, Put, UNROUTED, bridge_with, dead_letters, holds, ids, put_letters};
use crate::support::broker::Broker;
use crate::support::consumer::{Consumer, everything_in};
use crate::support::sender::{array_of, session};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_browses_lose_nothing_and_keep_order() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = bridge_with(&vhost, "").await;
    // More than one prefetch window.
    put_letters(&vhost, "letter", 300, "nacked").await;
    let expected: Vec<_> = (0..300).map(|n| format!("letter-{n}")).collect();
    for look in 0..50 {
        if look == 25 {
            bridge.kill().await;
        }
        let line = [
            "list --json",
            "list --json --limit 7",
            "show --json letter-290",
            "summary --json",
        ][look % 4];
        let told = dead_letters(&bridge, line).await.exits(0);
        match look % 4 {
            0 => assert_eq!(told.field("id"), expected, "look {look}"),
            1 => assert_eq!(told.field("id"), expected[..7], "look {look}"),
            2 => assert_eq!(told.field("id"), ["letter-290"], "look {look}"),
            _ => assert_eq!(told.field("count"), [300], "look {look}"),
        }
    }
    holds(&vhost, DEAD, 300).await;
    let letters = everything_in(&vhost, DEAD).await;
    assert_eq!(ids(&letters), expected);
    assert!(letters[0].redelivered);
}

#[tokio::test(flavor = "multi_thread")]
async fn browse_that_uses_up_deliveries_is_refused() {
    let vhost = Broker::shared().await.vhost().await;
    let queues = "queues = [{name = 'crm', keys = ['#'], delivery_limit = 3, ttl = '1h', \
                  single_active_consumer = true, messages_max = 1000}]";
    let bridge = bridge_with(&vhost, queues).await;
    bridge
        .post(array_of(&[session("s", "created", json!({}))]))
        .await;
    bridge.backlog_is_empty().await;
    holds(&vhost, "crm", 1).await;
    for _ in 0..6 {
        let told = dead_letters(&bridge, "list --queue crm").await.exits(1);
        assert_eq!(told.text, "");
        assert!(
            told.err.contains("of the 3 that its delivery limit allows"),
            "{told:?}"
        );
        assert!(told.err.contains("--force"), "{told:?}");
    }
    dead_letters(&bridge, "discard --queue crm --all --yes")
        .await
        .exits(1);
    let told = dead_letters(&bridge, "list --json --force --queue crm")
        .await
        .exits(0);
    assert_eq!(told.field("session"), ["s"]);
    holds(&vhost, "crm", 1).await;
    let message = Consumer::of(&vhost, "crm").await.receive().await;
    assert_eq!(
        message.header("x-delivery-count"),
        1,
        "only the forced browse counts as a delivery"
    );

    // Browsing other queues needs no `--force`.
    vhost
        .declare_queue("classic", json!({"x-queue-type": "classic"}))
        .await;
    vhost.declare_queue("old", json!({})).await;
    vhost
        .declare_queue("plain", json!({"x-queue-type": "quorum"}))
        .await;
    for queue in ["classic", "old", UNROUTED, DEAD] {
        let told = dead_letters(&bridge, &format!("list --queue {queue}"))
            .await
            .exits(0);
        assert!(told.err.contains("has no message"), "{told:?}");
    }
    // A queue without a limit of its own has RabbitMQ's default, which is 20 since 4.0.
    let told = dead_letters(&bridge, "list --queue plain").await;
    match told.code {
        Some(0) => assert!(told.err.contains("has no message"), "{told:?}"),
        _ => assert!(told.err.contains("20 that RabbitMQ 4 allows"), "{told:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn list_applies_its_filters() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    bridge
        .post(r#"[{"id":"x"},{"id":"a","status":"created"},{"status":"y"}]"#)
        .await;
    bridge.backlog_is_empty().await;
    holds(&vhost, DEAD, 2).await;
    put_letters_behind(&vhost).await;

    let all = dead_letters(&bridge, "list --json").await.exits(0);
    assert_eq!(
        all.field("reason"),
        ["invalid", "invalid", "nacked", "unroutable"]
    );
    assert_eq!(
        all.field("written_by"),
        ["bridge", "bridge", "other", "other"]
    );
    let first = &all.objects()[0];
    assert_eq!(first["position"], 1);
    assert_eq!(first["source"], "deskdirector");
    assert_eq!(first["original_exchange"], "chat-sessions");
    assert_eq!(first["original_routing_key"], "chat-session.unknown");
    assert_eq!(first["attempts"], 0);
    assert_eq!(first["bytes"], 10);
    assert!(
        first["detail"].as_str().unwrap().contains("status"),
        "{first}"
    );

    let check = async |filters: &str, expected: &[&str]| {
        let told = dead_letters(&bridge, &format!("list --json {filters}"))
            .await
            .exits(0);
        let seen = told.field("reason");
        assert_eq!(seen, expected, "{filters}");
        assert_eq!(
            told.err.contains("none of the 4 messages"),
            expected.is_empty(),
            "{told:?}"
        );
    };
    check("--reason invalid", &["invalid", "invalid"]).await;
    check("--reason nacked,unroutable --limit 1", &["nacked"]).await;
    check(
        "--reason nacked --reason unroutable",
        &["nacked", "unroutable"],
    )
    .await;
    check("--status handled", &["unroutable"]).await;
    check("--session n", &["nacked"]).await;
    check("--source other", &["nacked"]).await;
    check("--since 1h", &["invalid", "invalid"]).await;
    check("--until 1h", &["nacked", "unroutable"]).await;
    check(
        "--since 2026-01-02 --until 2026-01-03T00:00:00Z",
        &["nacked"],
    )
    .await;
    check("--status nobody", &[]).await;
    check("--limit 0", &[]).await;
}

/// Publishes one dead letter for each filter.
async fn put_letters_behind(vhost: &crate::support::vhost::Vhost) {
    let letter = |reason: &'static str, headers: Value| Put {
        exchange: DEAD,
        key: reason,
        id: Some(reason),
        headers,
        body: b"{}",
    };
    let nacked = json!({
        "dead-letter-reason": "nacked", "dead-letter-at": "2026-01-02T04:04:05.000Z",
        "session-id": "n", "status": "missed", "source": "other",
    });
    let unroutable = json!({
        "dead-letter-reason": "unroutable", "dead-letter-at": "2026-01-03T04:04:05.000Z",
        "session-id": "u", "status": "handled",
    });
    Put::all(
        vhost,
        &[letter("nacked", nacked), letter("unroutable", unroutable)],
    )
    .await;
    holds(vhost, DEAD, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn show_prints_messages_without_id_and_headers() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    let bare = Put {
        exchange: DEAD,
        key: "x",
        id: None,
        headers: json!({}),
        body: b"\xffno JSON\n",
    };
    Put::all(&vhost, &[bare]).await;
    bridge.post("[ {\"id\" : \"x\"} ]").await;
    bridge.backlog_is_empty().await;
    holds(&vhost, DEAD, 2).await;

    let listed = dead_letters(&bridge, "list --json").await.exits(0);
    assert_eq!(listed.field("id")[0], Value::Null);
    let id = listed.field("id")[1].as_str().unwrap().to_owned();
    let shown = dead_letters(&bridge, &format!("show --json {id}"))
        .await
        .exits(0);
    let shown = &shown.objects()[0];
    assert_eq!(shown["message_id"], id);
    assert_eq!(shown["routing_key"], "invalid");
    assert_eq!(shown["content_type"], "application/json");
    assert_eq!(shown["headers"]["dead-letter-reason"], "invalid");
    assert_eq!(shown["headers"]["webhook-index"], 0);
    assert_eq!(shown["history"], json!([]));
    assert_eq!(shown["body"], json!({"id": "x"}));
    let body = dead_letters(&bridge, &format!("show --body {id}"))
        .await
        .exits(0);
    assert_eq!(body.out, b"{\"id\" : \"x\"}");
    let body = dead_letters(&bridge, "show --body #1").await.exits(0);
    assert_eq!(body.out, b"\xffno JSON\n");
    let readable = dead_letters(&bridge, "show #1").await.exits(0);
    assert!(
        readable.text.contains("nothing says where it belongs"),
        "{readable:?}"
    );
    let told = dead_letters(&bridge, "show nobody").await.exits(1);
    assert!(told.err.contains("none of the 2 messages"), "{told:?}");
    holds(&vhost, DEAD, 2).await;
}
