//! A genuine webhook, recorded and sent again and again. Nobody can tell that from a retry, so it
//! is accepted each time, under the same name; what bounds it is the journal.

use std::collections::BTreeSet;

use serde_json::json;

use super::genuine::alone;
use super::size;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::post_many;
use crate::support::sender::{array_of, session};
use crate::support::wait::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_sent_again_is_published_again_with_the_same_message_ids() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.broker_is("connected").await;
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
    assert_eq!(bridge.status().await["counters"]["accepted"], 2 * times);
}

#[tokio::test(flavor = "multi_thread")]
async fn repetitions_fill_the_journal_up_to_its_limit_and_no_further() {
    let bridge = alone()
        .with("journal.backlog_bytes_max = \"1MiB\"\nhttp.body_bytes_max = \"64KiB\"")
        .start()
        .await;
    let note = "x".repeat(10_000);
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
    assert!(on_disk < 16 << 20, "{on_disk} bytes on the disk");
}
