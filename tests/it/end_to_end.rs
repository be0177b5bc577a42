//! What subscribers receive of a signed webhook: every element, byte for byte, with its id, in
//! order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use hyper::Method;
use jiff::Timestamp;
use ring::digest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::http::Client;
use crate::support::message::Message;
use crate::support::sender::{PATH, SECRET, array_of, array_of_new, session, sign};
use crate::support::vhost::Vhost;
use crate::support::wait::SOON;

/// DeskDirector's published example, one element in an array.
const EXAMPLE: &[u8] = include_bytes!("../data/completed.json");
/// Computed in another language. It must never change.
const EXAMPLE_ID: &str = "3c24fe17-4f83-863a-8b9a-a10957251a9c";

/// A bridge that has connected and declared its topology.
async fn connected(vhost: &Vhost) -> Bridge {
    BridgeBuilder::new(vhost).connected().await
}

/// A subscriber to all statuses.
async fn to_everything(vhost: &Vhost) -> Consumer {
    Consumer::subscribed(vhost, "chat-sessions", "#").await
}

/// The only element of an array: from the first to the last brace.
fn element_of(array: &[u8]) -> &[u8] {
    let begin = array.iter().position(|byte| *byte == b'{').unwrap();
    let end = array.iter().rposition(|byte| *byte == b'}').unwrap();
    &array[begin..=end]
}

/// The documented `message_id` (docs/consuming.md), computed without the bridge's code.
fn message_id_of(session: &str, body: &[u8]) -> String {
    let mut hashed = Vec::new();
    for part in ["deskdirector", session] {
        hashed.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
        hashed.extend(part.as_bytes());
    }
    hashed.extend(body);
    let digest = digest::digest(&digest::SHA256, &hashed);
    Uuid::new_v8(digest.as_ref()[..16].try_into().unwrap()).to_string()
}

fn text_of(header: &Value) -> &str {
    header.as_str().expect("a string")
}

