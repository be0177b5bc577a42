//! Confirms in all valid and invalid forms: only a confirmed message counts as delivered, and every
//! other message is published again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use deskbridge::rabbitmq::{Link, Outcome};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};

use super::harness::{Harness, all_delivered, config, messages};
use crate::support::peer::say::{ack, close_connection, nack, return_of};
use crate::support::peer::{Heard, Peer, Say, Stored, What};

/// How often timing-dependent tests are repeated.
const ROUNDS: usize = 30;
/// How many repetitions run at a time.
const AT_ONCE: usize = 8;

/// On the first connection the peer receives three messages, sends `confirms`, and is then silent.
/// On every other connection it is well-behaved.
async fn confused(confirms: impl Fn(u16) -> Vec<Say> + Send + Sync + 'static) -> Peer {
    Peer::scripted(move |heard| match (&heard.what, heard.connection) {
        (What::Message(message), 1) if message.tag == 3 => Some(confirms(message.channel)),
        (What::Message(_), 1) => Some(Vec::new()),
        _ => None,
    })
    .await
}

/// The outcomes of a window of `count` messages. As the forwarder does, it gives up a connection
/// that confirms nothing.
async fn outcomes(harness: &mut Harness, count: usize) -> (Vec<Outcome>, Vec<String>) {
    let window = messages("chat-sessions", "k", count);
    let ids = window
        .iter()
        .map(|one| one.message_id.to_string())
        .collect();
    let id = harness.submit(Link::Main, false, window);
    let publisher = harness.publisher.clone();
    let impatience = tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        publisher.reconnect(Link::Main, "nothing was confirmed".into());
    });
    let outcomes = harness.done(id).await;
    impatience.abort();
    (outcomes, ids)
}

