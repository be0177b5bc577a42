//! A broker with low limits: small frames, few channels, no heartbeat.

use std::time::Duration;

use deskbridge::webhook::message::Header;

use super::harness::{Harness, all_delivered, config, message, messages};
use crate::support::peer::{Peer, Tune};
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn small_frames_carry_large_messages() {
    let peer = Peer::tuned(Tune {
        frame_max: 4096,
        ..Tune::default()
    })
    .await;
    let mut harness = Harness::up(&config(&[&peer.url()])).await;
    let body = "x".repeat(100_000);
    let mut large = message("chat-sessions", "k", &body);
    // The longest headers that the bridge ever publishes.
    let long = "v".repeat(255);
    large.correlation_id = Some(long.as_str().into());
    for name in [
        "source",
        "session-id",
        "session-type",
        "status",
        "previous-status",
        "webhook-id",
        "received-at",
        "traceparent",
        "tracestate",
    ] {
        let value = Header::Text(long.as_str().into());
        large.headers.push((name, value));
    }
    assert!(all_delivered(&harness.publish(vec![large]).await));
    let stored = peer.stored();
    assert_eq!(stored[0].body, body.as_bytes());
    assert_eq!(stored[0].correlation_id, long);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_channels_are_reported() {
    for channel_max in [1, 2, 4, 8] {
        let peer = Peer::tuned(Tune {
            channel_max,
            ..Tune::default()
        })
        .await;
        let mut harness = Harness::start(&config(&[&peer.url()]));
        let begin = std::time::Instant::now();
        let (mut works, mut is_said) = (false, false);
        while !works && (!is_said || channel_max >= 4) && begin.elapsed() < SOON {
            works = all_delivered(&harness.publish(messages("chat-sessions", "k", 1)).await);
            let reason = harness.status.borrow().reason.clone();
            is_said |= reason.is_some_and(|reason| reason.contains("channel"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("{channel_max} channels: works {works}, is said {is_said}");
        assert!(works || is_said, "{channel_max} channels");
        assert!(
            works || channel_max < 4,
            "{channel_max} channels are enough"
        );
        harness.shutdown.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_without_heartbeat_is_supported() {
    let peer = Peer::tuned(Tune {
        heartbeat_seconds: 0,
        ..Tune::default()
    })
    .await;
    let mut config = config(&[&peer.url()]);
    config.rabbitmq.heartbeat = Duration::from_secs(1);
    let mut harness = Harness::up(&config).await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 64)).await
    ));
    eventually("heartbeats are sent", SOON, || async {
        peer.heartbeats() > 1
    })
    .await;
    let kept = harness.is_silent_for(Duration::from_millis(1)).await;
    assert!(kept, "the connection is kept");
    assert_eq!(peer.connections(), 1);
}
