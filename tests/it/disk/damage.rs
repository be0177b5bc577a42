//! The database is damaged: as a whole, or in a single event.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn readable_events_of_a_damaged_database_arrive() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::without_broker().start().await;
    assert_eq!(bridge.post(array_of_new("before", 2000)).await.status, 202);
    assert_eq!(bridge.terminate().await.status.code(), Some(0));
    let database = bridge.journal_dir().join("journal.db");
    let length = damage_the_middle(&database);

    bridge.reconfigure(&format!("rabbitmq.urls = [{:?}]", vhost.amqp_url));
    let checked = bridge.run("check", &[]).await;
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.contains("`journal.db` is damaged"), "{checked}");
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
        "the damaged database is kept unchanged: {aside:?}"
    );
    let status = bridge.status().await;
    let lost = status["journal"]["lost_events"].as_u64().unwrap();
    // Nobody has subscribed, so the events are in this queue.
    let waiting = Consumer::of(&vhost, "chat-sessions.unrouted").await;
    let expected = 2001 - usize::try_from(lost).unwrap();
    eventually("the salvaged events arrive", SOON, || async {
        waiting.count() >= expected
    })
    .await;
    let arrived: BTreeSet<_> = waiting
        .all()
        .into_iter()
        .map(|message| message.correlation_id.unwrap())
        .collect();
    assert_eq!(
        arrived.len(),
        expected,
        "{lost} events are reported as lost"
    );
    assert!(
        (1..2000).contains(&lost),
        "{lost} lost: some events, but not all"
    );
    assert!(arrived.contains("after-0"));
    bridge.says(&format!("lost_events={lost}")).await;
}

/// Overwrites a twentieth of the file in its middle and returns the file's length. The WAL keeps no
/// copy of these pages, which would undo the damage.
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

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bit_dead_letters_one_event() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::without_broker().start().await;
    let event = |id: &str, name: &str| session(id, "created", json!({"name": name}));
    let events = [
        event("a", "first"),
        event("b", "the-marked-one"),
        event("b", "next"),
        event("c", "last"),
    ];
    assert_eq!(bridge.post(array_of(&events)).await.status, 202);
    assert_eq!(bridge.terminate().await.status.code(), Some(0));
    flip_a_bit(&bridge.journal_dir().join("journal.db"), b"the-marked-one");

    bridge.reconfigure(&format!("rabbitmq.urls = [{:?}]", vhost.amqp_url));
    bridge.start().await;
    bridge.backlog_is_empty().await;
    let mut letters = Consumer::of(&vhost, "chat-sessions.dead-letter").await;
    let letter = letters.receive().await;
    assert_eq!(letter.header("dead-letter-reason"), "damaged");
    assert_eq!(letter.header("session-id"), "b");
    assert_eq!(
        letter.message_id.as_deref(),
        Some(&*id_of(&bridge.journal_dir(), "b")),
        "the id of the original body"
    );
    let mut good = Consumer::of(&vhost, "chat-sessions.unrouted").await;
    let names: BTreeSet<_> = good
        .receive_n(3)
        .await
        .iter()
        .map(|message| message.json()["name"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.iter().eq(["first", "last", "next"]), "{names:?}");
    let metrics = bridge.metrics().await;
    let counted = metrics.sum_where("dead_letters_total", &[("reason", "damaged")]);
    assert_eq!(counted, 1.0);
    bridge.says("damaged").await;
}

/// Finds these bytes in the file and flips the lowest bit of the first.
fn flip_a_bit(database: &Path, marker: &[u8]) {
    let content = std::fs::read(database).unwrap();
    let found = content
        .windows(marker.len())
        .position(|bytes| bytes == marker);
    let at = found.expect("the marker is in the file");
    let file = OpenOptions::new().write(true).open(database).unwrap();
    file.write_all_at(&[marker[0] ^ 1], at as u64).unwrap();
}

/// The `message_id` of the first event of a session, according to the journal.
fn id_of(journal_dir: &Path, session: &str) -> String {
    let database = rusqlite::Connection::open(journal_dir.join("journal.db")).unwrap();
    let sql = "SELECT message_id FROM events WHERE session = ?1 ORDER BY seq LIMIT 1";
    database
        .query_row(sql, [session], |row| row.get(0))
        .unwrap()
}
