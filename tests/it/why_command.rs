//! `why`: for each place where an event can be, the place and the true cause come first.

use serde_json::{Value, json};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of, session};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

/// A bridge that may query the management API, connected through a proxy.
async fn watched(toml: &str) -> (Vhost, Proxy, Bridge) {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let management = format!("rabbitmq.management_url = {:?}\n", vhost.management_url());
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with(&format!("{management}{toml}"))
        .connected()
        .await;
    (vhost, proxy, bridge)
}

async fn post(bridge: &Bridge, id: &str, status: &str) {
    let sessions = array_of(&[session(id, status, json!({}))]);
    assert_eq!(bridge.post(sessions).await.status, 202);
}

/// The exit code and the JSON object.
async fn asked(bridge: &Bridge, what: &str) -> (i32, Value) {
    let output = bridge.run("why", &["--json", what]).await;
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code().unwrap(), answer)
}

/// The first finding contains a text, its fix another one.
#[track_caller]
fn first_is(answer: &Value, problem: &str, fix: &str) {
    let first = &answer["findings"][0];
    assert!(
        first["problem"].as_str().unwrap().contains(problem),
        "{answer:#}"
    );
    assert!(
        first["fix"].as_str().unwrap_or_default().contains(fix),
        "{answer:#}"
    );
}

/// Waits until the first finding contains a text; its fix contains another one.
async fn becomes(bridge: &Bridge, what: &str, problem: &str, fix: &str) -> Value {
    let begin = std::time::Instant::now();
    loop {
        let (code, answer) = asked(bridge, what).await;
        let first = answer["findings"][0]["problem"].as_str();
        if first.is_some_and(|first| first.contains(problem)) {
            first_is(&answer, problem, fix);
            assert_eq!(code, 1, "{answer:#}");
            return answer;
        }
        assert!(begin.elapsed() < SOON, "not `{problem}` first: {answer:#}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn published_events_are_followed_to_their_consumers() {
    let (vhost, _proxy, bridge) = watched("").await;
    vhost
        .queue_bound("crm", "chat-sessions", "chat-session.created")
        .await;
    post(&bridge, "chat", "created").await;
    bridge.backlog_is_empty().await;
    let no_consumer = "queue `crm` has no consumer, and 1 message in it";
    let answer = becomes(&bridge, "chat", no_consumer, "start the consumer of `crm`").await;
    assert_eq!(answer["events"][0]["where"], "published to crm");
    assert_eq!(answer["events"][0]["session"], "chat");

    // By its message id.
    let id = answer["events"][0]["message_id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(asked(&bridge, &id).await.1["events"], answer["events"]);

    let mut consumer = Consumer::of(&vhost, "crm").await;
    consumer.receive().await;
    eventually("nothing is wrong", SOON, || async {
        asked(&bridge, "chat").await.0 == 0
    })
    .await;
    let output = bridge.run("why", &["chat"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("session chat of source deskdirector, 1 event\n"),
        "{text}"
    );
    assert!(text.contains("queue `crm` is empty"), "{text}");
    assert!(text.ends_with("nothing is wrong\n"), "{text}");

    post(&bridge, "chat", "missed").await;
    bridge.backlog_is_empty().await;
    let unbound = "no queue is bound to exchange `chat-sessions` for key `chat-session.missed`";
    becomes(
        &bridge,
        "chat",
        unbound,
        "dead-letters replay --queue chat-sessions.unrouted",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_events_have_the_cause_of_the_first_one() {
    let (_vhost, proxy, bridge) = watched("").await;
    assert!(
        bridge
            .run("pause", &["chat-session.missed"])
            .await
            .status
            .success()
    );
    eventually("the bridge notices the pause", SOON, || async {
        bridge.status().await["paused"] != json!([])
    })
    .await;
    post(&bridge, "chat", "missed").await;
    // It waits behind the first one, whose route is paused.
    post(&bridge, "chat", "handled").await;
    let paused = "routing key `chat-session.missed` is paused since";
    let answer = becomes(&bridge, "chat", paused, "deskbridge resume").await;
    assert_eq!(answer["events"][1]["where"], "waits in the journal");
    assert_eq!(
        answer["findings"].as_array().unwrap().len(),
        1,
        "{answer:#}"
    );
    assert!(bridge.run("resume", &[]).await.status.success());
    bridge.backlog_is_empty().await;

    proxy.refuse();
    proxy.cut();
    bridge.broker_is("connecting").await;
    post(&bridge, "late", "created").await;
    let away = "the running bridge is not connected to the broker (connecting)";
    becomes(&bridge, "late", away, "start the broker").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_and_dead_events_have_their_reasons() {
    let (vhost, _proxy, bridge) = watched("retry.attempts_max = 1000").await;
    vhost
        .declare_queue(
            "full",
            json!({"x-max-length": 1, "x-overflow": "reject-publish"}),
        )
        .await;
    vhost
        .bind("full", "chat-sessions", "chat-session.missed")
        .await;
    // Different sessions have no order, so the first one must be in the queue before the second.
    post(&bridge, "first", "missed").await;
    bridge.backlog_is_empty().await;
    post(&bridge, "second", "missed").await;
    eventually("the second one is rejected", SOON, || async {
        bridge.status().await["retrying"] != json!([])
    })
    .await;
    becomes(
        &bridge,
        "second",
        "rejected by the broker (nacked) and retried",
        "full or down",
    )
    .await;

    bridge.post(r#"[{"id":"bad"}]"#).await;
    eventually("it is a dead letter", SOON, || async {
        bridge.status().await["counters"]["dead_lettered"] == 1
    })
    .await;
    let listed = bridge
        .run("events", &["list", "--state", "dead-lettered", "--json"])
        .await;
    let event: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let id = event["message_id"].as_str().unwrap();
    let dead = "is a dead letter (invalid)";
    let answer = becomes(&bridge, id, dead, "dead-letters replay --body FILE").await;
    assert_eq!(answer["events"][0]["where"], "dead letter: invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_session_has_what_the_sender_was_answered() {
    let (_vhost, _proxy, mut bridge) = watched("").await;
    let none = "no webhook has arrived since the bridge started";
    becomes(&bridge, "nobody", none, "events list --name NAME").await;
    bridge
        .post_signed_with("the secret of somebody else", "[]")
        .await;
    let refused = "the last webhook of source `deskdirector` was refused: 401";
    becomes(&bridge, "nobody", refused, "deskbridge verify").await;
    post(&bridge, "somebody", "created").await;
    becomes(
        &bridge,
        "nobody",
        "the last webhook arrived at",
        "journal.retention",
    )
    .await;
    bridge.backlog_is_empty().await;
    bridge.terminate().await;
    let stopped = "no bridge is running, so no webhook is accepted";
    becomes(&bridge, "nobody", stopped, "start the bridge").await;
}
