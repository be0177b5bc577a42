//! `replay`.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    DEAD, Put, Told, UNROUTED, bridge_with, dead_letters, holds, ids, put_letters, reject,
};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::{Consumer, everything_in};
use crate::support::message::Message;
use crate::support::process::{end_with_us, has_ended, signal};
use crate::support::sender::{array_of, session};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

const LONG: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn unroutable_is_replayed_once_a_queue_is_bound() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = bridge_with(&vhost, "unrouted.exchange = ''").await;
    let sent = session("s1", "missed", json!({}));
    bridge
        .post(array_of(&[
            sent.clone(),
            session("s2", "created", json!({})),
        ]))
        .await;
    bridge.backlog_is_empty().await;
    holds(&vhost, DEAD, 2).await;
    let letter = dead_letters(&bridge, "list --json --session s1")
        .await
        .exits(0);
    assert_eq!(letter.field("written_by"), ["bridge"]);
    let id = letter.field("id")[0].as_str().unwrap().to_owned();
    // The journal's count agrees with the dead letter.
    let line = ["list", "--json", "--session", "s1"];
    let event = Told::from(bridge.run("events", &line).await).exits(0);
    assert_eq!(event.field("attempts"), letter.field("attempts"));
    assert_eq!(event.field("attempts"), [2]);

    // No queue is bound yet: the message stays.
    let told = dead_letters(&bridge, &format!("replay {id}"))
        .await
        .exits(1);
    assert!(
        told.text.contains("no queue takes it (312 NO_ROUTE)"),
        "{told:?}"
    );
    holds(&vhost, DEAD, 2).await;

    vhost
        .queue_bound("crm", "chat-sessions", "chat-session.missed")
        .await;
    let told = dead_letters(&bridge, "replay --all --dry-run --json")
        .await
        .exits(0);
    assert_eq!(told.field("outcome"), ["would replay", "would replay"]);
    // Messages of different sessions do not wait for each other.
    let keys = told.field("routing_key");
    for key in ["chat-session.missed", "chat-session.created"] {
        assert!(keys.contains(&key.into()), "{keys:?}");
    }
    holds(&vhost, DEAD, 2).await;
    bridge.kill().await; // only the command is needed
    let told = dead_letters(&bridge, "replay --status missed --json")
        .await
        .exits(0);
    assert_eq!(told.field("outcome"), ["replayed"]);
    holds(&vhost, DEAD, 1).await;
    let mut crm = Consumer::of(&vhost, "crm").await;
    let message = crm.receive().await;
    assert_eq!(message.id(), id);
    assert_eq!(message.exchange, "chat-sessions");
    assert_eq!(message.routing_key, "chat-session.missed");
    assert_eq!(message.json(), sent);
    assert_eq!(message.correlation_id.as_deref(), Some("s1"));
    assert_eq!(message.kind.as_deref(), Some("chat-session.missed"));
    assert_eq!(message.app_id.as_deref(), Some("deskbridge"));
    assert_eq!(message.delivery_mode, Some(2));
    let headers: Vec<_> = message.headers.keys().map(String::as_str).collect();
    let expected = [
        "previous-status",
        "received-at",
        "replayed-at",
        "session-id",
        "session-type",
        "source",
        "status",
        "webhook-id",
        "webhook-index",
    ];
    assert_eq!(headers, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_message_returns_by_its_death_history() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(
        &vhost,
        "queues = [{name = 'crm', keys = ['chat-session.#']}]",
    )
    .await;
    bridge
        .post(array_of(&[session("s1", "missed", json!({}))]))
        .await;
    bridge.backlog_is_empty().await;
    reject(&vhost, "crm", 1).await;
    holds(&vhost, DEAD, 1).await;

    let listed = dead_letters(&bridge, "list --json --reason rejected --since 1h")
        .await
        .exits(0);
    assert_eq!(listed.field("detail"), ["rejected in queue `crm`"]);
    assert_eq!(
        listed.field("original_routing_key"),
        ["chat-session.missed"]
    );
    let id = listed.field("id")[0].as_str().unwrap().to_owned();
    let shown = dead_letters(&bridge, &format!("show --json {id}"))
        .await
        .exits(0);
    assert_eq!(shown.objects()[0]["history"][0]["queue"], "crm");
    let told = dead_letters(&bridge, &format!("replay {id}"))
        .await
        .exits(0);
    assert!(
        told.text.contains("to chat-sessions chat-session.missed"),
        "{told:?}"
    );
    holds(&vhost, DEAD, 0).await;
    let message = Consumer::of(&vhost, "crm").await.receive().await;
    assert_eq!(message.id(), id);
    assert_eq!(message.exchange, "chat-sessions");
    assert!(
        message.headers.keys().all(|name| !name.starts_with("x-")),
        "{message:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unrouted_messages_are_replayed_once_in_order() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    for step in 0..20 {
        bridge
            .post(array_of(&[session("s", "created", json!({"step": step}))]))
            .await;
    }
    bridge.backlog_is_empty().await;
    holds(&vhost, UNROUTED, 20).await;
    let line = format!("replay --queue {UNROUTED} --all");
    // The messages return to the same queue, but each is replayed only once.
    let told = dead_letters(&bridge, &line).await.exits(1);
    assert!(told.err.contains("20 replayed"), "{told:?}");
    let again = format!("20 messages are in queue `{UNROUTED}` again: no queue is bound");
    assert!(told.err.contains(&again), "{told:?}");
    holds(&vhost, UNROUTED, 20).await;
    let told = dead_letters(&bridge, &format!("{line} --dry-run")).await;
    assert!(!told.exits(0).err.contains("again"));
    vhost
        .queue_bound("crm", "chat-sessions", "chat-session.created")
        .await;
    let told = dead_letters(&bridge, &line).await.exits(0);
    assert!(!told.err.contains("again"), "{told:?}");
    holds(&vhost, UNROUTED, 0).await;
    let messages = everything_in(&vhost, "crm").await;
    let steps: Vec<_> = messages
        .iter()
        .map(|message| message.json()["step"].clone())
        .collect();
    assert_eq!(steps, (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn corrected_body_replaces_an_invalid_one() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    vhost.queue_bound("crm", "chat-sessions", "#").await;
    bridge
        .post(r#"[{"id":"a","status":"created"},{"id":"x"}]"#)
        .await;
    bridge.backlog_is_empty().await;
    holds(&vhost, DEAD, 1).await;
    let id = dead_letters(&bridge, "list --json").await.field("id")[0]
        .as_str()
        .unwrap()
        .to_owned();
    let write = |body: &str| std::fs::write(bridge.dir().join("body.json"), body).unwrap();
    let line = format!("replay --body body.json {id}");
    for (wrong, expected) in [
        ("{\"id\":\"x\",", "malformed"),
        ("{\"id\":\"x\"}", "missing field `status`"),
        ("[]", "contains no session"),
        ("7", "malformed"),
    ] {
        write(wrong);
        let told = dead_letters(&bridge, &line).await.exits(1);
        assert!(told.err.contains(expected), "{wrong}: {told:?}");
    }
    let told = dead_letters(&bridge, &format!("replay --body nix.json {id}"))
        .await
        .exits(1);
    assert!(told.err.contains("nix.json"), "{told:?}");
    holds(&vhost, DEAD, 1).await;

    let corrected = "{ \"id\" : \"x\", \"status\":\"missed\" }";
    write(&format!("{corrected}\n"));
    let told = dead_letters(&bridge, &format!("{line} --dry-run"))
        .await
        .exits(0);
    assert!(
        told.text.contains("to chat-sessions chat-session.missed"),
        "{told:?}"
    );
    dead_letters(&bridge, "replay --body body.json nobody")
        .await
        .exits(1);
    holds(&vhost, DEAD, 1).await;
    dead_letters(&bridge, &line).await.exits(0);
    holds(&vhost, DEAD, 0).await;
    let message = everything_in(&vhost, "crm").await.remove(1);
    assert_eq!(message.text(), corrected);
    assert_eq!(message.routing_key, "chat-session.missed");
    let expected =
        deskbridge::webhook::identity::message_id("deskdirector", "x", corrected.as_bytes());
    assert_eq!(message.id(), expected.to_string());
    assert_eq!(message.correlation_id.as_deref(), Some("x"));
    assert_eq!(message.header("corrected-from"), id.as_str());
    assert_eq!(message.header("status"), "missed");
    assert_eq!(message.header("webhook-index"), 1);
    assert!(message.headers.contains_key("replayed-at"));
    assert!(!message.headers.contains_key("dead-letter-reason"));
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_is_kept_and_the_others_are_replayed() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "unrouted.exchange = ''").await;
    let sent = session("s1", "missed", json!({}));
    bridge
        .post(array_of(&[json!({"id": "x"}), sent.clone()]))
        .await;
    bridge.post("{").await;
    bridge.backlog_is_empty().await;
    holds(&vhost, DEAD, 3).await;
    vhost.queue_bound("crm", "chat-sessions", "#").await;
    let id = dead_letters(&bridge, "list --json --reason invalid").await;
    let id = id.field("id")[0].as_str().unwrap().to_owned();
    let kept = format!("kept {id}: it is invalid; send a corrected body with --body FILE\n");
    for (line, left) in [("replay --all --dry-run", 3), ("replay --all", 2)] {
        let told = dead_letters(&bridge, line).await.exits(1);
        assert!(told.text.contains(&kept), "{told:?}");
        let malformed = ": it is malformed; send a corrected body with --body FILE\n";
        assert!(told.text.contains(malformed), "{told:?}");
        let missed = " to chat-sessions chat-session.missed\n";
        assert!(told.text.contains(missed), "{told:?}");
        holds(&vhost, DEAD, left).await;
    }
    let told = dead_letters(&bridge, &format!("replay {id}")).await;
    assert_eq!(told.exits(1).text, kept);
    holds(&vhost, DEAD, 2).await;
    let arrived = everything_in(&vhost, "crm").await;
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].json(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_replays_stay_in_the_queue() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    orders(
        &vhost,
        json!({"x-max-length": 3, "x-overflow": "reject-publish"}),
    )
    .await;
    put_letters(&vhost, "a", 5, "nacked").await;
    let told = dead_letters(&bridge, "replay --all --to-exchange orders")
        .await
        .exits(1);
    assert!(
        told.text.contains("kept a-4: the broker refused it"),
        "{told:?}"
    );
    let there = vhost.messages("orders").await;
    let here = everything_in(&vhost, DEAD).await;
    let all: BTreeSet<_> = ids(&there).into_iter().chain(ids(&here)).collect();
    assert_eq!(all.len(), 5);
    assert_eq!(
        there.len() + here.len(),
        5,
        "each message is in exactly one queue"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_or_killed_replay_loses_nothing() {
    const COUNT: usize = 3_000;
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = bridge_with(&vhost, "").await;
    orders(&vhost, json!({"x-queue-type": "quorum"})).await;
    put_letters(&vhost, "a", COUNT, "nacked").await;
    bridge.kill().await; // only the commands may be connected
    // All messages have been requeued once: that is when their order is lost most easily.
    dead_letters(&bridge, "list --limit 1").await.exits(0);
    let mut consumer = Consumer::of(&vhost, "orders").await;
    let told = interrupted(&bridge, &consumer, Signal::INT).await;
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    let done = replayed(&told.stdout);
    let expected: Vec<_> = (0..COUNT).map(|n| format!("a-{n}")).collect();
    assert!(
        done.len() < COUNT,
        "the replay was complete before the interruption"
    );
    assert_eq!(done, expected[..done.len()]);
    let summed_up = format!("interrupted: {} replayed, everything else", done.len());
    assert!(said.contains(&summed_up), "{said}");
    // An interrupted replay ends consistently: each message is in exactly one queue, as reported.
    assert_eq!(
        vhost.message_count(DEAD).await,
        u32::try_from(COUNT - done.len()).ok()
    );
    let arrived = consumer.receive_n(done.len()).await;
    assert_eq!(ids(&arrived), done);
    assert_eq!(consumer.count(), done.len());
    let left = dead_letters(&bridge, "list --json").await.exits(0);
    let left: Vec<_> = left.objects().iter().map(id_of).collect();
    assert!(
        left == expected[done.len()..],
        "the order has changed: {left:?}"
    );

    let told = interrupted(&bridge, &consumer, Signal::KILL).await;
    let done = [done, replayed(&told.stdout)].concat();
    assert_eq!(done, expected[..done.len()]);
    // The broker requeues the unacknowledged messages of the killed command when it notices the
    // loss of its connection.
    eventually("the dead letters are requeued", LONG, || async {
        let left = vhost.message_count(DEAD).await.unwrap() as usize;
        vhost.connections_named("deskbridge").await == 0
            && COUNT - left <= different(&consumer.all()).len()
    })
    .await;
    let left = dead_letters(&bridge, "list --json").await.exits(0);
    let left: BTreeSet<_> = left.objects().iter().map(id_of).collect();
    assert!(
        done.iter().all(|id| !left.contains(id)),
        "reported as replayed before it was removed"
    );
    eventually("all have arrived", LONG, || async {
        dead_letters(&bridge, "replay --all --to-exchange orders").await;
        let arrived = consumer.all();
        different(&arrived).len() == COUNT && vhost.message_count(DEAD).await == Some(0)
    })
    .await;
    // What was reported as replayed arrives once; of the rest, some messages may arrive twice.
    let arrived = consumer.all();
    for id in &done {
        let times = arrived.iter().filter(|one| one.id() == id).count();
        assert_eq!(times, 1, "{id}");
    }
    assert!(arrived.iter().all(|one| one.id().as_bytes() == one.body));
}

/// A dead letter forged by somebody who may publish to the dead-letter exchange only.
fn forged(id: &'static str, exchange: &str, key: &str, more: &Value) -> Put<'static> {
    let mut headers = json!({
        "source": "deskdirector", "session-id": "s", "status": "missed",
        "dead-letter-reason": "unroutable", "dead-letter-at": "2026-01-02T04:04:05.000Z",
        "original-exchange": exchange, "original-routing-key": key, "attempts": 2,
    });
    for (name, value) in more.as_object().unwrap() {
        headers[name] = value.clone();
    }
    Put {
        exchange: DEAD,
        key: "unroutable",
        id: Some(id),
        headers,
        body: b"{\"id\":\"s\",\"status\":\"missed\"}",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_dead_letter_reaches_no_other_queue() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    vhost.queue_bound("crm", "chat-sessions", "k").await;
    vhost.queue_bound("payroll", "amq.topic", "k").await;
    let copies = json!({"CC": ["payroll"], "BCC": ["payroll"]});
    let died = json!({
        "original-exchange": null, "original-routing-key": null,
        "x-death": [{"exchange": "", "queue": "x", "reason": "rejected", "routing-keys": ["payroll"]}],
    });
    let letters = [
        forged("queue", "", "payroll", &json!({})),
        forged("exchange", "amq.topic", "k", &json!({})),
        forged("death", "", "", &died),
        forged("copies", "chat-sessions", "k", &copies),
    ];
    Put::all(&vhost, &letters).await;
    holds(&vhost, DEAD, 4).await;
    let listed = dead_letters(&bridge, "list --json").await.exits(0);
    assert_eq!(listed.field("written_by"), ["other"; 4]);
    let listed = dead_letters(&bridge, "list").await.exits(0);
    assert!(
        listed
            .err
            .contains("!: 4 messages were not written by the bridge"),
        "{listed:?}"
    );
    let marked = listed.text.lines().filter(|line| line.contains(" ! "));
    assert_eq!(marked.count(), 5, "the header line and all: {listed:?}");
    let shown = dead_letters(&bridge, "show queue").await.exits(0);
    let author = "written by       somebody else";
    assert!(shown.text.contains(author), "{shown:?}");

    let told = dead_letters(&bridge, "replay --all").await.exits(1);
    assert!(
        told.text
            .contains("kept queue: it says that it was going directly to queue `payroll`"),
        "{told:?}"
    );
    assert!(
        told.text
            .contains("going to exchange `amq.topic`, which is not one of [routing]"),
        "{told:?}"
    );
    assert!(told.err.contains("1 replayed, 3 kept in queue"), "{told:?}");
    holds(&vhost, DEAD, 3).await;
    assert_eq!(vhost.message_count("payroll").await, Some(0));
    let arrived = everything_in(&vhost, "crm").await;
    assert_eq!(ids(&arrived), ["copies"]);
    assert!(!arrived[0].headers.contains_key("CC"), "{arrived:?}");

    // An explicit destination is allowed.
    let line = "replay exchange --to-exchange amq.topic";
    dead_letters(&bridge, line).await.exits(0);
    assert_eq!(ids(&everything_in(&vhost, "payroll").await), ["exchange"]);
    let line = ["replay", "queue", "--to-exchange", ""];
    let told = Told::from(bridge.run("dead-letters", &line).await).exits(0);
    assert!(
        told.text.contains("replayed queue to queue payroll"),
        "{told:?}"
    );
    assert_eq!(ids(&everything_in(&vhost, "payroll").await), ["queue"]);
}

pub(super) fn id_of(letter: &Value) -> String {
    letter["id"].as_str().expect("it has one").to_owned()
}

pub(super) fn different(messages: &[Message]) -> BTreeSet<&str> {
    messages.iter().map(Message::id).collect()
}

/// The ids that a replay reported as replayed.
fn replayed(told: &[u8]) -> Vec<String> {
    let told = String::from_utf8_lossy(told);
    let id = |line: &str| {
        let id = line
            .strip_prefix("replayed ")
            .and_then(|rest| rest.strip_suffix(" to orders k"));
        id.unwrap_or_else(|| panic!("`{line}`")).to_owned()
    };
    told.lines().map(id).collect()
}

/// Starts a replay of everything and sends it a signal as soon as a hundred more messages have
/// arrived.
async fn interrupted(bridge: &Bridge, consumer: &Consumer, how: Signal) -> Output {
    begun(bridge, consumer, |pid| signal(pid, how)).await
}

/// Replays everything to the exchange `orders`; when a hundred more messages have arrived, calls
/// `then` with the process id of the command.
pub(super) async fn begun(bridge: &Bridge, consumer: &Consumer, then: impl FnOnce(u32)) -> Output {
    let before = consumer.count();
    let line = ["replay", "--all", "--to-exchange", "orders"];
    let mut command: Command = bridge.command("dead-letters", &line);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pid = child.id();
    end_with_us(pid);
    eventually("a hundred have arrived", SOON, || async {
        consumer.count() >= before + 100
    })
    .await;
    then(pid);
    let output = tokio::task::spawn_blocking(move || child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    has_ended(pid);
    output
}

/// Declares the destination of the dead letters of [`put_letters`].
pub(crate) async fn orders(vhost: &Vhost, with: serde_json::Value) {
    vhost.declare_exchange("orders", "topic", json!({})).await;
    vhost.declare_queue("orders", with).await;
    vhost.bind("orders", "orders", "k").await;
}
