//! A recorded genuine webhook is sent again and again. It cannot be told from a retry, so it is
//! accepted each time. Only the size limit of the journal bounds it.

use serde_json::json;

use super::genuine_sender::alone;
use crate::support::load::post_many;
use crate::support::sender::{array_of, session};

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
