//! No room left: in the journal, or on its disk.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::disk::Disk;
use crate::support::message::Message;
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;
use crate::support::wait::{SOON, eventually};

/// Posts one webhook after the other until one is refused; returns how many were accepted. Only 202
/// and 503 with `Retry-After` are valid answers.
async fn fill(bridge: &Bridge, name: &str) -> usize {
    for number in 0..2000 {
        if !is_accepted(bridge, &format!("{name}-{number}")).await {
            return number;
        }
    }
    panic!("2000 webhooks were accepted");
}

async fn is_accepted(bridge: &Bridge, name: &str) -> bool {
    let answer = bridge.post(array_of_new(name, 4)).await;
    if answer.status == 503 {
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        assert!(answer.header("retry-after").is_some(), "{}", answer.text());
        return false;
    }
    assert_eq!(answer.status, 202, "{}", answer.text());
    true
}

fn sessions_of(messages: &[Message]) -> BTreeSet<String> {
    let sessions = messages
        .iter()
        .map(|message| message.correlation_id.clone().unwrap());
    sessions.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn full_journal_is_503_until_there_is_room() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("journal.backlog_bytes_max = \"32KiB\"\nhttp.body_bytes_max = \"32KiB\"")
        .connected()
        .await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    proxy.refuse();
    let accepted = fill(&bridge, "before").await;
    assert!(accepted > 10, "only {accepted} fit into 32 KiB");
    let status = bridge.status().await;
    assert_eq!(status["backlog"]["events"], 4 * accepted);
    assert!(
        status["backlog"]["bytes"].as_u64().unwrap() <= 32 << 10,
        "{status}"
    );

    // A small webhook is still accepted if the backlog is one byte below the limit, so fill it up.
    let mut singles = 0;
    while bridge
        .post(array_of_new(&format!("single-{singles}"), 1))
        .await
        .status
        == 202
    {
        singles += 1;
    }
    proxy.pass();
    let messages = consumer.receive_n(4 * accepted + singles).await;
    assert_eq!(
        sessions_of(&messages).len(),
        messages.len(),
        "no duplicates"
    );
    bridge.backlog_is_empty().await;
    eventually("there is room again", SOON, || {
        is_accepted(&bridge, "after")
    })
    .await;
    assert!(sessions_of(&consumer.receive_n(4).await).contains("after-0"));
    assert!(bridge.ready().await);
}

/// With no space kept free, webhooks are accepted until the disk is full, then refused, then
/// accepted again when there is space; all accepted events arrive.
async fn check_full_disk(test: &str, disk_free_min: &str) {
    let Some(disk) = Disk::in_memory(test, "6m") else {
        return;
    };
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with(&format!("journal.disk_free_min = {disk_free_min:?}"))
        .journal_in(&disk.path().join("journal"))
        .connected()
        .await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    assert!(is_accepted(&bridge, "before").await);
    let filler = disk.fill();
    let accepted = fill(&bridge, "full").await;
    eventually("/readyz is not 200", SOON, || async {
        !bridge.ready().await
    })
    .await;
    // Pending events complete meanwhile; deleting them makes room for a few more webhooks.
    let (mut late, mut refused, mut in_a_row) = (0, Vec::new(), 0);
    while in_a_row < 5 {
        assert!(
            late < 100,
            "webhooks are accepted although the disk is full"
        );
        let name = format!("late-{late}-{in_a_row}");
        if is_accepted(&bridge, &name).await {
            (late, in_a_row) = (late + 1, 0);
        } else {
            refused.push(name);
            in_a_row += 1;
        }
    }
    std::fs::remove_file(filler).unwrap();
    eventually(
        "webhooks are accepted again",
        Duration::from_secs(2),
        || is_accepted(&bridge, "after"),
    )
    .await;
    bridge.backlog_is_empty().await;
    let messages = consumer.receive_n(4 + 4 * (accepted + late) + 4).await;
    let sessions = sessions_of(&messages);
    assert_eq!(sessions.len(), messages.len(), "no duplicates");
    assert!(
        !sessions
            .iter()
            .any(|session| refused.iter().any(|name| session.starts_with(&**name)))
    );
    consumer
        .receives_nothing_for(Duration::from_millis(300))
        .await;
    assert!(bridge.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_is_503_until_there_is_space() {
    let test = "full_disk_is_503_until_there_is_space";
    check_full_disk(test, "0B").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn low_disk_is_503_until_there_is_space() {
    let test = "low_disk_is_503_until_there_is_space";
    check_full_disk(test, "1MiB").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_size_limit_is_503_and_does_not_end_the_process() {
    let bridge = BridgeBuilder::without_broker()
        .under(&["prlimit", "--fsize=2000000"])
        .start()
        .await;
    let accepted = fill(&bridge, "limited").await;
    assert!(accepted > 10, "{accepted}");
    assert!(bridge.is_running());
}