#[tokio::test(flavor = "multi_thread")]
async fn example_arrives_with_all_properties() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = connected(&vhost).await;
    vhost
        .queue_bound("finished", "chat-sessions", "chat-session.completed")
        .await;
    let mut finished = Consumer::of(&vhost, "finished").await;
    let element = element_of(EXAMPLE);
    assert_eq!((EXAMPLE.len(), element.len()), (1544, 1537));

    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let signature = sign(SECRET, EXAMPLE);
    let headers = [
        ("x-dd-signature", &*signature),
        ("traceparent", traceparent),
        ("tracestate", "vendor=1"),
    ];
    let before = Timestamp::now();
    let answer = bridge.post_with(&headers, EXAMPLE).await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["accepted"], 1);
    assert_eq!(answer["dead_lettered"], 0);
    assert_eq!(answer["problems"], json!([]));

    let mut message = finished.receive().await;
    assert_eq!(message.body, element);
    let received_at = text_of(&message.headers.remove("received-at").unwrap()).to_owned();
    assert!(received_at.ends_with('Z'), "{received_at}: not UTC");
    let received_at: Timestamp = received_at.parse().unwrap();
    let age = received_at.duration_since(before).as_secs_f64();
    assert!(
        (-0.01..10.0).contains(&age),
        "received {age} s after it was sent"
    );
    let expected = Message {
        exchange: "chat-sessions".into(),
        routing_key: "chat-session.completed".into(),
        redelivered: false,
        body: element.to_vec(),
        delivery_mode: Some(2),
        content_type: Some("application/json".into()),
        message_id: Some(EXAMPLE_ID.into()),
        correlation_id: Some("1530162945-9852".into()),
        kind: Some("chat-session.completed".into()),
        app_id: Some("deskbridge".into()),
        timestamp: Some(u64::try_from(received_at.as_second()).unwrap()),
        headers: BTreeMap::from([
            ("source".into(), json!("deskdirector")),
            ("session-id".into(), json!("1530162945-9852")),
            ("session-type".into(), json!("request")),
            ("status".into(), json!("completed")),
            ("previous-status".into(), json!("handled")),
            ("webhook-id".into(), answer["webhook_id"].clone()),
            ("webhook-index".into(), json!(0)),
            ("traceparent".into(), json!(traceparent)),
            ("tracestate".into(), json!("vendor=1")),
        ]),
    };
    assert_eq!(message, expected);
    finished
        .receives_nothing_for(Duration::from_millis(300))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whitespace_and_bom_variants_arrive_unchanged() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = connected(&vhost).await;
    let mut completed = to_everything(&vhost).await;
    let value: Value = serde_json::from_slice(EXAMPLE).unwrap();
    let minified = serde_json::to_vec(&value).unwrap();
    let pretty = serde_json::to_vec_pretty(&value).unwrap();
    let crlf = String::from_utf8(EXAMPLE.to_vec())
        .unwrap()
        .replace('\n', "\r\n\t");
    let marked = [b"\xef\xbb\xbf", EXAMPLE].concat();
    let bare = element_of(EXAMPLE);
    for body in [&minified, &pretty, crlf.as_bytes(), &marked, bare] {
        let answer = bridge.post(body).await;
        assert_eq!(
            (answer.status, &answer.json()["accepted"]),
            (202, &json!(1))
        );
        let message = completed.receive().await;
        assert_eq!(message.text(), String::from_utf8_lossy(element_of(body)));
        assert_eq!(
            message.id(),
            message_id_of("1530162945-9852", &message.body)
        );
        let is_the_original = message.body == element_of(EXAMPLE);
        assert_eq!(is_the_original, message.id() == EXAMPLE_ID);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_routed_and_invalid_is_dead_lettered() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = connected(&vhost).await;
    let known = ["created", "handled", "missed", "completed", "callback"];
    for name in known.iter().chain(&["unknown"]) {
        let key = format!("chat-session.{name}");
        vhost.queue_bound(name, "chat-sessions", &key).await;
    }
    let mut elements: Vec<String> = known
        .iter()
        .map(|status| session(&format!("of-{status}"), status, json!({})).to_string())
        .collect();
    let invalid = r#"{ "id" : "no-status", "name": "Ünvalid" }"#;
    elements.insert(2, invalid.into());
    elements.push(session("of-tomorrow", "Archived.Now", json!({"pastStatus": []})).to_string());
    let answer = bridge.post(format!("[{}]", elements.join(" ,\n"))).await;

    assert_eq!(answer.status, 202, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(
        (&answer["accepted"], &answer["dead_lettered"]),
        (&json!(6), &json!(1))
    );
    let problem = &answer["problems"][0];
    assert_eq!(
        (&problem["index"], &problem["reason"]),
        (&json!(2), &json!("invalid"))
    );
    assert_eq!(problem["detail"], "missing field `status`");
    assert_eq!(answer["problems"].as_array().unwrap().len(), 1);

    for (name, element) in known
        .iter()
        .zip(elements.iter().filter(|text| *text != invalid))
    {
        let message = Consumer::of(&vhost, name).await.receive().await;
        assert_eq!(message.text(), *element);
        assert_eq!(
            message.kind.as_deref(),
            Some(&*format!("chat-session.{name}"))
        );
    }
    let stranger = Consumer::of(&vhost, "unknown").await.receive().await;
    assert_eq!(stranger.text(), elements[6]);
    assert_eq!(stranger.kind.as_deref(), Some("chat-session.unknown"));
    assert_eq!(stranger.header("status"), "Archived.Now", "verbatim");
    assert_eq!(stranger.header("webhook-index"), 6);
    assert!(!stranger.headers.contains_key("previous-status"));

    let letter = Consumer::of(&vhost, "chat-sessions.dead-letter")
        .await
        .receive()
        .await;
    assert_eq!(letter.text(), invalid);
    assert_eq!(
        (&*letter.exchange, &*letter.routing_key),
        ("chat-sessions.dead-letter", "invalid")
    );
    assert_eq!(letter.id(), message_id_of("", invalid.as_bytes()));
    let at: Timestamp = text_of(letter.header("dead-letter-at")).parse().unwrap();
    assert!(at.duration_since(Timestamp::now()).as_secs().abs() < 60);
    for (name, expected) in [
        ("source", json!("deskdirector")),
        ("webhook-id", answer["webhook_id"].clone()),
        ("webhook-index", json!(2)),
        ("dead-letter-reason", json!("invalid")),
        ("dead-letter-detail", json!("missing field `status`")),
        ("original-exchange", json!("chat-sessions")),
        ("original-routing-key", json!("chat-session.unknown")),
        ("attempts", json!(0)),
    ] {
        assert_eq!(*letter.header(name), expected, "{name}");
    }
    bridge.backlog_is_empty().await;
    for name in known.iter().chain(&["unknown", "chat-sessions.unrouted"]) {
        assert_eq!(vhost.message_count(name).await, Some(0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_body_is_one_unchanged_dead_letter() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = connected(&vhost).await;
    let mut letters = Consumer::of(&vhost, "chat-sessions.dead-letter").await;
    let cut_off = &EXAMPLE[..700];
    for body in [
        b"[{\"id\":\"\xff\xfe\"}]".as_slice(),
        b"\xef\xbb\xbf{]\r\n",
        b"",
        cut_off,
    ] {
        let answer = bridge.post(body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let answer = answer.json();
        let letter = letters.receive().await;
        assert_eq!(letter.body, body);
        assert_eq!(letter.routing_key, "malformed");
        assert_eq!(letter.id(), message_id_of("", body));
        assert_eq!(letter.header("dead-letter-reason"), "malformed");
        assert_eq!(
            *letter.header("dead-letter-detail"),
            answer["problems"][0]["detail"]
        );
        assert_eq!(*letter.header("webhook-id"), answer["webhook_id"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_events_have_equal_message_ids() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = connected(&vhost).await;
    let mut completed = to_everything(&vhost).await;
    let (one, other) = (
        session("one", "completed", json!({})),
        session("other", "completed", json!({})),
    );
    bridge.post(array_of(&[one.clone(), other.clone()])).await;
    bridge.post(array_of(&[other.clone(), one.clone()])).await;
    // If the bridge were killed earlier, it would publish again what is published but not yet
    // marked as such in the journal.
    bridge.backlog_is_empty().await;
    bridge.restart().await;
    bridge.post(array_of(&[one, other])).await;

    let mut ids = BTreeMap::<String, BTreeSet<String>>::new();
    let mut copies = BTreeMap::<String, usize>::new();
    for message in completed.receive_n(6).await {
        let session = message.correlation_id.clone().unwrap();
        *copies.entry(session.clone()).or_default() += 1;
        ids.entry(session)
            .or_default()
            .insert(message.id().to_owned());
    }
    assert!(
        copies.values().all(|copies| *copies == 3),
        "no copy is dropped: {copies:?}"
    );
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
    assert_ne!(ids["one"], ids["other"]);
}

/// Panics unless each session's steps arrive in order and without duplicates.
fn check_order(messages: &[Message], steps: u64) {
    let mut seen = BTreeMap::<String, Vec<u64>>::new();
    for message in messages {
        let session = message.correlation_id.clone().unwrap();
        seen.entry(session)
            .or_default()
            .push(message.json()["step"].as_u64().unwrap());
    }
    for (session, seen) in &seen {
        assert!(seen.iter().copied().eq(0..steps), "{session}: {seen:?}");
    }
    assert_eq!(seen.len() as u64 * steps, messages.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_array_arrives_once_in_order() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = connected(&vhost).await;
    let mut everything = to_everything(&vhost).await;
    // 2,000 chats with five states each.
    let events: Vec<_> = (0..10_000)
        .map(|index| {
            session(
                &format!("chat-{}", index % 2000),
                "handled",
                json!({"step": index / 2000}),
            )
        })
        .collect();
    let answer = bridge.post(array_of(&events)).await;
    assert_eq!(
        (answer.status, &answer.json()["accepted"]),
        (202, &json!(10_000))
    );
    let messages = everything.receive_n_within(10_000, 3 * SOON).await;
    check_order(&messages, 5);
    everything
        .receives_nothing_for(Duration::from_millis(300))
        .await;
    bridge.backlog_is_empty().await;
    let indices: BTreeSet<_> = messages
        .iter()
        .map(|message| message.header("webhook-index").as_u64())
        .collect();
    assert_eq!(indices.len(), 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_webhooks_arrive_once_in_order() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = connected(&vhost).await;
    let mut everything = to_everything(&vhost).await;
    let address = bridge.address();
    let senders: Vec<_> = (0..50)
        .map(|number| {
            tokio::spawn(async move {
                let mut client = Client::new(address);
                for step in 0..20 {
                    let chats = ["a", "b", "c"].map(|chat| {
                        session(
                            &format!("{number}-{chat}"),
                            "handled",
                            json!({"step": step}),
                        )
                    });
                    let body = array_of(&chats);
                    let signature = sign(SECRET, &body);
                    let headers = [("x-dd-signature", &*signature)];
                    let answer = client
                        .request(Method::POST, PATH, &headers, body)
                        .await
                        .unwrap();
                    assert_eq!(answer.status, 202);
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let messages = everything.receive_n_within(3000, 3 * SOON).await;
    check_order(&messages, 20);
    everything
        .receives_nothing_for(Duration::from_millis(300))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_one_json_object_per_line() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = connected(&vhost).await;
    let mut tail = bridge
        .command(
            "tail",
            &[
                "--json",
                "--count",
                "2",
                "chat-session.completed",
                "chat-session.missed",
            ],
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(tail.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(
        line.starts_with("waiting for chat-session.completed"),
        "{line}"
    );

    bridge.post(array_of_new("not-asked-for", 1)).await;
    bridge.post(EXAMPLE).await;
    bridge
        .post(array_of(&[session("second", "missed", json!({}))]))
        .await;
    let output = tokio::task::spawn_blocking(|| tail.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success());
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(lines.len(), 2);
    let of = |key: &str| {
        lines
            .iter()
            .find(|line| line["routing_key"] == key)
            .expect(key)
    };
    let completed = of("chat-session.completed");
    assert_eq!(completed["message_id"], EXAMPLE_ID);
    assert_eq!(completed["headers"]["session-id"], "1530162945-9852");
    let example: Value = serde_json::from_slice(element_of(EXAMPLE)).unwrap();
    assert_eq!(completed["body"], example);
    assert_eq!(of("chat-session.missed")["headers"]["session-id"], "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn resent_webhooks_repeat_message_ids() {
    let (vhost, bridge) = on_shared_broker(
        "sources.deskdirector.secrets = ['secret-of-new-sessions', 'secret-of-changes']",
    )
    .await;
    let mut everything = to_everything(&vhost).await;
    let line = "--count 120 --sessions 12 --connections 3 --resend 25 --seed 3 --json";
    let sent = bridge
        .run("send", &line.split(' ').collect::<Vec<_>>())
        .await;
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    let summary: Value = serde_json::from_slice(&sent.stdout).unwrap();
    let resent = usize::try_from(summary["resent"].as_u64().unwrap()).unwrap();
    let mut bodies = BTreeMap::<String, Vec<u8>>::new();
    for message in everything.receive_n(120).await {
        let id = message.id().to_owned();
        let body = bodies.entry(id).or_insert_with(|| message.body.clone());
        assert_eq!(*body, message.body, "equal ids have equal bodies");
    }
    assert!(resent > 10, "{summary}");
    assert_eq!(bodies.len(), 120 - resent);
}
