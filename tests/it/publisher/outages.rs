//! A broker that is blocked, frozen or unreachable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::{self, AMQPMethod};
use deskbridge::rabbitmq::{Link, Outcome, PublisherEvent};
use deskbridge::telemetry::status::{BrokerState, BrokerStatus};

use super::harness::{Harness, all_delivered, config, messages};
use crate::support::broker::Broker;
use crate::support::peer::say::{ack, blocked, method};
use crate::support::peer::{Peer, Say, What};
use crate::support::proxy::{Direction, Proxy};
use crate::support::wait::{SOON, eventually};

/// The peer blocks the connection with the first message and does not read for thirteen
/// seconds.
#[tokio::test(flavor = "multi_thread")]
async fn windows_complete_after_a_memory_alarm() {
    let was_blocked = AtomicBool::new(false);
    let peer = Peer::scripted(move |heard| match &heard.what {
        What::Message(message) if !was_blocked.swap(true, Ordering::SeqCst) => Some(vec![
            blocked("low on memory"),
            Say::Wait(Duration::from_secs(13)),
            unblocked(),
            ack(message.channel, message.tag, false),
        ]),
        _ => None,
    })
    .await;
    let mut harness = Harness::up(&config(&[&peer.url()])).await;
    let mut waiting = vec![harness.submit(Link::Main, false, messages("chat-sessions", "k", 10))];
    harness
        .reported("blocked", |report| {
            matches!(report, PublisherEvent::Blocked(Link::Main))
        })
        .await;
    let status = harness.state_is(BrokerState::Blocked).await;
    assert!(status.reason.unwrap().contains("memory"));
    // While blocked, a new window cannot even open its channel.
    for exchange in ["chat-sessions", "chat-sessions.dead-letter"] {
        waiting.push(harness.submit(Link::Main, true, messages(exchange, "k", 10)));
    }
    // Longer than the deadline of any call: the deadlines are suspended while blocked.
    assert!(
        harness.is_silent_for(Duration::from_secs(11)).await,
        "nothing happens while blocked"
    );
    harness
        .reported("unblocked", |report| {
            matches!(report, PublisherEvent::Unblocked(Link::Main))
        })
        .await;
    for id in waiting {
        assert!(all_delivered(&harness.done(id).await));
    }
    let status = harness.state_is(BrokerState::Connected).await;
    assert_eq!(status.reconnects, 0);
}

