//! `discard`.

use super::{DEAD, bridge_with, dead_letters, holds, ids, put_letters, put_letters_of};
use crate::support::broker::Broker;
use crate::support::consumer::everything_in;
use crate::support::terminal::answer_to;

#[tokio::test(flavor = "multi_thread")]
async fn discard_removes_the_selected_and_keeps_order() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    put_letters(&vhost, "a", 10, "nacked").await;
    let told = dead_letters(&bridge, "discard --all").await.exits(2);
    assert!(told.err.contains("--yes"), "{told:?}");
    let told = dead_letters(&bridge, "discard --yes").await.exits(2);
    assert!(told.err.contains("no messages selected"), "{told:?}");
    let told = dead_letters(&bridge, "discard --yes --reason invalid")
        .await
        .exits(1);
    assert!(told.err.contains("none of the 10 messages"), "{told:?}");
    holds(&vhost, DEAD, 10).await;

    let told = dead_letters(&bridge, "discard --yes a-3 nobody a-5")
        .await
        .exits(1);
    assert_eq!(told.text, "discarded a-3\ndiscarded a-5\n");
    assert!(told.err.contains("no message `nobody`"), "{told:?}");
    let told = dead_letters(&bridge, "discard --yes --json --session a-0")
        .await
        .exits(0);
    assert_eq!(told.field("outcome"), ["discarded"]);
    assert_eq!(told.field("id"), ["a-0"]);
    holds(&vhost, DEAD, 7).await;
    let left = everything_in(&vhost, DEAD).await;
    assert_eq!(
        ids(&left),
        ["a-1", "a-2", "a-4", "a-6", "a-7", "a-8", "a-9"]
    );
    dead_letters(&bridge, "discard --yes --all").await.exits(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_keeps_its_order_over_many_windows() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    let letters = |reason: &'static str, from: usize| {
        let letter = move |n: usize| (format!("a-{n}"), reason);
        (from..3_000).step_by(2).map(letter).collect::<Vec<_>>()
    };
    let (nacked, unroutable) = (letters("nacked", 0), letters("unroutable", 1));
    let both = nacked.iter().zip(&unroutable).flat_map(<[_; 2]>::from);
    put_letters_of(&vhost, &both.cloned().collect::<Vec<_>>()).await;
    // All messages have been requeued once already, and only some of them are discarded now.
    dead_letters(&bridge, "list --limit 1").await.exits(0);
    let told = dead_letters(&bridge, "discard --yes --reason nacked").await;
    assert_eq!(told.exits(0).text.lines().count(), 1_500);
    assert_eq!(vhost.message_count(DEAD).await, Some(1_500));
    let left = everything_in(&vhost, DEAD).await;
    let expected: Vec<_> = unroutable.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids(&left), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn discard_needs_confirmation() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = bridge_with(&vhost, "").await;
    put_letters(&vhost, "a", 3, "nacked").await;
    let ask = "discard 3 messages of queue `chat-sessions.dead-letter` for good? [y/N] ";
    for answer in ["n", "", "what"] {
        let (code, said) = answer_to(&bridge, &["dead-letters", "discard", "--all"], answer).await;
        assert!(said.contains(ask), "{said}");
        assert!(said.contains("nothing was discarded"), "{said}");
        assert_eq!(code, 1, "{said}");
        holds(&vhost, DEAD, 3).await;
    }
    let (code, said) = answer_to(
        &bridge,
        &["dead-letters", "discard", "--reason", "invalid"],
        "y",
    )
    .await;
    assert!(said.contains("none of the 3 messages"), "{said}");
    assert!(!said.contains("[y/N]"), "{said}");
    assert_eq!(code, 1, "{said}");
    let (code, said) = answer_to(&bridge, &["dead-letters", "discard", "a-1"], "y").await;
    assert!(said.contains("discard 1 message of queue"), "{said}");
    assert!(said.contains("discarded a-1"), "{said}");
    assert_eq!(code, 0, "{said}");
    holds(&vhost, DEAD, 2).await;
}
