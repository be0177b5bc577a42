//! The connection is reset after every single byte of handshake, declaration, publish and confirm.

use std::time::{Duration, Instant};

use deskbridge::config::Config;
use deskbridge::rabbitmq::Outcome;
use futures_util::{StreamExt, stream};

use super::room::{Room, config, message};
use crate::support::peer::{Peer, Way};

/// One session's events, published one after the other.
const BODIES: [&str; 3] = ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"];
/// Cuts at a time.
const AT_ONCE: usize = 16;
/// Of the offsets, every so manieth is cut at; `CUT_STRIDE=1` cuts at all of them.
const STRIDE: usize = 7;

/// One exchange and nothing else: every byte of the conversation is the same each time.
fn bare(peer: &Peer) -> Config {
    let mut config = config(&[&peer.url()]);
    config.unrouted.exchange = String::new();
    config.dead_letter.exchange = String::new();
    config.rabbitmq.reconnect_delay_min = Duration::from_millis(1);
    config
}

/// Publishes one after the other, each until it is delivered.
async fn publish_all(peer: &Peer) {
    let mut room = Room::start(&bare(peer));
    for body in BODIES {
        let message = message("chat-sessions", "k", body);
        loop {
            let outcomes = room.publish(vec![message.clone()]).await;
            match outcomes.as_slice() {
                [Outcome::Delivered] => break,
                [Outcome::Unknown] => tokio::time::sleep(Duration::from_millis(2)).await,
                other => panic!("a cut is no answer: {other:?}"),
            }
        }
        assert!(
            peer.first_bodies().iter().any(|stored| stored == body),
            "delivered, but never stored: {body}"
        );
    }
    room.shutdown.cancel();
    room.ended.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_at_any_byte_loses_nothing_and_keeps_the_order() {
    let stride = std::env::var("CUT_STRIDE").map_or(STRIDE, |stride| stride.parse().unwrap());
    let whole = Peer::good().await;
    publish_all(&whole).await;
    // Its goodbye is not part of it: the last bytes may never be reached.
    let offsets = |way: Way| {
        (0..=whole.bytes(way))
            .step_by(stride)
            .map(move |at| (way, at))
    };
    let all: Vec<_> = offsets(Way::In).chain(offsets(Way::Out)).collect();
    let begin = Instant::now();
    let (mut cut, mut repeated) = (0, 0);
    let mut cuts = stream::iter(&all)
        .map(|&(way, at)| async move {
            let peer = Peer::cut_first_at(way, at).await;
            publish_all(&peer).await;
            assert_eq!(peer.first_bodies(), BODIES, "cut {way:?} at {at}");
            (peer.is_cut(), peer.stored().len() - BODIES.len())
        })
        .buffer_unordered(AT_ONCE);
    while let Some((is_cut, repetitions)) = cuts.next().await {
        cut += usize::from(is_cut);
        repeated += repetitions;
    }
    println!(
        "cut at {cut} of {} offsets ({} bytes in, {} out) in {:?}; {repeated} messages came twice",
        all.len(),
        whole.bytes(Way::In),
        whole.bytes(Way::Out),
        begin.elapsed()
    );
    assert!(
        cut * 10 >= all.len() * 9,
        "only {cut} of {} were cut",
        all.len()
    );
    assert_ne!(repeated, 0, "no cut fell between a message and its confirm");
}
