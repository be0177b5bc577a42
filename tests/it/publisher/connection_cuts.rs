//! The connection is reset in the middle of handshake, declaration, publish and confirm: after every
//! third byte, with `make failpoints` after every single one.

use std::time::{Duration, Instant};

use deskbridge::config::Config;
use deskbridge::rabbitmq::Outcome;
use futures_util::{StreamExt, stream};

use super::harness::{Harness, config, message};
use crate::support::peer::{Peer, Way};

/// The events of one session, published one after the other.
const BODIES: [&str; 3] = ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"];
/// How many cuts are tested at a time.
const AT_ONCE: usize = 32;

/// Declares one exchange only, so that every byte of the connection is the same each time.
fn bare(peer: &Peer) -> Config {
    let mut config = config(&[&peer.url()]);
    config.unrouted.exchange = String::new();
    config.dead_letter.exchange = String::new();
    config.rabbitmq.reconnect_delay_min = Duration::from_millis(1);
    config
}

/// Publishes the bodies one after the other, each until it is delivered. Returns the number of
/// bytes in each direction.
async fn publish_all(peer: &Peer) -> [(Way, u64); 2] {
    let mut harness = Harness::start(&bare(peer));
    for body in BODIES {
        let message = message("chat-sessions", "k", body);
        loop {
            let outcomes = harness.publish(vec![message.clone()]).await;
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
    let bytes = [Way::In, Way::Out].map(|way| (way, peer.bytes(way)));
    harness.shutdown.cancel();
    harness.ended.await.unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_at_any_byte_loses_nothing_and_keeps_order() {
    let whole = publish_all(&Peer::good().await).await;
    let step = if std::env::var_os("FAILPOINT_ROUNDS").is_some() {
        1
    } else {
        3
    };
    let offsets = whole.map(|(way, bytes)| (0..bytes).step_by(step).map(move |at| (way, at)));
    let all: Vec<_> = offsets.into_iter().flatten().collect();
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
        "cut at {cut} of {} offsets {whole:?} in {:?}; {repeated} messages came twice",
        all.len(),
        begin.elapsed()
    );
    assert!(
        cut * 10 >= all.len() * 9,
        "only {cut} of {} were cut",
        all.len()
    );
    assert_ne!(repeated, 0, "no cut fell between a message and its confirm");
}
