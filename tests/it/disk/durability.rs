//! No 2xx before the commit is on disk, shown by the system calls of the real process in the log of
//! strace.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::json;

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::sender::{array_of, session};
use crate::support::wait::{SOON, eventually};

/// A bridge under strace, which injects a fault into some calls. It has no broker, so that every
/// commit is that of a webhook.
fn traced(fault: &str) -> BridgeBuilder {
    traced_at(&format!("amqp://guest:guest@{}/", free_address()), fault)
}

/// As [`traced`], with a broker.
fn traced_at(amqp_url: &str, fault: &str) -> BridgeBuilder {
    let builder = BridgeBuilder::at(amqp_url);
    let log = builder.dir().join("strace.log").display().to_string();
    let calls = "trace=fallocate,fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg";
    let fault = format!("inject={fault}");
    builder.under(&[
        "strace", "-f", "-o", &log, "-s", "8192", "-e", calls, "-e", &fault,
    ])
}

fn log_of(bridge: &Bridge) -> String {
    std::fs::read_to_string(bridge.dir().join("strace.log")).expect("strace is installed")
}

/// One line of strace: thread, and text of the call or of its return.
struct Line<'a> {
    thread: &'a str,
    text: &'a str,
}

fn lines(log: &str) -> Vec<Line<'_>> {
    let lines = log.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(thread, text)| Line {
            thread,
            text: text.trim_start(),
        })
        .collect()
}

