//! A command ends when the reader of its output closes the pipe, also while it has no output. A
//! reader that pauses costs neither the connection to the broker nor the exact count of messages
//! that were not shown.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::dead_letters::{DEAD, put_letters, replay::orders};
use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::process::{end_with_us, has_ended, processor_time, signal};
use crate::support::wait::{SOON, eventually, eventually_some};

/// Starts a command with pipes for its output.
fn piped(bridge: &Bridge, command: &str, words: &[&str]) -> Child {
    let mut command = bridge.command(command, words);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    end_with_us(child.id());
    child
}

/// Starts `tail`.
pub(super) fn following(bridge: &Bridge, words: &[&str]) -> (Child, BufReader<ChildStderr>) {
    let mut tail = piped(bridge, "tail", words);
    let said = BufReader::new(tail.stderr.take().unwrap());
    (tail, said)
}

/// Waits until `tail` has subscribed.
pub(super) fn is_waiting(said: &mut impl BufRead) {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("waiting for "), "{line}");
}

async fn ends(child: &mut Child) -> ExitStatus {
    let status = eventually_some("the command ends", SOON, || {
        let ended = child.try_wait().unwrap();
        async move { ended }
    });
    let status = status.await;
    has_ended(child.id());
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_tail_ends_with_its_reader() {
    let (vhost, mut bridge) = on_shared_broker("").await;
    bridge.terminate().await;
    let (mut tail, mut said) = following(&bridge, &[]);
    is_waiting(&mut said);
    drop(tail.stdout.take());
    assert_eq!(ends(&mut tail).await.code(), Some(0));
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    eventually("no consumer is left", SOON, || async {
        vhost.connections_named("deskbridge").await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_follow_ends_with_its_reader() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.post(r#"[{"id":"a","status":"created"}]"#).await;
    let mut list = piped(&bridge, "events", &["list", "--follow"]);
    let mut out = BufReader::new(list.stdout.take().unwrap());
    let mut head = String::new();
    out.read_line(&mut head).unwrap();
    assert!(head.starts_with("SEQ"), "{head}");
    drop(out);
    assert_eq!(ends(&mut list).await.code(), Some(0));
}

/// Waits until the command has received everything; on a busy machine that takes a while.
async fn has_received_all(pid: u32) {
    let idle = || async {
        let before = processor_time(pid);
        tokio::time::sleep(Duration::from_millis(900)).await;
        processor_time(pid) == before
    };
    eventually("the command is idle", SOON, idle).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_reader_keeps_the_connection() {
    const COUNT: usize = 30;
    let (vhost, bridge) = on_shared_broker("rabbitmq.heartbeat = '1s'").await;
    let (mut tail, mut said) = following(&bridge, &["--json"]);
    is_waiting(&mut said);
    // More than is buffered for a slow reader.
    let body = json!("x".repeat(1 << 20)).to_string();
    for _ in 0..COUNT {
        assert!(vhost.publish("chat-sessions", "k", body.as_bytes()).await);
    }
    // Twice the time after which the broker misses a heartbeat.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(
        tail.try_wait().unwrap(),
        None,
        "the command is still running"
    );
    has_received_all(tail.id()).await;
    let out = BufReader::new(tail.stdout.take().unwrap());
    let reading = tokio::task::spawn_blocking(|| {
        let is_last = |line: &String| line.contains("\"body\":\"last\"");
        let lines = out.lines().map(Result::unwrap);
        let mut shown = 0;
        for line in lines {
            if is_last(&line) {
                break;
            }
            shown += 1;
        }
        shown
    });
    // Until there is room in the buffer again, this message is missed, too.
    let pid = tail.id();
    let mut sent = COUNT;
    let shown = tokio::select! {
        shown = reading => shown.unwrap(),
        () = async {
            loop {
                assert!(vhost.publish("chat-sessions", "k", b"\"last\"").await);
                sent += 1;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        } => unreachable!(),
    };
    assert!(shown < COUNT, "nothing was missed");
    signal(pid, Signal::INT);
    ends(&mut tail).await;
    // Each notice contains the total so far.
    let notices: Vec<_> = said.lines().map(Result::unwrap).collect();
    let last = notices
        .iter()
        .rfind(|notice| notice.contains("received but not shown"));
    let missed = last.expect("a notice").split(' ').next().unwrap();
    let missed: usize = missed.parse().unwrap();
    assert!(
        (COUNT..=sent).contains(&(shown + missed)),
        "{shown} {missed} {sent}: {notices:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_stops_in_order_with_its_reader() {
    const COUNT: usize = 2_000;
    let (vhost, mut bridge) = on_shared_broker("").await;
    bridge.terminate().await;
    orders(&vhost, json!({"x-queue-type": "quorum"})).await;
    put_letters(&vhost, "a", COUNT, "nacked").await;
    let words = ["replay", "--all", "--to-exchange", "orders"];
    let mut replay = piped(&bridge, "dead-letters", &words);
    drop(replay.stdout.take());
    let mut said = replay.stderr.take().unwrap();
    assert_eq!(ends(&mut replay).await.code(), Some(1));
    let mut err = String::new();
    said.read_to_string(&mut err).unwrap();
    assert!(err.contains("interrupted: "), "{err}");
    let left = vhost.message_count(DEAD).await.unwrap();
    let there = vhost.message_count("orders").await.unwrap();
    assert_eq!((left + there) as usize, COUNT);
    assert!(
        err.contains(&format!("interrupted: {there} replayed")),
        "{err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_code_does_not_depend_on_the_reader() {
    let nobody = crate::support::bridge::builder::free_address();
    let bridge = BridgeBuilder::at(&format!("amqp://guest:guest@{nobody}")).build();
    let mut check = piped(&bridge, "check", &[]);
    drop(check.stdout.take());
    assert_eq!(ends(&mut check).await.code(), Some(1));
    let mut schema = piped(&bridge, "schema", &[]);
    drop(schema.stdout.take());
    assert_eq!(ends(&mut schema).await.code(), Some(0));
}
