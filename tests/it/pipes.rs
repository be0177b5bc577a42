//! Commands end with whoever reads them, also when they have nothing to say, and one that pauses costs
//! neither the connection to the broker nor the truth about what it did not see.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::dead_letters::{DEAD, put_letters, replaying::orders};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::process::{end_with_us, has_ended, signal};
use crate::support::wait::{SOON, eventually, eventually_some};

/// A command with pipes.
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

/// `tail`.
pub(super) fn following(bridge: &Bridge, words: &[&str]) -> (Child, BufReader<ChildStderr>) {
    let mut tail = piped(bridge, "tail", words);
    let said = BufReader::new(tail.stderr.take().unwrap());
    (tail, said)
}

/// It has subscribed.
pub(super) fn is_waiting(said: &mut impl BufRead) {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("waiting for "), "{line}");
}

async fn ends(child: &mut Child) -> ExitStatus {
    let status = eventually_some("it ends", SOON, || {
        let ended = child.try_wait().unwrap();
        async move { ended }
    });
    let status = status.await;
    has_ended(child.id());
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_ends_with_its_reader_while_nothing_passes() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    bridge.terminate().await;
    let (mut tail, mut said) = following(&bridge, &[]);
    is_waiting(&mut said);
    drop(tail.stdout.take());
    assert_eq!(ends(&mut tail).await.code(), Some(0));
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    eventually("nothing is subscribed", SOON, || async {
        vhost.connections_named("deskbridge").await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_of_the_journal_ends_with_its_reader() {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_reader_keeps_the_connection() {
    const COUNT: usize = 30;
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with("rabbitmq.heartbeat = '1s'")
        .start()
        .await;
    bridge.broker_is("connected").await;
    let (mut tail, mut said) = following(&bridge, &["--json"]);
    is_waiting(&mut said);
    // More than is kept for a reader.
    let body = json!("x".repeat(1 << 20)).to_string();
    for _ in 0..COUNT {
        assert!(vhost.publish("chat-sessions", "k", body.as_bytes()).await);
    }
    // Four times what the broker waits for a heartbeat.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(tail.try_wait().unwrap(), None, "it has ended");
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
    // Until there is room again it is missed too.
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
    // Each notice has the number so far.
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
async fn a_replay_stops_in_order_with_its_reader() {
    const COUNT: usize = 2_000;
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
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
async fn a_verdict_does_not_depend_on_a_reader() {
    let nobody = crate::support::bridge::builder::free_address();
    let bridge = BridgeBuilder::at(&format!("amqp://guest:guest@{nobody}")).build();
    let mut check = piped(&bridge, "check", &[]);
    drop(check.stdout.take());
    assert_eq!(ends(&mut check).await.code(), Some(1));
    let mut schema = piped(&bridge, "schema", &[]);
    drop(schema.stdout.take());
    assert_eq!(ends(&mut schema).await.code(), Some(0));
}