/// The line in which the commit that wrote `marker` first was on disk: the return of the next fsync
/// of the same thread.
fn synced_at(lines: &[Line<'_>], marker: &str) -> usize {
    let is_write =
        |line: &Line<'_>| line.text.starts_with("pwrite64(") && line.text.contains(marker);
    let written = lines
        .iter()
        .position(is_write)
        .expect("the marker was written");
    let thread = lines[written].thread;
    let mut later = lines
        .iter()
        .enumerate()
        .skip(written)
        .filter(|(_, line)| line.thread == thread);
    let returned = later.find(|(_, line)| {
        let is_sync = line.text.starts_with("fsync(")
            || line.text.starts_with("fdatasync(")
            || line.text.starts_with("<... fsync")
            || line.text.starts_with("<... fdatasync");
        is_sync && line.text.contains("= 0")
    });
    returned.expect("it was synced").0
}

/// The line in which the write of the answer with this webhook id began.
fn answered_at(lines: &[Line<'_>], webhook_id: &str) -> usize {
    let is_answer =
        |line: &Line<'_>| line.text.contains("HTTP/1.1 202") && line.text.contains(webhook_id);
    lines
        .iter()
        .position(is_answer)
        .expect("the answer was written")
}

/// Markers, and the ids in the answers to their webhooks.
type Answered = BTreeMap<String, String>;

/// Posts an event with a marker. Returns the webhook's id; otherwise the status, or 0 for no
/// answer.
async fn post_marked(bridge: &Bridge, marker: &str) -> Result<String, u16> {
    let body = array_of(&[session(marker, "created", json!({}))]);
    let answer = bridge.try_post(body).await.map_err(|_| 0_u16)?;
    match answer.status {
        202 => Ok(answer.json()["webhook_id"].as_str().unwrap().to_owned()),
        status => Err(status),
    }
}

/// Posts `each` webhooks on each of `senders` connections; a connection stops at the first answer
/// other than 202. Returns what was accepted and the other answers.
async fn post_at_once(bridge: &Arc<Bridge>, senders: usize, each: usize) -> (Answered, Vec<u16>) {
    let posts: Vec<_> = (0..senders)
        .map(|sender| {
            let bridge = Arc::clone(bridge);
            tokio::spawn(async move {
                let mut answered = Answered::new();
                for number in 0..each {
                    let marker = format!("at-once-{sender:02}-{number:03}.");
                    match post_marked(&bridge, &marker).await {
                        Ok(webhook_id) => answered.insert(marker, webhook_id),
                        Err(status) => return (answered, Some(status)),
                    };
                }
                (answered, None)
            })
        })
        .collect();
    let (mut answered, mut refused) = (Answered::new(), Vec::new());
    for post in posts {
        let (more, other) = post.await.unwrap();
        answered.extend(more);
        refused.extend(other);
    }
    (answered, refused)
}

fn check_honesty(log: &str, answered: &Answered) {
    let lines = lines(log);
    for (marker, webhook_id) in answered {
        let (synced, answer) = (synced_at(&lines, marker), answered_at(&lines, webhook_id));
        assert!(
            synced < answer,
            "`{marker}` was answered in line {answer}, but synced in line {synced}:\n{}\n{}",
            lines[answer].text,
            lines[synced].text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_202_before_fsync() {
    let bridge = Arc::new(traced("fsync,fdatasync:delay_exit=20ms").start().await);
    let (answered, _) = post_at_once(&bridge, 1, 20).await;
    let mut bridge = Arc::into_inner(bridge).expect("no sender is left");
    bridge.kill().await; // strace then writes its log completely
    let log = log_of(&bridge);
    assert_eq!(answered.len(), 20);
    assert!(
        log.matches("(DELAYED)").count() >= 20,
        "fsync was slowed down"
    );
    check_honesty(&log, &answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_202_before_a_shared_fsync() {
    let bridge = Arc::new(traced("fsync,fdatasync:delay_exit=20ms").start().await);
    let (answered, _) = post_at_once(&bridge, 12, 5).await;
    let mut bridge = Arc::into_inner(bridge).expect("no sender is left");
    bridge.kill().await; // strace then writes its log completely
    let log = log_of(&bridge);
    assert_eq!(answered.len(), 60);
    let commits = log.matches("(DELAYED)").count();
    assert!(
        commits < 60,
        "{commits} fsyncs for 60 webhooks: none was shared"
    );
    check_honesty(&log, &answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_202_before_fsync_while_events_complete() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = traced_at(&vhost.amqp_url, "fsync,fdatasync:delay_exit=20ms")
        .connected()
        .await;
    let mut answered = Answered::new();
    for _ in 0..10 {
        let marker = format!("between-{:02}.", answered.len());
        let webhook_id = post_marked(&bridge, &marker).await.unwrap();
        answered.insert(marker, webhook_id);
        bridge.backlog_is_empty().await;
    }
    bridge.kill().await; // strace then writes its log completely
    check_honesty(&log_of(&bridge), &answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_fsync_is_503_and_ends_the_process() {
    ends_honestly("fsync,fdatasync:error=EIO:when=30", 1..=1).await;
}

/// On ext4, an fsync succeeds if it meets the abort of the journal; only the next allocation of
/// blocks fails.
#[tokio::test(flavor = "multi_thread")]
async fn file_system_abort_is_503_and_ends_the_process() {
    // The first call that fails may be the one that reserves blocks, whose error means nothing.
    ends_honestly("fallocate:error=EROFS:when=30+", 1..=2).await;
}

async fn ends_honestly(fault: &str, failed_calls: RangeInclusive<usize>) {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = Arc::new(traced(fault).start().await);
    let (answered, refused) = post_at_once(&bridge, 6, 200).await;
    let mut bridge = Arc::into_inner(bridge).expect("no sender is left");
    let exit = bridge.exit().await;
    let log = log_of(&bridge);
    let failed = log.matches("(INJECTED)").count();
    assert!(failed_calls.contains(&failed), "{failed} calls failed");
    assert_eq!(exit.status.code(), Some(1), "{}", bridge.stderr());
    assert!(
        bridge.stderr().contains("the journal failed"),
        "{}",
        bridge.stderr()
    );
    assert!(refused.contains(&503), "{refused:?}");
    assert!(
        refused.iter().all(|status| [503, 0].contains(status)),
        "{refused:?}"
    );
    assert!(
        answered.len() >= 20,
        "only {} accepted before the fault",
        answered.len()
    );
    check_honesty(&log, &answered);

    let restarted = BridgeBuilder::new(&vhost)
        .journal_in(&bridge.journal_dir())
        .start()
        .await;
    restarted.backlog_is_empty().await;
    // Nobody has subscribed, so the events are in this queue.
    let waiting = Consumer::of(&vhost, "chat-sessions.unrouted").await;
    eventually("everything accepted has arrived", SOON, || async {
        let arrived: Vec<_> = waiting
            .all()
            .into_iter()
            .filter_map(|message| message.correlation_id)
            .collect();
        answered.keys().all(|marker| arrived.contains(marker))
    })
    .await;
}
