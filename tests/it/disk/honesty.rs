//! No 2xx before the disk has it: the system calls of the real process, as strace saw them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::sender::{array_of, session};

/// A bridge without a broker (so that every commit is that of a webhook) under strace, which
/// injects a fault into fsync.
fn traced(fault: &str) -> BridgeBuilder {
    let nobody = format!("amqp://guest:guest@{}/", free_address());
    let builder = BridgeBuilder::at(&nobody);
    let log = builder.dir().join("strace.log").display().to_string();
    let calls = "trace=fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg";
    let fault = format!("inject=fsync,fdatasync:{fault}");
    builder.under(&[
        "strace", "-f", "-o", &log, "-s", "8192", "-e", calls, "-e", &fault,
    ])
}

fn log_of(bridge: &Bridge) -> String {
    std::fs::read_to_string(bridge.dir().join("strace.log")).expect("strace is installed")
}

/// One line of strace: who, what, and whether it was the end of a call.
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

/// Where the commit that wrote `marker` first was on the disk: the return of the next fsync by
/// the same thread.
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

/// Where the answer with this webhook's id began to be written.
fn answered_at(lines: &[Line<'_>], webhook_id: &str) -> usize {
    let is_answer =
        |line: &Line<'_>| line.text.contains("HTTP/1.1 202") && line.text.contains(webhook_id);
    lines
        .iter()
        .position(is_answer)
        .expect("the answer was written")
}

/// Markers and the ids of the answers to their webhooks.
type Answered = BTreeMap<String, String>;

async fn post_marked(bridge: &Bridge, marker: String) -> (String, String) {
    let answer = bridge
        .post(array_of(&[session(&marker, "created", json!({}))]))
        .await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    (
        marker,
        answer.json()["webhook_id"].as_str().unwrap().to_owned(),
    )
}

fn check_honesty(bridge: &Bridge, answered: &Answered) {
    let log = log_of(bridge);
    let lines = lines(&log);
    let answers = lines
        .iter()
        .filter(|line| line.text.contains("HTTP/1.1 202"))
        .count();
    assert_eq!(answers, answered.len(), "every answer is in the log");
    assert!(log.contains("(DELAYED)"), "fsync was slowed down");
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
async fn no_202_is_written_before_the_fsync_of_its_commit_returned() {
    let mut bridge = traced("delay_exit=20ms").start().await;
    let mut answered = Answered::new();
    for number in 0..20 {
        answered.extend([post_marked(&bridge, format!("one-by-one-{number:03}.")).await]);
    }
    bridge.kill().await;
    check_honesty(&bridge, &answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_202_is_written_before_the_fsync_of_its_commit_returned_for_webhooks_that_share_one() {
    let mut bridge = traced("delay_exit=20ms").start().await;
    let mut answered = Answered::new();
    let shared = Arc::new(bridge);
    let posts: Vec<_> = (0..12)
        .map(|sender| {
            let bridge = Arc::clone(&shared);
            tokio::spawn(async move {
                let mut answered = Answered::new();
                for number in 0..5 {
                    let marker = format!("at-once-{sender:02}-{number:02}.");
                    answered.extend([post_marked(&bridge, marker).await]);
                }
                answered
            })
        })
        .collect();
    for post in posts {
        answered.extend(post.await.unwrap());
    }
    bridge = Arc::into_inner(shared).expect("all have posted");
    bridge.kill().await;
    check_honesty(&bridge, &answered);
    let log = log_of(&bridge);
    let commits = log.matches("(DELAYED)").count();
    assert!(
        commits < 60,
        "{commits} fsyncs for 60 webhooks: none was shared"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fsync_is_503_and_the_end_of_the_process_and_a_restart_forwards_what_was_accepted()
{
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = traced("error=EIO:when=30").start().await;
    let load = Load::start(bridge.address(), 6);
    let exit = bridge.exit().await;
    let ledger = load.stop().await;
    let log = log_of(&bridge);
    assert_eq!(log.matches("(INJECTED)").count(), 1, "one fsync failed");
    assert_eq!(exit.status.code(), Some(1), "{}", bridge.stderr());
    assert!(ledger.answers.get(&503) > Some(&0), "{:?}", ledger.answers);
    assert!(
        ledger.answers.keys().eq([&202, &503]),
        "{:?}",
        ledger.answers
    );
    assert!(
        ledger.len() >= 60,
        "only {} events before the fault",
        ledger.len()
    );
    let after = log.split_once("(INJECTED)").unwrap().1;
    assert!(
        !after.contains("HTTP/1.1 202"),
        "a 202 after a failed fsync"
    );
    assert!(
        bridge.stderr().contains("the journal failed"),
        "{}",
        bridge.stderr()
    );

    let restarted = BridgeBuilder::new(&vhost)
        .journal_in(&bridge.journal_dir())
        .start()
        .await;
    restarted.backlog_is_empty().await;
    // Nobody has subscribed: they wait in this queue.
    let waiting = Consumer::of(&vhost, "chat-sessions.unrouted").await;
    assert_eq!(ledger.arrives_at(&waiting).await, 0);
}
