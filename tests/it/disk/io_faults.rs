//! The disk fails temporarily: webhooks that cannot be stored get 503, and no accepted event is
//! lost, whichever file of the journal is hit and at which moment.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use super::strace::Fault;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::disk::Disk;
use crate::support::load::Load;
use crate::support::sender::array_of_new;
use crate::support::wait::{SOON, eventually};

/// Some calls fail under load, then they work again: webhooks get 503 meanwhile. At least `hits`
/// calls must fail.
async fn check_passing(fault: Fault<'_>, hits: usize) {
    let answers = passed(fault, hits).await;
    assert!(
        answers.contains_key(&503),
        "no webhook got 503: {answers:?}"
    );
}

/// The answers by status while some calls fail, and after.
async fn passed(fault: Fault<'_>, hits: usize) -> BTreeMap<u16, usize> {
    let vhost = Broker::shared().await.vhost().await;
    let builder = BridgeBuilder::new(&vhost).with("telemetry.log_level = \"info\"");
    let (builder, log) = fault.strike(builder);
    let bridge = builder.connected().await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let load = Load::start(bridge.address(), 4);
    log.has_hits(hits).await;
    eventually("webhooks are accepted again", SOON, || async {
        bridge.ready().await
    })
    .await;
    load.accepts(60).await;
    let ledger = load.stop().await;
    assert!(
        ledger.answers.keys().all(|code| [202, 503].contains(code)),
        "{:?}",
        ledger.answers
    );
    assert_eq!(ledger.unanswered + ledger.unsent, 0, "{:?}", ledger.answers);
    bridge.says(": journal ").await;
    ledger.arrives_at(&consumer).await;
    assert_eq!(ledger.torn(&consumer.all()), []);
    bridge.backlog_is_empty().await;
    ledger.answers
}

