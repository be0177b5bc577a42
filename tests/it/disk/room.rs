//! A small disk: what is settled gives way to what is not, nothing else does, and it is told before
//! anything is refused.

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

const NOBODY: &str = "amqp://guest:guest@127.0.0.1:1/";

/// Answers later than this are not within the second that is promised; with room for a busy machine.
const LATEST: Duration = Duration::from_secs(3);

/// A vhost that takes everything and keeps nothing.
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

/// Posts several times what the disk holds, the broker being there.
async fn check_gives_way(disk: &Disk, disk_free_min: &str, webhooks: usize) {
    let vhost = sink().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with(&format!("journal.disk_free_min = {disk_free_min:?}"))
        .with("telemetry.log_level = \"info\"")
        .journal_in(&disk.path().join("journal"))
        .start()
        .await;
    bridge.broker_is("connected").await;
    let mut slowest = Duration::ZERO;
    for number in 0..webhooks {
        let began = Instant::now();
        let answer = bridge.post(large(number)).await;
        slowest = slowest.max(began.elapsed());
        assert_eq!(answer.status, 202, "webhook {number}: {}", bridge.stderr());
    }
    assert!(slowest < LATEST, "{slowest:?}");
    bridge.says("settled events are deleted before").await;
    bridge.backlog_is_empty().await;
    let status = bridge.status().await;
    assert!(
        status["disk"]["retained_bytes"].as_u64() > Some(1 << 20),
        "some is kept: {status}"
    );
    assert!(bridge.ready().await);
    println!("slowest {slowest:?}; {}", status["disk"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_events_give_way_on_ext4() {
    let Some(disk) = Disk::in_a_file("settled_events_give_way_on_ext4", 160 << 20) else {
        return;
    };
    check_gives_way(&disk, "16MiB", 1200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_events_give_way_in_memory() {
    let Some(disk) = Disk::in_memory("settled_events_give_way_in_memory", "64m") else {
        return;
    };
    check_gives_way(&disk, "8MiB", 600).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_events_give_way_without_a_floor() {
    let test = "settled_events_give_way_without_a_floor";
    let Some(disk) = Disk::in_memory(test, "64m") else {
        return;
    };
    check_gives_way(&disk, "0B", 600).await;
}

/// Takes what is free but for so many bytes.
fn fill_but(disk: &Path, rest: u64) -> std::path::PathBuf {
    let found = rustix::fs::statvfs(disk).unwrap();
    let free = found.f_bavail * found.f_frsize;
    let path = disk.join("filler");
    let size = usize::try_from(free.saturating_sub(rest)).unwrap();
    std::fs::write(&path, vec![1; size]).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_takes_the_disk() {
    let Some(disk) = Disk::in_memory("another_program_takes_the_disk", "64m") else {
        return;
    };
    let vhost = sink().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with("journal.disk_free_min = \"4MiB\"")
        .journal_in(&disk.path().join("journal"))
        .start()
        .await;
    bridge.broker_is("connected").await;
    for number in 0..60 {
        assert_eq!(bridge.post(large(number)).await.status, 202);
    }
    bridge.backlog_is_empty().await;
    // Some 12 MB are settled: enough to make up for what is missing. Not one block is left.
    fill_but(disk.path(), 0);
    for number in 0..60 {
        let answer = bridge.post(large(number)).await;
        assert_eq!(answer.status, 202, "webhook {number}: {}", bridge.stderr());
        assert!(bridge.ready().await, "{}", bridge.stderr());
        if number % 10 == 9 {
            // On a busy machine the broker could lag behind by all that can give way.
            bridge.backlog_is_empty().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_is_told_before_503() {
    let Some(disk) = Disk::in_memory("a_disk_that_fills_is_told_before_503", "64m") else {
        return;
    };
    let bridge = BridgeBuilder::at(NOBODY)
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
    bridge.says("the journal's disk is nearly full").await;
    assert_eq!(bridge.post(array_of_new("nearly", 1)).await.status, 202);
    assert!(bridge.ready().await);
    std::fs::remove_file(&filler).unwrap();
    bridge.says("not nearly full any more").await;

    let filler = fill_but(disk.path(), 4 << 20);
    eventually("/readyz says no", SOON, || async { !bridge.ready().await }).await;
    assert_eq!(bridge.post(array_of_new("refused", 1)).await.status, 503);
    assert!(bridge.metrics().await.sum("ready") < 0.5);
    let why = bridge.admin("/readyz").await.text();
    assert!(why.contains("disk is full"), "{why}");
    std::fs::remove_file(filler).unwrap();
    eventually("/readyz says yes", SOON, || bridge.ready()).await;
    assert_eq!(bridge.post(array_of_new("after", 1)).await.status, 202);
}

/// Whatever `/readyz` says between two webhooks holds for the next one, up to the limit and back.
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
    let bridge = BridgeBuilder::at(NOBODY)
        .with("http.body_bytes_max = \"64KiB\"\njournal.backlog_bytes_max = \"512KiB\"")
        .start()
        .await;
    check_agreement(&bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_elements_count_as_what_they_take() {
    let bridge = BridgeBuilder::at(NOBODY)
        .with("http.body_bytes_max = \"64KiB\"\njournal.backlog_bytes_max = \"4MiB\"")
        .start()
        .await;
    let body = format!("[{}]", vec!["{}"; 1000].join(","));
    let mut events = 0;
    while bridge.post(&body).await.status == 202 {
        events += 1000;
        assert!(events < 100_000, "bodies alone are counted");
    }
    let size = bridge.metrics().await.sum("journal_backlog_bytes");
    let file = std::fs::metadata(bridge.journal_dir().join("journal.db")).unwrap();
    let log = std::fs::metadata(bridge.journal_dir().join("journal.db-wal")).unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = size / file.len().max(log.len()) as f64;
    assert!((0.5..2.0).contains(&ratio), "{events} events, {ratio}");
}
