//! A small disk: completed events are deleted to make room for pending ones, nothing else is, and
//! an operator is warned before webhooks are refused.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::disk::Disk;
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

/// The limit for answers, which should come within a second: with a margin for a busy machine.
const LATEST: Duration = Duration::from_secs(3);

/// A vhost in which every message is accepted and none is kept.
async fn sink() -> Vhost {
    let vhost = Broker::shared().await.vhost().await;
    vhost
        .declare_exchange("chat-sessions", "topic", json!({}))
        .await;
    vhost
        .declare_queue("sink", json!({"x-max-length": 1}))
        .await;
    vhost.bind("sink", "chat-sessions", "#").await;
    vhost
}

/// Ten sessions, some 200 KB in all.
fn large(number: usize) -> Vec<u8> {
    let sessions: Vec<_> = (0..10)
        .map(|index| {
            let note = json!({ "note": "x".repeat(20_000) });
            session(&format!("large-{number}-{index}"), "created", note)
        })
        .collect();
    array_of(&sessions)
}

/// Posts several times what the disk can store, while the broker is available.
async fn check_gives_way(disk: &Disk, disk_free_min: &str, webhooks: usize) {
    let vhost = sink().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with(&format!("journal.disk_free_min = {disk_free_min:?}"))
        .with("telemetry.log_level = \"info\"")
        .journal_in(&disk.path().join("journal"))
        .connected()
        .await;
    let mut slowest = Duration::ZERO;
    for number in 0..webhooks {
        let began = Instant::now();
        let answer = bridge.post(large(number)).await;
        slowest = slowest.max(began.elapsed());
        assert_eq!(answer.status, 202, "webhook {number}: {}", bridge.stderr());
    }
    assert!(slowest < LATEST, "{slowest:?}");
    bridge.says("deleting completed events before").await;
    bridge.backlog_is_empty().await;
    let status = bridge.status().await;
    assert!(
        status["disk"]["retained_bytes"].as_u64() > Some(1 << 20),
        "some completed events are kept: {status}"
    );
    assert!(bridge.ready().await);
    println!("slowest {slowest:?}; {}", status["disk"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_events_give_way_on_ext4() {
    let Some(disk) = Disk::in_a_file("completed_events_give_way_on_ext4", 160 << 20) else {
        return;
    };
    check_gives_way(&disk, "16MiB", 1200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_events_give_way_without_a_reserve() {
    let test = "completed_events_give_way_without_a_reserve";
    let Some(disk) = Disk::in_memory(test, "64m") else {
        return;
    };
    check_gives_way(&disk, "0B", 600).await;
}

/// Fills the disk except for `rest` bytes.
fn fill_but(disk: &Path, rest: u64) -> std::path::PathBuf {
    let found = rustix::fs::statvfs(disk).unwrap();
    let free = found.f_bavail * found.f_frsize;
    let path = disk.join("filler");
    let size = usize::try_from(free.saturating_sub(rest)).unwrap();
    std::fs::write(&path, vec![1; size]).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_fills_the_disk() {
    let Some(disk) = Disk::in_memory("another_program_fills_the_disk", "64m") else {
        return;
    };
    let vhost = sink().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with("journal.disk_free_min = \"4MiB\"")
        .journal_in(&disk.path().join("journal"))
        .connected()
        .await;
    for number in 0..60 {
        assert_eq!(bridge.post(large(number)).await.status, 202);
    }
    bridge.backlog_is_empty().await;
    // Some 12 MB of events are complete: deleting them frees enough. Not one block is free now.
    fill_but(disk.path(), 0);
    for number in 0..60 {
        let answer = bridge.post(large(number)).await;
        assert_eq!(answer.status, 202, "webhook {number}: {}", bridge.stderr());
        assert!(bridge.ready().await, "{}", bridge.stderr());
        if number % 10 == 9 {
            // On a busy machine, more events could become pending than can be deleted.
            bridge.backlog_is_empty().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filling_disk_is_reported_before_503() {
    let Some(disk) = Disk::in_memory("filling_disk_is_reported_before_503", "64m") else {
        return;
    };
    let bridge = BridgeBuilder::without_broker()
        .with("journal.disk_free_min = \"8MiB\"")
        .journal_in(&disk.path().join("journal"))
        .start()
        .await;
    let page = bridge.metrics().await;
    assert!(page.sum("journal_disk_free_bytes") > f64::from(40 << 20));
    assert!((page.sum("journal_disk_free_min_bytes") - f64::from(8 << 20)).abs() < 1.0);
    assert!(page.sum("journal_size_bytes") >= f64::from(16 << 10));
    assert!(page.sum("journal_backlog_limit_bytes") > 1e10);
    assert!(page.sum("ready") > 0.5);

    let filler = fill_but(disk.path(), 12 << 20);
    bridge.says("journal disk is nearly full").await;
    assert_eq!(bridge.post(array_of_new("nearly", 1)).await.status, 202);
    assert!(bridge.ready().await);
    std::fs::remove_file(&filler).unwrap();
    bridge.says("no longer nearly full").await;

    let filler = fill_but(disk.path(), 4 << 20);
    eventually("/readyz is not 200", SOON, || async {
        !bridge.ready().await
    })
    .await;
    assert_eq!(bridge.post(array_of_new("refused", 1)).await.status, 503);
    assert!(bridge.metrics().await.sum("ready") < 0.5);
    let why = bridge.admin("/readyz").await.text();
    assert!(
        why.contains("too little space is free on the journal's disk"),
        "{why}"
    );
    std::fs::remove_file(filler).unwrap();
    eventually("/readyz is 200", SOON, || bridge.ready()).await;
    assert_eq!(bridge.post(array_of_new("after", 1)).await.status, 202);
}

/// What `/readyz` reports between two webhooks is true of the next one, until the limit is reached
/// and afterwards.
async fn check_agreement(bridge: &Bridge) {
    let (mut accepted, mut refused) = (0, 0);
    for number in 0..400 {
        let note = json!({ "note": "x".repeat(1_500 + number % 7 * 300) });
        let body = array_of(&[session(&format!("s{number}"), "created", note)]);
        let is_ready = bridge.ready().await;
        let status = bridge.post(body).await.status;
        assert_eq!(is_ready, status == 202, "webhook {number}: {status}");
        if is_ready {
            accepted += 1;
        } else {
            refused += 1;
        }
    }
    assert!(accepted > 10 && refused > 10, "{accepted}, {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_agrees_with_the_next_answer() {
    let bridge = BridgeBuilder::without_broker()
        .with("http.body_bytes_max = \"64KiB\"\njournal.backlog_bytes_max = \"512KiB\"")
        .start()
        .await;
    check_agreement(&bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_elements_count_with_their_size_on_disk() {
    let bridge = BridgeBuilder::without_broker()
        .with("http.body_bytes_max = \"64KiB\"\njournal.backlog_bytes_max = \"4MiB\"")
        .start()
        .await;
    let body = format!("[{}]", vec!["{}"; 1000].join(","));
    let mut events = 0;
    while bridge.post(&body).await.status == 202 {
        events += 1000;
        assert!(events < 100_000, "only the bodies are counted");
    }
    let size = bridge.metrics().await.sum("journal_backlog_bytes");
    let file = std::fs::metadata(bridge.journal_dir().join("journal.db")).unwrap();
    let log = std::fs::metadata(bridge.journal_dir().join("journal.db-wal")).unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = size / file.len().max(log.len()) as f64;
    assert!((0.5..2.0).contains(&ratio), "{events} events, {ratio}");
}