#[tokio::test(flavor = "multi_thread")]
async fn full_wal_is_503_until_there_is_space() {
    let fault = Fault {
        calls: "pwrite64",
        what: "error=ENOSPC:when=100..300",
        file: "journal.db-wal",
    };
    check_passing(fault, 201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_checkpoint_refuses_no_webhook() {
    let fault = Fault {
        calls: "pwrite64",
        what: "error=ENOSPC:when=3..5",
        file: "journal.db",
    };
    let (builder, log) = fault.strike(BridgeBuilder::without_broker());
    let mut bridge = builder.start().await;
    let load = Load::start(bridge.address(), 4);
    log.has_hits(3).await;
    load.accepts(60).await;
    let ledger = load.stop().await;
    assert_eq!(ledger.answers.keys().collect::<Vec<_>>(), [&202]);
    bridge.says("journal checkpoint failed").await;
    // The WAL has stored every webhook.
    bridge.kill().await;
    bridge.start().await;
    let held = bridge.status().await["backlog"]["events"].as_u64();
    assert_eq!(held, Some(ledger.len() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_write_error_is_503_until_it_ends() {
    let fault = Fault {
        calls: "pwrite64",
        what: "error=EIO:when=150..170",
        file: "journal.db-wal",
    };
    check_passing(fault, 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_read_only_is_503_until_it_ends() {
    let fault = Fault {
        calls: "pwrite64",
        what: "error=EROFS:when=100..140",
        file: "",
    };
    check_passing(fault, 41).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_stat_is_503_until_it_succeeds() {
    let fault = Fault {
        calls: "statx",
        what: "error=EIO:when=40..60",
        file: "journal.db",
    };
    check_passing(fault, 21).await;
}

/// Reads the reports to a service manager until its watchdog was not fed for this time, and then again.
fn is_not_fed_for(manager: &UnixDatagram, time: Duration) {
    manager.set_read_timeout(Some(2 * SOON)).unwrap();
    let (mut fed, mut report) = (Instant::now(), [0; 512]);
    loop {
        let length = manager.recv(&mut report).unwrap();
        if report[..length].starts_with(b"WATCHDOG=1") {
            if fed.elapsed() > time {
                return;
            }
            fed = Instant::now();
        }
    }
}

/// An accepted event may be acknowledged late, and a refused event may nevertheless be stored.
#[tokio::test(flavor = "multi_thread")]
async fn slow_fsync_is_a_late_202_then_503() {
    let fault = Fault {
        calls: "fsync,fdatasync",
        what: "delay_exit=11500ms:when=30",
        file: "journal.db-wal",
    };
    let (builder, log) = fault.strike(BridgeBuilder::without_broker());
    let socket = builder.dir().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let builder = builder
        .environment("NOTIFY_SOCKET", &socket.display().to_string())
        .environment("WATCHDOG_USEC", "2000000");
    let bridge = builder.start().await;
    let unfed = Duration::from_secs(8);
    let hung = tokio::task::spawn_blocking(move || is_not_fed_for(&manager, unfed));
    let load = Load::start(bridge.address(), 6);
    log.has_hits(1).await;
    hung.await.unwrap();
    load.accepts(60).await;
    let ledger = load.stop().await;
    let refused = ledger.answers.get(&503).copied().unwrap_or_default();
    assert!(
        ledger.answers.keys().all(|code| [202, 503].contains(code)) && (1..=6).contains(&refused),
        "{:?}",
        ledger.answers
    );
    assert_eq!(ledger.unanswered, 0);
    bridge.says("too slow").await;
    let held = bridge.status().await["backlog"]["events"].as_u64().unwrap();
    assert!(held >= ledger.len() as u64, "only {held} events are stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_disk_keeps_memory_bounded() {
    let fault = Fault {
        calls: "fsync,fdatasync",
        what: "delay_exit=1000ms:when=8+",
        file: "journal.db-wal",
    };
    let (builder, log) = fault.strike(BridgeBuilder::without_broker());
    let bridge = std::sync::Arc::new(builder.start().await);
    let senders: Vec<_> = (0..16)
        .map(|number| {
            let bridge = std::sync::Arc::clone(&bridge);
            // About 1 MiB each.
            let body = array_of_new(&format!("large-{number}"), 4000);
            tokio::spawn(async move { bridge.post(body).await.status })
        })
        .collect();
    let mut accepted = 0;
    for sender in senders {
        let status = sender.await.unwrap();
        assert!([202, 503].contains(&status), "{status}");
        accepted += usize::from(status == 202);
    }
    assert!(accepted >= 5, "{accepted} accepted");
    assert!(log.hits() >= 3, "{} slow fsyncs", log.hits());
    let most = bridge.rss_bytes_max();
    assert!(most < 64 << 20, "{most} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn lasting_read_only_is_503_and_loses_nothing() {
    let test = "lasting_read_only_is_503_and_loses_nothing";
    let Some(disk) = Disk::in_a_file(test, 64 << 20) else {
        return;
    };
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost)
        .journal_in(&disk.path().join("journal"))
        .connected()
        .await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let load = Load::start(bridge.address(), 4);
    load.accepts(60).await;
    disk.turn_read_only();
    eventually("the alarm is raised", SOON, || async {
        !bridge.is_running() || !bridge.ready().await
    })
    .await;
    let answer = bridge.try_post(array_of_new("refused", 1)).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 503));
    // A failed fsync ends the process, all other failures do not.
    bridge.kill().await;
    let ledger = load.stop().await;
    assert!(ledger.answers.keys().all(|code| [202, 503].contains(code)));
    assert!(bridge.stderr().contains("journal"), "{}", bridge.stderr());
    disk.restore();
    bridge.start().await;
    ledger.arrives_at(&consumer).await;
    bridge.backlog_is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_directory_is_503_within_a_second() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = crate::support::proxy::Proxy::to(vhost.amqp_address()).await;
    let mut bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .connected()
        .await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    proxy.refuse();
    assert_eq!(bridge.post(array_of_new("held", 5)).await.status, 202);
    // As if something were mounted over the directory for a moment.
    let aside = bridge.dir().join("aside");
    std::fs::rename(bridge.journal_dir(), &aside).unwrap();
    assert_eq!(bridge.post(array_of_new("refused", 1)).await.status, 503);
    std::fs::rename(&aside, bridge.journal_dir()).unwrap();
    eventually("webhooks are accepted again", SOON, || async {
        bridge.post("[]").await.status == 202
    })
    .await;
    std::fs::remove_dir_all(bridge.journal_dir()).unwrap();
    assert_eq!(bridge.post(array_of_new("refused", 1)).await.status, 503);
    eventually("the alarm is raised", Duration::from_secs(1), || async {
        !bridge.ready().await
    })
    .await;
    let status = bridge.status().await;
    assert!(status["journal"]["refusal"].is_string(), "{status}");
    bridge.says("was removed or replaced").await;
    proxy.pass();
    assert_eq!(consumer.receive_n(5).await.len(), 5);
    bridge.backlog_is_empty().await;
    bridge.terminate().await;
    bridge.start().await;
    assert_eq!(bridge.post(array_of_new("again", 1)).await.status, 202);
}
