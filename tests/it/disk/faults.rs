//! The disk refuses for a while: 503 for what cannot be held, and nothing of what was accepted is
//! lost, whichever of the journal's files is hit and at what moment.

use std::collections::BTreeMap;
use std::time::Duration;

use super::strace::Fault;
use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::disk::Disk;
use crate::support::load::Load;
use crate::support::sender::array_of_new;
use crate::support::wait::{SOON, eventually};

/// Under load some calls fail, then they work again: 503 meanwhile. `hits`: so many at least.
async fn check_passing(fault: Fault<'_>, hits: usize) {
    let answers = passed(fault, hits).await;
    assert!(answers.contains_key(&503), "nobody noticed: {answers:?}");
}

/// How webhooks are answered while some calls fail, and after.
async fn passed(fault: Fault<'_>, hits: usize) -> BTreeMap<u16, usize> {
    let vhost = Broker::shared().await.vhost().await;
    let builder = BridgeBuilder::new(&vhost).with("telemetry.log_level = \"info\"");
    let (builder, log) = fault.strike(builder);
    let bridge = builder.start().await;
    bridge.broker_is("connected").await;
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
    bridge.says("the journal").await;
    ledger.arrives_at(&consumer).await;
    assert_eq!(ledger.torn(&consumer.all()), []);
    bridge.backlog_is_empty().await;
    ledger.answers
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_for_the_log_is_503_until_there_is() {
    let fault = Fault {
        calls: "pwrite64",
        what: "error=ENOSPC:when=200..400",
        file: "journal.db-wal",
    };
    check_passing(fault, 201).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_space_for_a_checkpoint_refuses_no_webhook() {
    let fault = Fault {
        calls: "pwrite64",
        what: "error=ENOSPC:when=3..5",
        file: "journal.db",
    };
    // The log has taken every webhook, and settled events give way before any is refused.
    let answers = passed(fault, 3).await;
    assert!(!answers.contains_key(&503), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_error_of_the_log_is_503_until_it_is_over() {
    let fault = Fault {
        calls: "pwrite64",
        what: "error=EIO:when=150..170",
        file: "journal.db-wal",
    };
    check_passing(fault, 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_is_read_only_for_a_while_is_503_until_it_is_not() {
    let fault = Fault {
        calls: "pwrite64",
        what: "error=EROFS:when=100..140",
        file: "",
    };
    check_passing(fault, 41).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_looked_at_is_503_until_it_can() {
    let fault = Fault {
        calls: "statx",
        what: "error=EIO:when=40..60",
        file: "journal.db",
    };
    check_passing(fault, 21).await;
}

/// What is accepted is accepted late, and what is refused may still be held.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_fsync_is_a_late_202_and_a_very_slow_one_503() {
    let nobody = format!("amqp://guest:guest@{}/", free_address());
    let fault = Fault {
        calls: "fsync,fdatasync",
        what: "delay_exit=11500ms:when=30",
        file: "journal.db-wal",
    };
    let (builder, log) = fault.strike(BridgeBuilder::at(&nobody));
    let bridge = builder.start().await;
    let load = Load::start(bridge.address(), 6);
    log.has_hits(1).await;
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
    assert!(held >= ledger.len() as u64, "{held} held");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_while_the_disk_is_slow() {
    let nobody = format!("amqp://guest:guest@{}/", free_address());
    let fault = Fault {
        calls: "fsync,fdatasync",
        what: "delay_exit=1000ms:when=8+",
        file: "journal.db-wal",
    };
    let (builder, log) = fault.strike(BridgeBuilder::at(&nobody));
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
async fn a_file_system_that_goes_read_only_is_503_and_loses_nothing() {
    let test = "a_file_system_that_goes_read_only_is_503_and_loses_nothing";
    let Some(disk) = Disk::in_a_file(test, 64 << 20) else {
        return;
    };
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost)
        .journal_in(&disk.path().join("journal"))
        .start()
        .await;
    bridge.broker_is("connected").await;
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
    // A failed fsync ends it, everything else does not.
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
async fn a_directory_that_is_removed_is_503_within_a_second_and_what_was_held_goes_on_its_way() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = crate::support::proxy::Proxy::to(vhost.amqp_address()).await;
    let mut bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .start()
        .await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    proxy.refuse();
    assert_eq!(bridge.post(array_of_new("held", 5)).await.status, 202);
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
