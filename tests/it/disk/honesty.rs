//! No 2xx before the disk has it: the system calls of the real process, as strace saw them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::sender::{array_of, session};
use crate::support::wait::{SOON, eventually};

/// A bridge without a broker (so that every commit is that of a webhook) under strace, which
/// injects a fault into fsync.
fn traced(fault: &str) -> BridgeBuilder {
    traced_at(&format!("amqp://guest:guest@{}/", free_address()), fault)
}

/// The same with a broker.
fn traced_at(amqp_url: &str, fault: &str) -> BridgeBuilder {
    let builder = BridgeBuilder::at(amqp_url);
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

/// Posts an event with a marker; the webhook's id, or another status than 202, or 0 for no answer.
async fn post_marked(bridge: &Bridge, marker: &str) -> Result<String, u16> {
    let body = array_of(&[session(marker, "created", json!({}))]);
    let answer = bridge.try_post(body).await.map_err(|_| 0_u16)?;
    match answer.status {
        202 => Ok(answer.json()["webhook_id"].as_str().unwrap().to_owned()),
        status => Err(status),
    }
}

/// Posts so many on each of so many connections, and no more on one that gets another answer than
/// 202; says what was accepted and what the others were answered.
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
async fn no_202_is_written_before_the_fsync_of_its_commit_returned() {
    let bridge = Arc::new(traced("delay_exit=20ms").start().await);
    let (answered, _) = post_at_once(&bridge, 1, 20).await;
    let mut bridge = Arc::into_inner(bridge).expect("all have posted");
    bridge.kill().await; // so that strace has written everything
    let log = log_of(&bridge);
    assert_eq!(answered.len(), 20);
    assert!(
        log.matches("(DELAYED)").count() >= 20,
        "fsync was slowed down"
    );
    check_honesty(&log, &answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_202_is_written_before_the_fsync_of_its_commit_returned_for_webhooks_that_share_one() {
    let bridge = Arc::new(traced("delay_exit=20ms").start().await);
    let (answered, _) = post_at_once(&bridge, 12, 5).await;
    let mut bridge = Arc::into_inner(bridge).expect("all have posted");
    bridge.kill().await; // so that strace has written everything
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
async fn no_202_is_written_before_the_fsync_of_its_commit_returned_while_events_are_settled() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = traced_at(&vhost.amqp_url, "delay_exit=20ms").start().await;
    bridge.broker_is("connected").await;
    let mut answered = Answered::new();
    for _ in 0..10 {
        let marker = format!("between-{:02}.", answered.len());
        let webhook_id = post_marked(&bridge, &marker).await.unwrap();
        answered.insert(marker, webhook_id);
        bridge.backlog_is_empty().await;
    }
    bridge.kill().await; // so that strace has written everything
    check_honesty(&log_of(&bridge), &answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fsync_is_503_and_the_end_of_the_process_and_a_restart_forwards_what_was_accepted()
{
    let vhost = Broker::shared().await.vhost().await;
    let bridge = Arc::new(traced("error=EIO:when=30").start().await);
    let (answered, refused) = post_at_once(&bridge, 6, 200).await;
    let mut bridge = Arc::into_inner(bridge).expect("all have posted");
    let exit = bridge.exit().await;
    let log = log_of(&bridge);
    assert_eq!(log.matches("(INJECTED)").count(), 1, "one fsync failed");
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
        "only {} before the fault",
        answered.len()
    );
    check_honesty(&log, &answered);

    let restarted = BridgeBuilder::new(&vhost)
        .journal_in(&bridge.journal_dir())
        .start()
        .await;
    restarted.backlog_is_empty().await;
    // Nobody has subscribed: they wait in this queue.
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
