//! The process is killed, or starts on what another one left.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::json;

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::proxy::{Direction, Proxy};
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_nothing_that_was_accepted() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let load = Load::start(bridge.address(), 8);
    for round in 0..4_u32 {
        load.accepts(150 + 37 * round as usize).await;
        bridge.kill().await;
        bridge.start().await;
    }
    load.accepts(100).await;
    let ledger = load.stop().await;
    assert!(ledger.unanswered > 0, "no request was hit by a kill");
    assert!(ledger.answers.keys().eq([&202]), "{:?}", ledger.answers);
    let repeated = ledger.arrives_at(&consumer).await;
    bridge.backlog_is_empty().await;
    // At most what was in flight at each kill.
    assert!(repeated <= 4 * 256, "{repeated} repetitions");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_at_a_kill_is_forwarded_after_the_restart() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = vhost.amqp_url_through(proxy.address());
    let mut bridge = BridgeBuilder::at(&url).start().await;
    bridge.broker_is("connected").await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    proxy.refuse();
    let load = Load::start(bridge.address(), 8);
    load.accepts(300).await;
    bridge.kill().await;
    let ledger = load.stop().await;
    assert!(
        consumer.count() < ledger.len(),
        "something must have waited"
    );
    proxy.pass();
    bridge.start().await;
    ledger.arrives_at(&consumer).await;
    bridge.backlog_is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_published_but_not_confirmed_at_a_kill_is_published_again_with_the_same_id() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let url = vhost.amqp_url_through(proxy.address());
    let mut bridge = BridgeBuilder::at(&url).start().await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    bridge.post(array_of_new("warm", 1)).await;
    bridge.backlog_is_empty().await;
    let warm = consumer.receive().await;

    proxy.stall(Direction::Down); // publishes arrive, confirms do not
    let two_steps =
        |chat: &str| ["created", "handled"].map(|status| session(chat, status, json!({})));
    bridge
        .post(array_of(&[two_steps("a"), two_steps("b")].concat()))
        .await;
    let unconfirmed = consumer.receive_n(2).await;
    bridge.kill().await;
    proxy.pass();
    bridge.start().await;

    let after = consumer.receive_n(4).await;
    let ids = |messages: &[_]| -> BTreeSet<String> {
        messages
            .iter()
            .map(|message: &crate::support::message::Message| message.id().to_owned())
            .collect()
    };
    assert!(
        ids(&after).is_superset(&ids(&unconfirmed)),
        "the same again: {after:#?}"
    );
    assert_eq!(ids(&after).len(), 4);
    assert!(
        !ids(&after).contains(warm.id()),
        "what was settled is not repeated"
    );
    for chat in ["a", "b"] {
        let statuses: Vec<_> = after
            .iter()
            .filter(|message| message.header("session-id") == chat)
            .map(|message| message.header("status").clone())
            .collect();
        assert_eq!(statuses, ["created", "handled"], "in order");
    }
    bridge.backlog_is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_journal_is_refused_and_the_first_undisturbed() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let mut second = BridgeBuilder::new(&vhost)
        .journal_in(&bridge.journal_dir())
        .build();
    let exit = second.run_to_exit().await;
    assert_eq!(exit.status.code(), Some(1), "{}", second.stderr());
    let holder = format!("process {} on host", bridge.pid());
    assert!(
        second.stderr().contains(&holder),
        "{holder}: {}",
        second.stderr()
    );
    assert!(bridge.is_running());
    assert_eq!(
        bridge.post(array_of_new("undisturbed", 1)).await.status,
        202
    );
    assert_eq!(
        consumer.receive().await.header("session-id"),
        "undisturbed-0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_set_aside_and_what_is_readable_of_it_still_arrives() {
    let vhost = Broker::shared().await.vhost().await;
    let nobody = format!("amqp://guest:guest@{}/", free_address());
    let mut bridge = BridgeBuilder::at(&nobody).start().await;
    assert_eq!(bridge.post(array_of_new("before", 2000)).await.status, 202);
    assert_eq!(bridge.terminate().await.status.code(), Some(0));
    let database = bridge.journal_dir().join("journal.db");
    let length = damage_the_middle(&database);

    bridge.reconfigure(&format!("rabbitmq.urls = [{:?}]", vhost.amqp_url));
    bridge.start().await;
    assert_eq!(bridge.post(array_of_new("after", 1)).await.status, 202);
    bridge.backlog_is_empty().await;
    let aside: Vec<_> = std::fs::read_dir(bridge.journal_dir())
        .unwrap()
        .map(|file| file.unwrap())
        .filter(|file| {
            file.file_name()
                .to_string_lossy()
                .starts_with("journal.db.damaged-")
        })
        .collect();
    assert!(
        aside
            .iter()
            .any(|file| file.metadata().unwrap().len() == length),
        "whole, as it was: {aside:?}"
    );
    let status = bridge.status().await;
    let lost = status["journal"]["lost_events"].as_u64().unwrap();
    // Nobody has subscribed: they wait in this queue.
    let waiting = Consumer::of(&vhost, "chat-sessions.unrouted").await;
    let expected = 2001 - usize::try_from(lost).unwrap();
    eventually("the rest arrives", SOON, || async {
        waiting.count() >= expected
    })
    .await;
    let arrived: BTreeSet<_> = waiting
        .all()
        .into_iter()
        .map(|message| message.correlation_id.unwrap())
        .collect();
    assert_eq!(arrived.len(), expected, "{lost} are said to be lost");
    assert!(
        (1..2000).contains(&lost),
        "{lost} lost: the damage hit, but not everything"
    );
    assert!(arrived.contains("after-0"));
    assert!(
        bridge.stderr().contains(&format!("lost_events={lost}")),
        "the log says so"
    );
}

/// Overwrites a twentieth of the file in its middle; returns the file's length. No copy of these
/// pages stays in the WAL, which would heal them.
fn damage_the_middle(database: &Path) -> u64 {
    let opened = rusqlite::Connection::open(database).unwrap();
    opened
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    drop(opened);
    let file = OpenOptions::new().write(true).open(database).unwrap();
    let length = file.metadata().unwrap().len();
    let garbage = vec![0xa5; usize::try_from(length / 20).unwrap()];
    file.write_all_at(&garbage, length / 2).unwrap();
    length
}
