//! The start with a journal directory in an unexpected state, and with a journal of an earlier
//! version.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::skip::is_root;
use crate::support::wait::{SOON, eventually};

/// A bridge that has run once, has stored an event, and has ended.
async fn ended() -> Bridge {
    let mut bridge = BridgeBuilder::without_broker().start().await;
    assert_eq!(bridge.post(array_of_new("held", 3)).await.status, 202);
    bridge.terminate().await;
    bridge
}

/// Name and content of every file, without the lock and SQLite's shared memory file.
fn content(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let named = files.map(|file| {
        let name = file.file_name().into_string().unwrap();
        (name, std::fs::read(file.path()).unwrap_or_default())
    });
    named
        .filter(|(name, content)| {
            let is_empty_log = name == "journal.db-wal" && content.is_empty();
            !is_empty_log && !["journal.lock", "journal.db-shm"].contains(&name.as_str())
        })
        .collect()
}

/// Panics unless the start fails with exit code 1 and these words, and changes nothing.
async fn check_refused(bridge: &mut Bridge, words: &[&str]) {
    let before = content(&bridge.journal_dir());
    let exit = bridge.run_to_exit().await;
    let said = bridge.stderr();
    let said = said.lines().rev().take(5).collect::<Vec<_>>().join("\n");
    assert_eq!(exit.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is missing:\n{said}");
    }
    assert_eq!(content(&bridge.journal_dir()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_journal_is_refused_unchanged() {
    let mut bridge = ended().await;
    let database = bridge.database();
    database.execute_batch("PRAGMA user_version = 99").unwrap();
    database.close().unwrap();
    check_refused(&mut bridge, &["schema version 99", "journal.db"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_journal_is_refused_unchanged() {
    let test = "unreadable_journal_is_refused_unchanged";
    if !is_root(test) {
        return;
    }
    let builder = BridgeBuilder::without_broker().for_user(61_001);
    let journal = builder.dir().join("journal");
    let mut bridge = builder.start().await;
    assert_eq!(bridge.post(array_of_new("held", 1)).await.status, 202);
    bridge.terminate().await;
    let database = journal.join("journal.db");
    std::os::unix::fs::chown(&database, Some(0), Some(0)).unwrap();
    check_refused(&mut bridge, &["journal.db", "user 0", "user 61001"]).await;
    std::os::unix::fs::chown(&database, Some(61_001), None).unwrap();
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o000);
    std::fs::set_permissions(&database, mode).unwrap();
    check_refused(&mut bridge, &["journal.db"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_process_is_refused_by_a_frozen_one() {
    let vhost = Broker::shared().await.vhost().await;
    let first = BridgeBuilder::new(&vhost).connected().await;
    first.freeze();
    let mut second = BridgeBuilder::new(&vhost)
        .journal_in(&first.journal_dir())
        .build();
    let exit = second.run_to_exit().await;
    assert_eq!(exit.status.code(), Some(1), "{}", second.stderr());
    let holder = format!("process {} on host", first.pid());
    assert!(second.stderr().contains(&holder), "{}", second.stderr());
    std::fs::remove_file(first.journal_dir().join("journal.lock")).unwrap();
    let exit = second.run_to_exit().await;
    assert_eq!(exit.status.code(), Some(1), "{}", second.stderr());
    first.thaw();
    assert_eq!(first.post(array_of_new("undisturbed", 1)).await.status, 202);
    first.backlog_is_empty().await;
}

/// Written by `write_golden_journal` with version 0.1.0: one published event, one dead-lettered,
/// one pending that is to be dead-lettered, and three pending of one session.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/journal-v1.db");

#[tokio::test(flavor = "multi_thread")]
async fn every_released_journal_format_is_read() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).build();
    std::fs::create_dir(bridge.journal_dir()).unwrap();
    std::fs::copy(GOLDEN, bridge.journal_dir().join("journal.db")).unwrap();
    bridge.start().await;
    bridge.backlog_is_empty().await;
    let counters = bridge.status().await["counters"].clone();
    assert_eq!(counters["accepted"], 6, "{counters}");
    assert_eq!(counters["published"], 4, "{counters}");
    let reasons = &counters["dead_lettered_by_reason"];
    assert_eq!(
        (&reasons["malformed"], &reasons["too-large"]),
        (&1.into(), &1.into())
    );
    let mut waiting = Consumer::of(&vhost, "chat-sessions.unrouted").await;
    let messages = waiting.receive_n(3).await;
    let statuses: Vec<_> = messages
        .iter()
        .map(|message| message.header("status"))
        .collect();
    assert_eq!(statuses, ["created", "handled", "completed"]);
    let mut letters = Consumer::of(&vhost, "chat-sessions.dead-letter").await;
    let letter = letters.receive().await;
    assert_eq!(letter.header("dead-letter-reason"), "too-large");
    assert_eq!(letter.header("session-id"), "large");
    assert_eq!(bridge.post(array_of_new("after", 1)).await.status, 202);
    assert_eq!(waiting.receive().await.header("session-id"), "after-0");
}

/// Writes the file above again; only for a new format, under a new name.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes test data"]
async fn write_golden_journal() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let mut bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("rabbitmq.message_bytes_max = \"20KiB\"\nhttp.body_bytes_max = \"20KiB\"")
        .connected()
        .await;
    bridge.post(array_of_new("published", 1)).await;
    bridge.post("malformed").await;
    bridge.backlog_is_empty().await;
    proxy.refuse();
    let large = session("large", "created", json!({"summary": "x".repeat(18 << 10)}));
    assert_eq!(bridge.post(array_of(&[large])).await.status, 202);
    for status in ["created", "handled", "completed"] {
        bridge
            .post(array_of(&[session("waiting", status, json!({}))]))
            .await;
    }
    bridge.terminate().await;
    // The large event is above the limit now, and the exchanges of its dead letter and of the other
    // events are missing.
    bridge.reconfigure(
        "rabbitmq.message_bytes_max = \"4KiB\"\nhttp.body_bytes_max = \"4KiB\"\n\
         rabbitmq.topology = \"verify\"\nrouting.exchange = \"absent\"\n\
         dead_letter.exchange = \"absent-too\"",
    );
    proxy.pass();
    bridge.start().await;
    eventually("the large event is to be dead-lettered", SOON, || async {
        let database = bridge.database();
        let sql = "SELECT count(*) FROM pending WHERE reason = 'too-large'";
        database
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .unwrap()
            == 1
    })
    .await;
    bridge.terminate().await;
    std::fs::copy(bridge.journal_dir().join("journal.db"), GOLDEN).unwrap();
}
