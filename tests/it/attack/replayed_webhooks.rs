//! A recorded genuine webhook is sent again and again. It cannot be told from a retry, so it is
//! accepted each time, with the same ids. Only the size limit of the journal bounds it.

use std::collections::BTreeSet;

use serde_json::json;

use super::genuine_sender::alone;
use super::size;
use crate::support::bridge::builder::on_shared_broker;
use crate::support::consumer::Consumer;
use crate::support::load::post_many;
use crate::support::sender::{array_of, session};
use crate::support::wait::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn replay_is_published_with_equal_message_ids() {
    let (vhost, bridge) = on_shared_broker("").await;
    let mut everything = Consumer::subscribed(&vhost, "chat-sessions", "#").await;
    let body = array_of(&[
        session("again-1", "created", json!({})),
        session("again-2", "missed", json!({})),
    ]);
    let times = size(500, 10_000);
    let answers = post_many(bridge.address(), &body, times).await;
    assert_eq!(answers, [(202, times)].into());
    let messages = everything.receive_n_within(2 * times, 6 * SOON).await;
    let ids: BTreeSet<_> = messages.iter().map(|message| message.id()).collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    bridge.backlog_is_empty().await;
    assert_eq!(bridge.counter("accepted").await, 2 * times as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_stop_at_the_journal_limit() {
    let bridge = alone()
        .with("journal.backlog_bytes_max = \"1MiB\"\nhttp.body_bytes_max = \"64KiB\"")
        .start()
        .await;
    let note = "x".repeat(12_000);
    let body = array_of(&[session("again", "created", json!({ "note": note }))]);
    let answers = post_many(bridge.address(), &body, 400).await;
    let accepted = answers[&202];
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(accepted + answers[&503], 400);
    let held = accepted * body.len();
    assert!(
        (900_000..1_200_000).contains(&held),
        "{held} bytes were accepted"
    );
    let on_disk: u64 = std::fs::read_dir(bridge.journal_dir())
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(on_disk < 16 << 20, "{on_disk} bytes on disk");
}
