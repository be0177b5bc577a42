//! Impossible requests are reported in one sentence, with an exit code, and change nothing.

use super::{accept, bridge_with_queue, failed};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::skip::is_root;

const NOBODY: &str = "amqp://guest:guest@127.0.0.1:1/";

#[tokio::test(flavor = "multi_thread")]
async fn missing_journal_is_reported_and_not_created() {
    let bridge = BridgeBuilder::without_broker().build();
    let commands: [&[&str]; 4] = [
        &["list"],
        &["show", "1"],
        &["replay", "--all"],
        &["discard", "1"],
    ];
    for command in commands {
        let err = failed(&bridge.run("events", command).await, 1);
        assert!(err.contains("there is no journal in"), "{command:?}: {err}");
        assert!(err.contains("try:"), "{err}");
    }
    assert!(!bridge.journal_dir().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_journals_are_refused_unchanged() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/journal-v1.db");
    let bridge = BridgeBuilder::without_broker().build();
    std::fs::create_dir(bridge.journal_dir()).unwrap();
    let path = bridge.journal_dir().join("journal.db");
    let check = async |expected: &[&str]| {
        let before = std::fs::read(&path).unwrap();
        for arguments in [&["list", "--json"][..], &["replay", "--all"]] {
            let err = failed(&bridge.run("events", arguments).await, 1);
            for words in expected {
                assert!(err.contains(words), "{words}: {err}");
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), before);
    };
    std::fs::copy(golden, &path).unwrap();
    check(&["schema version 1", "deskbridge serve"]).await;
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch("PRAGMA user_version = 99").unwrap();
    database.close().unwrap();
    check(&["schema version 99"]).await;
    std::fs::write(&path, "somebody's notes").unwrap();
    check(&["is not a journal"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_users_are_refused() {
    if !is_root("other_users_are_refused") {
        return;
    }
    let mut bridge = BridgeBuilder::without_broker().start().await;
    bridge.terminate().await;
    let path = bridge.journal_dir().join("journal.db");
    std::os::unix::fs::chown(&path, Some(61_003), None).unwrap();
    let err = failed(&bridge.run("events", &["list"]).await, 1);
    assert!(err.contains("belongs to user 61003"), "{err}");
    assert!(err.contains("run it as the user of the bridge"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_selections_publish_nothing() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with_queue(&vhost, "all").await;
    accept(&bridge, &[("a", "created")]).await;
    bridge.backlog_is_empty().await;
    let check = async |arguments: &[&str], code, words: &str| {
        let arguments = [&["replay"], arguments].concat();
        let err = failed(&bridge.run("events", &arguments).await, code);
        assert!(err.contains(words), "{arguments:?}: {err}");
    };
    check(&[], 2, "no events are selected").await;
    check(&["1", "--all"], 2, "cannot be combined").await;
    check(
        &["--session", "z"],
        1,
        "no event of the journal is selected",
    )
    .await;
    check(&["1", "77"], 1, "no event 77").await;
    check(&["--since", "soon"], 2, "expected a time").await;
    check(
        &["--all", "--to-queue", "absent"],
        1,
        "queue `absent` is missing",
    )
    .await;
    assert_eq!(vhost.message_count("all").await, Some(1));
    assert_eq!(bridge.metrics().await.sum("replayed_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_without_broker_changes_nothing() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    accept(&bridge, &[("a", "created")]).await;
    bridge.backlog_is_empty().await;
    bridge.reconfigure(&format!("rabbitmq.urls = ['{NOBODY}']"));
    let err = failed(&bridge.run("events", &["replay", "--all"]).await, 1);
    assert!(err.contains("connecting to the broker"), "{err}");
    assert!(err.contains("nothing was published"), "{err}");
    assert_eq!(bridge.counter("replayed").await, 0);
}
