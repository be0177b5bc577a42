//! A broker that allows little: small frames, few channels, no heartbeat.

use std::time::Duration;

use deskbridge::webhook::message::Header;

use super::room::{Room, all_delivered, config, message, messages};
use crate::support::peer::{Peer, Tune};

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_4096_bytes_carry_large_bodies_and_long_headers() {
    let peer = Peer::tuned(Tune {
        frame_max: 4096,
        ..Tune::default()
    })
    .await;
    let mut room = Room::up(&config(&[&peer.url()])).await;
    let body = "x".repeat(100_000);
    let mut large = message("chat-sessions", "k", &body);
    // As long as the bridge ever makes them.
    let long = "v".repeat(255);
    large.correlation_id = Some(long.as_str().into());
    for name in [
        "source",
        "session-id",
        "session-type",
        "status",
        "previous-status",
    ] {
        large
            .headers
            .push((name, Header::Text(long.as_str().into())));
    }
    for name in ["webhook-id", "received-at", "traceparent", "tracestate"] {
        large
            .headers
            .push((name, Header::Text(long.as_str().into())));
    }
    assert!(all_delivered(&room.publish(vec![large]).await));
    let stored = peer.stored();
    assert_eq!(stored[0].body, body.as_bytes());
    assert_eq!(stored[0].correlation_id, long);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_channels_are_said_so_and_enough_work() {
    for channel_max in [1, 2, 4, 8] {
        let peer = Peer::tuned(Tune {
            channel_max,
            ..Tune::default()
        })
        .await;
        let mut room = Room::start(&config(&[&peer.url()]));
        let begin = std::time::Instant::now();
        let (mut works, mut is_said) = (false, false);
        while !works && begin.elapsed() < Duration::from_secs(3) {
            works = all_delivered(&room.publish(messages("chat-sessions", "k", 1)).await);
            let reason = room.status.borrow().reason.clone();
            is_said |= reason.is_some_and(|reason| reason.contains("channel"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("{channel_max} channels: works {works}, is said {is_said}");
        assert!(works || is_said, "{channel_max} channels");
        assert!(
            works || channel_max < 4,
            "{channel_max} channels are enough"
        );
        room.shutdown.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_heartbeats_is_sent_ours_and_works() {
    let peer = Peer::tuned(Tune {
        heartbeat_seconds: 0,
        ..Tune::default()
    })
    .await;
    let mut config = config(&[&peer.url()]);
    config.rabbitmq.heartbeat = Duration::from_secs(1);
    let mut room = Room::up(&config).await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "k", 64)).await
    ));
    assert!(
        room.is_silent_for(Duration::from_secs(3)).await,
        "the connection is kept"
    );
    assert!(peer.heartbeats() > 1, "{} heartbeats", peer.heartbeats());
    assert_eq!(peer.connections(), 1);
}
