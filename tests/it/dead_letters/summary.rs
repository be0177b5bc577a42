//! `summary`.

use serde_json::{Value, json};

use super::{DEAD, UNROUTED, bridge_with, dead_letters, holds, put_letters_of, reject};
use crate::support::broker::Broker;
use crate::support::sender::{array_of, session};
use crate::support::terminal::shown_on;

#[tokio::test(flavor = "multi_thread")]
async fn summary_counts_by_reason_and_origin() {
    let vhost = Broker::shared().await.vhost().await;
    let queues = "queues = [{name = 'ticketing', keys = ['chat-session.missed']}]";
    let bridge = bridge_with(&vhost, queues).await;
    let told = dead_letters(&bridge, "summary").await.exits(0);
    assert!(
        told.err.contains("has no message that is ready"),
        "{told:?}"
    );
    assert_eq!(told.text, "");

    let sent = [
        session("s1", "missed", json!({})),
        session("s2", "created", json!({})),
    ];
    bridge.post(array_of(&sent)).await;
    bridge.backlog_is_empty().await;
    let letters = ["nacked", "unroutable", "unroutable"];
    let letters: Vec<_> = (0..)
        .zip(letters)
        .map(|(n, reason)| (format!("a-{n}"), reason))
        .collect();
    put_letters_of(&vhost, &letters).await;
    reject(&vhost, "ticketing", 1).await;
    holds(&vhost, DEAD, 4).await;

    let group = |count: u64, reason: &str, queue: Value, exchange: &str, key: &str| {
        json!({
            "count": count, "reason": reason, "original_queue": queue,
            "original_exchange": exchange, "original_routing_key": key,
        })
    };
    let expected = [
        group(2, "unroutable", Value::Null, "orders", "k"),
        group(1, "nacked", Value::Null, "orders", "k"),
        group(
            1,
            "rejected",
            json!("ticketing"),
            "chat-sessions",
            "chat-session.missed",
        ),
    ];
    let told = dead_letters(&bridge, "summary --json").await.exits(0);
    let mut groups = told.objects();
    for group in &mut groups {
        let [oldest, newest] = ["oldest", "newest"].map(|name| {
            let time = group.as_object_mut().unwrap().remove(name).unwrap();
            time.as_str().unwrap().to_owned()
        });
        assert!(oldest <= newest, "{told:?}");
        let is_of_today = group["reason"] == "rejected";
        assert_eq!(
            oldest != "2026-01-02T04:04:05.000Z",
            is_of_today,
            "{told:?}"
        );
    }
    assert_eq!(groups, expected);

    let told = dead_letters(&bridge, "summary --reason nacked,rejected --json").await;
    assert_eq!(told.exits(0).field("reason"), ["nacked", "rejected"]);
    let shown = shown_on(&bridge, 80, &["dead-letters", "summary"]).await;
    let lines: Vec<_> = shown.lines().collect();
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    assert!(
        lines[0].starts_with("COUNT  REASON      OLDEST  NEWEST  QUEUE"),
        "{shown}"
    );
    assert!(lines[1].starts_with("2      unroutable  "), "{shown}");
    assert!(
        lines[3].contains("  ticketing  chat-sessions chat-session."),
        "{shown}"
    );
    let told = dead_letters(&bridge, "summary").await.exits(0);
    assert!(
        told.err
            .contains("4 messages in queue `chat-sessions.dead-letter`"),
        "{told:?}"
    );
    let told = dead_letters(&bridge, &format!("summary --queue {UNROUTED} --json")).await;
    let told = told.exits(0);
    assert_eq!(told.field("count"), [1]);
    assert_eq!(told.field("reason"), [Value::Null]);
    assert_eq!(told.field("original_routing_key"), ["chat-session.created"]);
    // Everything is still there, in its order.
    holds(&vhost, DEAD, 4).await;
    holds(&vhost, UNROUTED, 1).await;
    let listed = dead_letters(&bridge, "list --json").await.exits(0);
    assert_eq!(listed.field("id")[..3], ["a-0", "a-1", "a-2"]);
}