fn unblocked() -> Say {
    let unblocked = AMQPMethod::Unblocked(connection::Unblocked {});
    method(0, AMQPClass::Connection(unblocked))
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_blocked_connection_leaves_no_block() {
    let peer = Peer::scripted(|heard| {
        let is_first = heard.connection == 1 && matches!(heard.what, What::Message(_));
        let pause = Say::Wait(Duration::from_millis(500));
        is_first.then(|| vec![blocked("low on memory"), pause, Say::Reset])
    })
    .await;
    let mut harness = Harness::up(&config(&[&peer.url()])).await;
    let waiting = harness.submit(Link::Main, false, messages("chat-sessions", "k", 10));
    harness
        .reported("blocked", |report| {
            matches!(report, PublisherEvent::Blocked(Link::Main))
        })
        .await;
    assert_eq!(harness.done(waiting).await, vec![Outcome::Unknown; 10]);
    harness.comes_up(Link::Main).await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 10)).await
    ));
    assert_eq!(harness.status.borrow().state, BrokerState::Connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect_reports_windows_before_the_loss() {
    let is_back = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&is_back);
    let peer = Peer::scripted(move |heard| {
        let is_frozen = heard.connection > 1 || matches!(heard.what, What::Message(_));
        (is_frozen && !answers.load(Ordering::SeqCst)).then(|| vec![Say::Freeze])
    })
    .await;
    let mut config = config(&[&peer.url()]);
    config.rabbitmq.connect_timeout = Duration::from_secs(1);
    let mut harness = Harness::up(&config).await;
    let ids: Vec<_> = (0..4)
        .map(|_| harness.submit(Link::Main, false, messages("chat-sessions", "k", 64)))
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;

    let asked = Instant::now();
    harness
        .publisher
        .reconnect(Link::Main, "nothing was confirmed".into());
    let mut done = Vec::new();
    loop {
        match harness.next_report("down").await {
            PublisherEvent::Done(id, outcomes) => {
                assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Unknown));
                done.push(id);
            }
            PublisherEvent::Down(Link::Main) => break,
            other => panic!("{other:?}"),
        }
    }
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    done.sort_unstable();
    assert_eq!(done, ids, "every window was reported before the loss");
    // A window for a link that is down gets its outcomes at once.
    assert_eq!(
        harness.publish(messages("chat-sessions", "k", 1)).await,
        [Outcome::Unknown]
    );

    let is_silent = |status: &BrokerStatus| {
        let reason = status.reason.as_deref().unwrap_or_default();
        reason.contains("did not answer")
    };
    harness
        .status_is("an attempt to connect has failed", is_silent)
        .await;
    is_back.store(true, Ordering::SeqCst);
    harness.comes_up(Link::Main).await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 64)).await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeat_detects_a_dead_network() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let mut config = config(&[&vhost.amqp_url_through(proxy.address())]);
    config.rabbitmq.heartbeat = Duration::from_secs(1);
    config.rabbitmq.connect_timeout = Duration::from_secs(1);
    let mut harness = Harness::up(&config).await;
    proxy.blackhole(Direction::Up);
    proxy.blackhole(Direction::Down);
    let lost = harness.submit(Link::Main, false, messages("chat-sessions", "k", 3));
    let begin = Instant::now();
    assert!(
        harness
            .done(lost)
            .await
            .iter()
            .all(|outcome| *outcome == Outcome::Unknown)
    );
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
    proxy.pass();
    harness.comes_up(Link::Main).await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 3)).await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_connection_is_independent() {
    let vhost = Broker::shared().await.vhost().await;
    let mut harness = Harness::up(&config(&[&vhost.amqp_url])).await;
    let probe = harness.submit(Link::Probe, false, messages("chat-sessions", "k", 1));
    harness.comes_up(Link::Probe).await;
    assert_eq!(harness.done(probe).await, [Outcome::Delivered]);
    harness.publisher.reconnect(Link::Probe, "enough".into());
    harness.goes_down(Link::Probe).await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 3)).await
    ));
    assert_eq!(harness.status.borrow().reconnects, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_closes_all_connections() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let mut harness = Harness::up(&config(&[&vhost.amqp_url_through(proxy.address())])).await;
    let probe = harness.submit(Link::Probe, true, messages("chat-sessions", "k", 1));
    assert_eq!(harness.done(probe).await, [Outcome::Delivered]);
    assert_eq!(proxy.connections_open(), 2);
    ends_within(&mut harness, Duration::from_millis(500)).await;
    eventually("both connections are closed", SOON, || async {
        proxy.connections_open() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_is_quick_whatever_the_broker_does() {
    let frozen: fn() -> Vec<Say> = || vec![Say::Freeze];
    let alarmed: fn() -> Vec<Say> = || vec![blocked("low on memory"), Say::Freeze];
    for (answer, windows, size, state) in [
        (frozen, 1, 64, BrokerState::Connected),
        (frozen, 200, 1, BrokerState::Connected),
        (alarmed, 1, 1, BrokerState::Blocked),
    ] {
        let peer =
            Peer::scripted(move |heard| matches!(heard.what, What::Message(_)).then(answer)).await;
        let mut harness = Harness::up(&config(&[&peer.url()])).await;
        for _ in 0..windows {
            harness.submit(Link::Main, false, messages("chat-sessions", "k", size));
        }
        eventually("the peer has a message", SOON, || async {
            !peer.stored().is_empty()
        })
        .await;
        harness.state_is(state).await;
        ends_within(&mut harness, Duration::from_millis(1500)).await;
    }
}

async fn ends_within(harness: &mut Harness, deadline: Duration) {
    let begin = Instant::now();
    harness.shutdown.cancel();
    tokio::time::timeout(deadline, &mut harness.ended)
        .await
        .expect("it ends in time")
        .unwrap();
    println!("ended after {:?}", begin.elapsed());
}
