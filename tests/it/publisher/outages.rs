//! A broker that is blocked, frozen, killed, unreachable or absent.

use std::time::{Duration, Instant};

use deskbridge::rabbitmq::{Link, Outcome, PublisherEvent};
use deskbridge::telemetry::status::{BrokerState, BrokerStatus};
use serde_json::json;

use super::harness::{Harness, all_delivered, config, messages};
use crate::support::broker::Broker;
use crate::support::proxy::{Direction, Proxy};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn windows_complete_after_a_memory_alarm() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut harness = Harness::up(&config(&[&vhost.amqp_url])).await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 10)).await
    ));

    broker.raise_memory_alarm().await;
    let mut waiting = vec![
        harness.submit(Link::Main, false, messages("chat-sessions", "k", 10)),
        harness.submit(
            Link::Main,
            true,
            messages("chat-sessions.dead-letter", "k", 10),
        ),
    ];
    harness
        .reported("blocked", |report| {
            matches!(report, PublisherEvent::Blocked(Link::Main))
        })
        .await;
    let status = harness.state_is(BrokerState::Blocked).await;
    assert!(
        status
            .reason
            .is_some_and(|reason| reason.contains("memory"))
    );
    // While blocked, a new window cannot even open its channel.
    waiting.push(harness.submit(Link::Main, true, messages("chat-sessions", "k", 10)));
    // Longer than the deadline of any call: the deadlines are suspended while blocked.
    assert!(
        harness.is_silent_for(Duration::from_secs(12)).await,
        "nothing happens while blocked"
    );

    broker.clear_memory_alarm().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn lost_blocked_connection_leaves_no_block() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut harness = Harness::up(&config(&[&vhost.amqp_url])).await;
    registered(&broker, &vhost, "chat-sessions.unrouted").await;
    broker.raise_memory_alarm().await;
    let waiting = harness.submit(Link::Main, false, messages("chat-sessions", "k", 10));
    harness.state_is(BrokerState::Blocked).await;

    broker.kill().await;
    assert!(
        harness
            .done(waiting)
            .await
            .iter()
            .all(|outcome| *outcome == Outcome::Unknown)
    );
    harness.state_is(BrokerState::Connecting).await;
    broker.start().await;
    harness.comes_up(Link::Main).await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 10)).await
    ));
    assert_eq!(harness.status.borrow().state, BrokerState::Connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect_reports_windows_before_the_loss() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut config = config(&[&vhost.amqp_url]);
    config.rabbitmq.connect_timeout = Duration::from_secs(1);
    let mut harness = Harness::up(&config).await;
    broker.freeze();
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
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
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
    broker.thaw();
    harness.comes_up(Link::Main).await;
    assert!(all_delivered(
        &harness.publish(messages("chat-sessions", "k", 64)).await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_broker_is_noticed_and_found_again() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut harness = Harness::up(&config(&[&vhost.amqp_url])).await;
    vhost
        .declare_queue("all", json!({"x-queue-type": "quorum"}))
        .await;
    vhost.bind("all", "chat-sessions", "#").await;
    registered(&broker, &vhost, "all").await;
    registered(&broker, &vhost, "chat-sessions.unrouted").await;
    let mut said = 0;
    let mut outstanding = Vec::new();
    for _ in 0..40 {
        outstanding.push(harness.submit(Link::Main, false, messages("chat-sessions", "k", 64)));
    }
    said += harness.done(outstanding.remove(0)).await.len();

    let killed = Instant::now();
    broker.kill().await;
    harness.goes_down(Link::Main).await;
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "{:?}",
        killed.elapsed()
    );
    for id in outstanding {
        let outcomes = harness.done(id).await;
        said += outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::Delivered)
            .count();
    }
    broker.start().await;
    harness.comes_up(Link::Main).await;
    let status = harness.state_is(BrokerState::Connected).await;
    assert_eq!(status.reconnects, 1);
    eventually(
        "all messages reported as delivered are stored",
        SOON,
        || async {
            vhost
                .message_count("all")
                .await
                .is_some_and(|count| count as usize >= said)
        },
    )
    .await;
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
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut harness = Harness::up(&config(&[&vhost.amqp_url])).await;
    let probe = harness.submit(Link::Probe, true, messages("chat-sessions", "k", 1));
    assert_eq!(harness.done(probe).await, [Outcome::Delivered]);
    ends_within(&mut harness, Duration::from_millis(500)).await;
    // Whether the broker reads `connection.close` before the end of the socket depends on the
    // kernel and the broker; the bridge only has to close both connections at once.
    eventually("the broker has seen both links close", SOON, || async {
        connections_closed(&broker, &vhost) == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_is_quick_whatever_the_broker_does() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut frozen = Harness::up(&config(&[&vhost.amqp_url])).await;
    let mut unread = Harness::up(&config(&[&vhost.amqp_url])).await;
    let mut blocked = Harness::up(&config(&[&vhost.amqp_url])).await;
    broker.raise_memory_alarm().await;
    blocked.submit(Link::Main, false, messages("chat-sessions", "k", 1));
    blocked.state_is(BrokerState::Blocked).await;
    ends_within(&mut blocked, Duration::from_millis(1200)).await;
    broker.clear_memory_alarm().await;

    broker.freeze();
    frozen.submit(Link::Main, false, messages("chat-sessions", "k", 64));
    ends_within(&mut frozen, Duration::from_millis(1200)).await;
    for _ in 0..200 {
        unread.submit(Link::Main, false, messages("chat-sessions", "k", 1));
    }
    ends_within(&mut unread, Duration::from_millis(1500)).await;
    broker.thaw();
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

/// How often the broker's log reports that a connection of the bridge to this vhost was closed.
fn connections_closed(broker: &Broker, vhost: &Vhost) -> usize {
    let logs = std::fs::read_dir(broker.dir().join("log"))
        .unwrap()
        .flatten();
    let texts = logs.filter(|log| log.file_name().to_string_lossy().contains('@'));
    let texts = texts
        .filter_map(|log| std::fs::read_to_string(log.path()).ok())
        .collect::<String>();
    let is_it = |line: &&str| {
        line.contains("clos") && line.contains(" - deskbridge, vhost") && line.contains(&vhost.name)
    };
    texts.lines().filter(is_it).count()
}

/// Waits until the broker has written to disk that it has this quorum queue. It does so only after
/// half a second without work; a node that is killed earlier comes back with an empty queue that
/// never gets a leader.
async fn registered(broker: &Broker, vhost: &Vhost, queue: &str) {
    let name = format!("{}_{queue}", vhost.name).into_bytes();
    let nodes = broker.dir().join("data");
    eventually("the queue is on the broker's disk", SOON, || async {
        let node = std::fs::read_dir(&nodes)
            .unwrap()
            .flatten()
            .map(|entry| entry.path());
        let mut directories = node.filter_map(|path| {
            Some(
                path.join("quorum")
                    .join(path.file_name()?)
                    .join("names.dets"),
            )
        });
        directories.any(|names| {
            std::fs::read(names)
                .is_ok_and(|names| names.windows(name.len()).any(|part| part == name))
        })
    })
    .await;
}