/// Panics if a message outside `may_be_delivered` counts as delivered, or if an unconfirmed message
/// would not be published again.
async fn check(
    name: &str,
    confirms: impl Fn(u16) -> Vec<Say> + Send + Sync + 'static,
    may_be_delivered: &[usize],
) {
    let peer = confused(confirms).await;
    let mut harness = Harness::up(&config(&[&peer.url()])).await;
    let (told, _) = outcomes(&mut harness, 3).await;
    println!("{name}: {told:?}");
    for (index, outcome) in told.iter().enumerate() {
        match outcome {
            Outcome::Delivered => assert!(
                may_be_delivered.contains(&index),
                "{name}: {index} was never confirmed: {told:?}"
            ),
            Outcome::Unknown | Outcome::Nacked => {}
            // The broker has neither closed a channel nor returned this message.
            other => panic!("{name}: {other:?} of {index}"),
        }
    }
    // Publishing must continue in every case.
    loop {
        let (told, _) = outcomes(&mut harness, 2).await;
        if all_delivered(&told) {
            break;
        }
        assert!(
            told.iter().all(|outcome| *outcome == Outcome::Unknown),
            "{told:?}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    harness.shutdown.cancel();
}

fn acks(channel: u16, tags: &[u64]) -> Vec<Say> {
    tags.iter().map(|&tag| ack(channel, tag, false)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_order_and_multiple_confirms_deliver() {
    for confirms in [
        (|channel| acks(channel, &[3, 1, 2])) as fn(u16) -> Vec<Say>,
        |channel| vec![ack(channel, 3, true)],
        |channel| vec![ack(channel, 2, true), ack(channel, 3, false)],
        |channel| vec![ack(channel, 2, false), ack(channel, 3, true)],
        // Tag 0 with `multiple` means all outstanding messages.
        |channel| vec![ack(channel, 0, true)],
    ] {
        let peer = confused(confirms).await;
        let mut harness = Harness::up(&config(&[&peer.url()])).await;
        let (told, _) = outcomes(&mut harness, 3).await;
        assert!(all_delivered(&told), "{told:?}");
        assert_eq!(peer.connections(), 1);
        harness.shutdown.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unrelated_confirms_deliver_nothing() {
    // What the peer confirms, and the messages that may count as delivered.
    type Case<'c> = (&'c str, fn(u16) -> Vec<Say>, &'c [usize]);
    let cases: [Case<'_>; 11] = [
        ("no confirm at all", |_| Vec::new(), &[]),
        ("an unknown tag", |channel| acks(channel, &[99]), &[]),
        ("tag 0, not multiple", |channel| acks(channel, &[0]), &[]),
        ("an ack twice", |channel| acks(channel, &[1, 1]), &[0]),
        (
            "an ack twice, and then the others",
            |channel| acks(channel, &[1, 1, 2, 3]),
            &[0, 1, 2],
        ),
        ("two of three", |channel| acks(channel, &[1, 3]), &[0, 2]),
        (
            "multiple with a tag already confirmed",
            |channel| vec![ack(channel, 1, true), ack(channel, 1, true)],
            &[0],
        ),
        (
            "an ack after its nack",
            |channel| vec![nack(channel, 1, false), ack(channel, 1, false)],
            &[],
        ),
        (
            "a nack after its ack",
            |channel| vec![ack(channel, 1, false), nack(channel, 1, false)],
            &[0],
        ),
        ("a channel that is not open", |_| acks(77, &[1, 2, 3]), &[]),
        (
            "an unsolicited method",
            |channel| vec![nack(channel, 3, true), ack(0, 1, true)],
            &[],
        ),
    ];
    join_all(cases.map(|(name, confirms, delivered)| check(name, confirms, delivered))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn multiple_nack_refuses_all() {
    let peer = confused(|channel| vec![nack(channel, 3, true)]).await;
    let mut harness = Harness::up(&config(&[&peer.url()])).await;
    let (told, _) = outcomes(&mut harness, 3).await;
    assert_eq!(told, vec![Outcome::Nacked; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn early_confirms_deliver_nothing() {
    for (name, future) in [
        ("one", (|channel| ack(channel, 5, false)) as fn(u16) -> Say),
        ("all up to it", |channel| ack(channel, 6, true)),
    ] {
        let peer = confused(move |channel| {
            // The confirm from the future comes first: after the others, tags 4 to 6 could already
            // be in flight, and it would be indistinguishable from a genuine confirm.
            let mut confirms = vec![future(channel)];
            confirms.extend(acks(channel, &[1, 2, 3]));
            confirms
        })
        .await;
        let mut harness = Harness::up(&config(&[&peer.url()])).await;
        outcomes(&mut harness, 3).await;
        // These messages get tags 4 to 6, if the channel is still open.
        let before: HashSet<_> = stored_ids(&peer);
        let (told, ids) = outcomes(&mut harness, 3).await;
        println!("{name}: {told:?}");
        for (outcome, id) in told.iter().zip(&ids) {
            // Delivered is correct only if the second, well-behaved connection has the message.
            let is_stored = !before.contains(id)
                && peer
                    .stored()
                    .iter()
                    .any(|one| one.message_id == *id && one.connection > 1);
            assert!(
                *outcome != Outcome::Delivered || is_stored,
                "{name}: {told:?}"
            );
            assert!(
                !matches!(outcome, Outcome::ChannelClosed { .. }),
                "{name}: {told:?}"
            );
        }
        harness.shutdown.cancel();
    }
}

fn stored_ids(peer: &Peer) -> HashSet<String> {
    peer.stored()
        .into_iter()
        .map(|one| one.message_id)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn return_before_a_multiple_ack_is_attributed() {
    let second: Arc<Mutex<Option<Stored>>> = Arc::default();
    let script = move |heard: &Heard| {
        let What::Message(message) = &heard.what else {
            return None;
        };
        let mut second = second.lock().unwrap();
        Some(match message.tag % 3 {
            2 => {
                *second = Some(message.clone());
                Vec::new()
            }
            0 => {
                let mut said = return_of(second.as_ref().unwrap());
                said.push(ack(message.channel, message.tag, true));
                said
            }
            _ => Vec::new(),
        })
    };
    let peer = Peer::scripted(script).await;
    let mut harness = Harness::up(&config(&[&peer.url()])).await;
    let returned = Outcome::Returned("312 NO_ROUTE".into());
    let expected = [Outcome::Delivered, returned, Outcome::Delivered];
    // lapin completes them in the order of a hash map. 100 rounds are enough to see another order.
    for round in 0..100 {
        let told = harness.publish(messages("chat-sessions", "k", 3)).await;
        assert_eq!(told, expected, "round {round}");
    }
    assert_eq!(
        peer.stored().len(),
        300,
        "the delivered messages are not published again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_return_delivers_nothing() {
    let peer = confused(|channel| {
        let stranger = Stored {
            connection: 1,
            channel,
            tag: 1,
            exchange: "chat-sessions".into(),
            routing_key: "k".into(),
            message_id: uuid::Uuid::new_v4().to_string(),
            correlation_id: String::new(),
            body: b"{}".to_vec(),
        };
        let mut said = return_of(&stranger);
        said.push(ack(channel, 3, true));
        said
    })
    .await;
    let mut harness = Harness::up(&config(&[&peer.url()])).await;
    let (told, _) = outcomes(&mut harness, 3).await;
    assert_eq!(told, vec![Outcome::Unknown; 3]);
    harness.comes_up(Link::Main).await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 3)).await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_close_decides_no_outcome() {
    // Which error is seen first depends on timing.
    let codes = stream::iter([403, 404, 406].repeat(ROUNDS));
    let close = async |code: u16| {
        let name = format!("connection.close {code}");
        check(&name, move |_| vec![close_connection(code, "?")], &[]).await;
    };
    codes.for_each_concurrent(AT_ONCE, close).await;
}
