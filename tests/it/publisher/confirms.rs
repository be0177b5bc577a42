//! Confirms as no broker should send them: what is said to be delivered was confirmed, and what
//! was not is published again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use deskbridge::rabbitmq::{Link, Outcome, Report};

use super::room::{Room, all_delivered, config, messages};
use crate::support::peer::say::{ack, close_connection, nack, return_of};
use crate::support::peer::{Heard, Peer, Say, Stored, What};

/// Times that something is tried which depends on timing.
const ROUNDS: usize = 30;

/// Three messages wait for their confirms on the first connection, then come `confirms`, then the
/// broker is silent. On every other connection it is a good one.
async fn confused(confirms: impl Fn(u16) -> Vec<Say> + Send + Sync + 'static) -> Peer {
    Peer::scripted(move |heard| match (&heard.what, heard.connection) {
        (What::Message(message), 1) if message.tag == 3 => Some(confirms(message.channel)),
        (What::Message(_), 1) => Some(Vec::new()),
        _ => None,
    })
    .await
}

/// The outcomes of a window of three, in the end: the forwarder gives up a connection that
/// confirms nothing.
async fn outcomes(room: &mut Room, count: usize) -> (Vec<Outcome>, Vec<String>) {
    let window = messages("chat-sessions", "k", count);
    let ids = window
        .iter()
        .map(|one| one.message_id.to_string())
        .collect();
    let id = room.submit(Link::Main, false, window);
    let publisher = room.publisher.clone();
    let impatience = tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        publisher.reconnect(Link::Main, "nothing was confirmed".into());
    });
    let outcomes = room.done(id).await;
    impatience.abort();
    (outcomes, ids)
}

