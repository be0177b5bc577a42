//! There is no more room: in the journal, or on its disk.

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

/// Posts one event after the other until one is refused; returns how many were accepted. Only 202
/// and 503 with `Retry-After` are answers.
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
async fn a_full_journal_is_503_while_it_is_forwarded_and_202_when_there_is_room() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("journal.backlog_bytes_max = \"32KiB\"\nhttp.body_bytes_max = \"32KiB\"")
        .start()
        .await;
    bridge.broker_is("connected").await;
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

    // A single byte of backlog less than the limit and something small is taken; so fill it up.
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
    assert_eq!(sessions_of(&messages).len(), messages.len(), "each once");
    bridge.backlog_is_empty().await;
    eventually("there is room again", SOON, || {
        is_accepted(&bridge, "after")
    })
    .await;
    assert!(sessions_of(&consumer.receive_n(4).await).contains("after-0"));
    assert!(bridge.ready().await);
}

/// What the disk still takes when nobody keeps any space free is accepted, then nothing, then
/// everything again; and what was accepted arrives.
async fn check_full_disk(test: &str, disk_free_min: &str) {
    let Some(disk) = Disk::in_memory(test, "6m") else {
        return;
    };
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost)
        .with(&format!("journal.disk_free_min = {disk_free_min:?}"))
        .journal_in(&disk.path().join("journal"))
        .start()
        .await;
    bridge.broker_is("connected").await;
    let mut consumer = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    assert!(is_accepted(&bridge, "before").await);
    let filler = disk.fill();
    let accepted = fill(&bridge, "full").await;
    eventually("/readyz says no", SOON, || async { !bridge.ready().await }).await;
    for number in 0..5 {
        assert!(!is_accepted(&bridge, &format!("refused-{number}")).await);
    }
    std::fs::remove_file(filler).unwrap();
    eventually(
        "webhooks are accepted again",
        Duration::from_secs(2),
        || is_accepted(&bridge, "after"),
    )
    .await;
    bridge.backlog_is_empty().await;
    let messages = consumer.receive_n(4 + 4 * accepted + 4).await;
    let sessions = sessions_of(&messages);
    assert_eq!(sessions.len(), messages.len(), "each once");
    assert!(
        !sessions
            .iter()
            .any(|session| session.starts_with("refused"))
    );
    consumer
        .receives_nothing_for(Duration::from_millis(300))
        .await;
    assert!(bridge.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_space_is_503_and_within_two_seconds_of_space_202() {
    let test = "a_disk_without_space_is_503_and_within_two_seconds_of_space_202";
    check_full_disk(test, "0B").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_less_space_than_is_kept_free_is_503_and_within_two_seconds_of_space_202() {
    let test =
        "a_disk_with_less_space_than_is_kept_free_is_503_and_within_two_seconds_of_space_202";
    check_full_disk(test, "1MiB").await;
}