/// Whether what was delivered is exactly what may be, and the rest is to be published again.
async fn check(
    name: &str,
    confirms: impl Fn(u16) -> Vec<Say> + Send + Sync + 'static,
    may_be_delivered: &[usize],
) {
    let peer = confused(confirms).await;
    let mut room = Room::up(&config(&[&peer.url()])).await;
    let (told, _) = outcomes(&mut room, 3).await;
    println!("{name}: {told:?}");
    for (index, outcome) in told.iter().enumerate() {
        match outcome {
            Outcome::Delivered => assert!(
                may_be_delivered.contains(&index),
                "{name}: {index} was never confirmed: {told:?}"
            ),
            Outcome::Unknown | Outcome::Nacked => {}
            // The broker did not close anything and said nothing of this message.
            other => panic!("{name}: {other:?} of {index}"),
        }
    }
    // Whatever it was, publishing goes on.
    loop {
        let (told, _) = outcomes(&mut room, 2).await;
        if all_delivered(&told) {
            break;
        }
        assert!(
            told.iter().all(|outcome| *outcome == Outcome::Unknown),
            "{told:?}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    room.shutdown.cancel();
}

fn acks(channel: u16, tags: &[u64]) -> Vec<Say> {
    tags.iter().map(|&tag| ack(channel, tag, false)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn confirms_out_of_order_and_of_all_at_once_are_good_ones() {
    for confirms in [
        (|channel| acks(channel, &[3, 1, 2])) as fn(u16) -> Vec<Say>,
        |channel| vec![ack(channel, 3, true)],
        |channel| vec![ack(channel, 2, true), ack(channel, 3, false)],
        |channel| vec![ack(channel, 2, false), ack(channel, 3, true)],
        // All that are outstanding.
        |channel| vec![ack(channel, 0, true)],
    ] {
        let peer = confused(confirms).await;
        let mut room = Room::up(&config(&[&peer.url()])).await;
        let (told, _) = outcomes(&mut room, 3).await;
        assert!(all_delivered(&told), "{told:?}");
        assert_eq!(peer.connections(), 1);
        room.shutdown.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn confirms_of_nothing_deliver_nothing() {
    check("no confirm at all", |_| Vec::new(), &[]).await;
    check("an unknown tag", |channel| acks(channel, &[99]), &[]).await;
    check("tag 0, not multiple", |channel| acks(channel, &[0]), &[]).await;
    check(
        "an ack that comes twice",
        |channel| acks(channel, &[1, 1]),
        &[0],
    )
    .await;
    check(
        "twice, and then the others",
        |channel| acks(channel, &[1, 1, 2, 3]),
        &[0, 1, 2],
    )
    .await;
    check("two of three", |channel| acks(channel, &[1, 3]), &[0, 2]).await;
    check(
        "all of a tag that is behind us",
        |channel| vec![ack(channel, 1, true), ack(channel, 1, true)],
        &[0],
    )
    .await;
    check(
        "an ack after its nack",
        |channel| vec![nack(channel, 1, false), ack(channel, 1, false)],
        &[],
    )
    .await;
    check(
        "a nack after its ack",
        |channel| vec![ack(channel, 1, false), nack(channel, 1, false)],
        &[0],
    )
    .await;
    check(
        "confirms on a channel that is not open",
        |_| acks(77, &[1, 2, 3]),
        &[],
    )
    .await;
    check(
        "a method nobody asked for",
        |channel| vec![nack(channel, 3, true), ack(0, 1, true)],
        &[],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_of_all_refuses_all() {
    let peer = confused(|channel| vec![nack(channel, 3, true)]).await;
    let mut room = Room::up(&config(&[&peer.url()])).await;
    let (told, _) = outcomes(&mut room, 3).await;
    assert_eq!(told, vec![Outcome::Nacked; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn confirms_from_the_future_do_not_deliver_what_was_not_sent() {
    for (name, future) in [
        ("one", (|channel| ack(channel, 5, false)) as fn(u16) -> Say),
        ("all up to it", |channel| ack(channel, 6, true)),
    ] {
        let peer = confused(move |channel| {
            // First: read behind the others it could meet tags 4 to 6 on their way, and nobody could
            // tell it from a confirm of theirs.
            let mut confirms = vec![future(channel)];
            confirms.extend(acks(channel, &[1, 2, 3]));
            confirms
        })
        .await;
        let mut room = Room::up(&config(&[&peer.url()])).await;
        outcomes(&mut room, 3).await;
        // Tags 4 to 6, if the channel is still there.
        let before: HashSet<_> = stored_ids(&peer);
        let (told, ids) = outcomes(&mut room, 3).await;
        println!("{name}: {told:?}");
        for (outcome, id) in told.iter().zip(&ids) {
            // Delivered is right only if the second connection, which is a good one, has it.
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
                !matches!(outcome, Outcome::ChannelClosed(..)),
                "{name}: {told:?}"
            );
        }
        room.shutdown.cancel();
    }
}

fn stored_ids(peer: &Peer) -> HashSet<String> {
    peer.stored()
        .into_iter()
        .map(|one| one.message_id)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_of_the_second_before_one_ack_for_all_three_is_the_seconds() {
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
    let mut room = Room::up(&config(&[&peer.url()])).await;
    let returned = Outcome::Returned("312 NO_ROUTE".into());
    let expected = [Outcome::Delivered, returned, Outcome::Delivered];
    // lapin completes them in the order of a hash map: often enough to see another one.
    for round in 0..100 {
        let told = room.publish(messages("chat-sessions", "k", 3)).await;
        assert_eq!(told, expected, "round {round}");
    }
    assert_eq!(peer.stored().len(), 300, "innocents are not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_of_something_we_did_not_send_delivers_nothing_of_the_window() {
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
    let mut room = Room::up(&config(&[&peer.url()])).await;
    let (told, _) = outcomes(&mut room, 3).await;
    assert_eq!(told, vec![Outcome::Unknown; 3]);
    room.reported("up again", |report| {
        matches!(report, Report::Up(Link::Main))
    })
    .await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "k", 3)).await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_closed_with_a_code_of_channels_says_nothing_of_any_message() {
    // Which error is seen first is a matter of timing.
    for code in [403, 404, 406].repeat(ROUNDS) {
        let name = format!("connection.close {code}");
        check(&name, move |_| vec![close_connection(code, "?")], &[]).await;
    }
}
