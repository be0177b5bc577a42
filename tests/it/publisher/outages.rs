//! A broker that is blocked, frozen, killed, cut off or away.

use std::time::{Duration, Instant};

use deskbridge::rabbitmq::{Link, Outcome, Report};
use deskbridge::telemetry::status::BrokerState;
use serde_json::json;

use super::room::{Room, all_delivered, config, messages};
use crate::support::broker::Broker;
use crate::support::proxy::{Direction, Proxy};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_blocks_and_outstanding_windows_complete_when_it_is_over() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut room = Room::up(&config(&[&vhost.amqp_url])).await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "k", 10)).await
    ));

    broker.raise_memory_alarm().await;
    let mut waiting = vec![
        room.submit(Link::Main, false, messages("chat-sessions", "k", 10)),
        room.submit(
            Link::Main,
            true,
            messages("chat-sessions.dead-letter", "k", 10),
        ),
    ];
    room.reported("blocked", |report| {
        matches!(report, Report::Blocked(Link::Main))
    })
    .await;
    let status = room.state_is(BrokerState::Blocked).await;
    assert!(
        status
            .reason
            .is_some_and(|reason| reason.contains("memory"))
    );
    // This one cannot even open a channel.
    waiting.push(room.submit(Link::Main, true, messages("chat-sessions", "k", 10)));
    // Longer than any deadline of a call: they stand still.
    assert!(
        room.is_silent_for(Duration::from_secs(12)).await,
        "nothing happens while blocked"
    );

    broker.clear_memory_alarm().await;
    room.reported("unblocked", |report| {
        matches!(report, Report::Unblocked(Link::Main))
    })
    .await;
    for id in waiting {
        assert!(all_delivered(&room.done(id).await));
    }
    let status = room.state_is(BrokerState::Connected).await;
    assert_eq!(status.reconnects, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_connection_that_dies_leaves_no_block_behind() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut room = Room::up(&config(&[&vhost.amqp_url])).await;
    registered(&broker, &vhost, "chat-sessions.unrouted").await;
    broker.raise_memory_alarm().await;
    let waiting = room.submit(Link::Main, false, messages("chat-sessions", "k", 10));
    room.state_is(BrokerState::Blocked).await;

    broker.kill().await;
    assert!(
        room.done(waiting)
            .await
            .iter()
            .all(|outcome| *outcome == Outcome::Unknown)
    );
    room.state_is(BrokerState::Connecting).await;
    broker.start().await;
    room.reported("up", |report| matches!(report, Report::Up(Link::Main)))
        .await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "k", 10)).await
    ));
    assert_eq!(room.status.borrow().state, BrokerState::Connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn reconnect_gives_a_frozen_broker_up_at_once_and_windows_come_before_the_news() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut config = config(&[&vhost.amqp_url]);
    config.rabbitmq.connect_timeout = Duration::from_secs(1);
    let mut room = Room::up(&config).await;
    broker.freeze();
    let ids: Vec<_> = (0..4)
        .map(|_| room.submit(Link::Main, false, messages("chat-sessions", "k", 64)))
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;

    let asked = Instant::now();
    room.publisher
        .reconnect(Link::Main, "nothing was confirmed".into());
    let mut done = Vec::new();
    loop {
        match room.next_report("down").await {
            Report::Done(id, outcomes) => {
                assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Unknown));
                done.push(id);
            }
            Report::Down(Link::Main) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    done.sort_unstable();
    assert_eq!(done, ids, "every window was reported before");
    // A window for a link that is down is answered at once.
    assert_eq!(
        room.publish(messages("chat-sessions", "k", 1)).await,
        [Outcome::Unknown]
    );

    tokio::time::sleep(Duration::from_secs(3)).await;
    broker.thaw();
    room.reported("up", |report| matches!(report, Report::Up(Link::Main)))
        .await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "k", 64)).await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_is_noticed_at_once_and_found_again() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut room = Room::up(&config(&[&vhost.amqp_url])).await;
    vhost
        .declare_queue("all", json!({"x-queue-type": "quorum"}))
        .await;
    vhost.bind("all", "chat-sessions", "#").await;
    registered(&broker, &vhost, "all").await;
    registered(&broker, &vhost, "chat-sessions.unrouted").await;
    let mut said = 0;
    let mut outstanding = Vec::new();
    for _ in 0..40 {
        outstanding.push(room.submit(Link::Main, false, messages("chat-sessions", "k", 64)));
    }
    said += room.done(outstanding.remove(0)).await.len();

    let killed = Instant::now();
    broker.kill().await;
    room.reported("down", |report| matches!(report, Report::Down(Link::Main)))
        .await;
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "{:?}",
        killed.elapsed()
    );
    for id in outstanding {
        let outcomes = room.done(id).await;
        said += outcomes
            .iter()
            .filter(|outcome| **outcome == Outcome::Delivered)
            .count();
    }
    broker.start().await;
    room.reported("up", |report| matches!(report, Report::Up(Link::Main)))
        .await;
    let status = room.state_is(BrokerState::Connected).await;
    assert_eq!(status.reconnects, 1);
    eventually("what was said to be delivered is there", SOON, || async {
        vhost
            .message_count("all")
            .await
            .is_some_and(|count| count as usize >= said)
    })
    .await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "k", 64)).await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_network_is_noticed_by_the_heartbeat() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let mut config = config(&[&vhost.amqp_url_through(proxy.address())]);
    config.rabbitmq.heartbeat = Duration::from_secs(1);
    config.rabbitmq.connect_timeout = Duration::from_secs(1);
    let mut room = Room::up(&config).await;
    proxy.blackhole(Direction::Up);
    proxy.blackhole(Direction::Down);
    let lost = room.submit(Link::Main, false, messages("chat-sessions", "k", 3));
    let begin = Instant::now();
    assert!(
        room.done(lost)
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
    room.reported("up", |report| matches!(report, Report::Up(Link::Main)))
        .await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "k", 3)).await
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_appears_later_is_found() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let free = listener.local_addr().unwrap();
    drop(listener);
    let vhost = Broker::shared().await.vhost().await;
    let mut room = Room::start(&config(&[&vhost.amqp_url_through(free)]));
    let status = room
        .status_is("a reason is given", |status| status.reason.is_some())
        .await;
    assert_eq!(status.state, BrokerState::Connecting);
    assert_eq!(
        room.publish(messages("chat-sessions", "k", 2)).await,
        vec![Outcome::Unknown; 2]
    );
    let listener = tokio::net::TcpListener::bind(free).await.unwrap();
    let server = vhost.amqp_address();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut client, &mut server).await },
            );
        }
    });
    room.reported("up", |report| matches!(report, Report::Up(Link::Main)))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_url_is_taken_when_nobody_listens_at_the_first() {
    let vhost = Broker::shared().await.vhost().await;
    let closed = vhost.amqp_url_through(([127, 0, 0, 1], 1).into());
    let mut room = Room::up(&config(&[&closed, &vhost.amqp_url])).await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "k", 3)).await
    ));
    let address = vhost.amqp_address().to_string();
    assert!(
        room.status
            .borrow()
            .url
            .as_ref()
            .is_some_and(|url| url.contains(&address) && !url.contains("guest"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_probe_link_connects_when_asked_and_its_end_disturbs_nobody() {
    let vhost = Broker::shared().await.vhost().await;
    let mut room = Room::up(&config(&[&vhost.amqp_url])).await;
    let probe = room.submit(Link::Probe, false, messages("chat-sessions", "k", 1));
    room.reported("up", |report| matches!(report, Report::Up(Link::Probe)))
        .await;
    assert_eq!(room.done(probe).await, [Outcome::Delivered]);
    room.publisher.reconnect(Link::Probe, "enough".into());
    room.reported("down", |report| matches!(report, Report::Down(Link::Probe)))
        .await;
    assert!(all_delivered(
        &room.publish(messages("chat-sessions", "k", 3)).await
    ));
    assert_eq!(room.status.borrow().reconnects, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_leaves_no_connection_behind() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut room = Room::up(&config(&[&vhost.amqp_url])).await;
    let probe = room.submit(Link::Probe, true, messages("chat-sessions", "k", 1));
    assert_eq!(room.done(probe).await, [Outcome::Delivered]);
    ends_within(&mut room, Duration::from_millis(500)).await;
    // Whether the broker reads the goodbye before it sees the end of the socket is the kernel's
    // and the broker's business; that both are closed at once is ours.
    eventually("the broker has seen both links close", SOON, || async {
        broker_log(&broker).matches(" - deskbridge, vhost").count() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_is_quick_even_if_the_broker_is_frozen_or_blocks_us_or_nobody_reads_the_reports() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut frozen = Room::up(&config(&[&vhost.amqp_url])).await;
    let mut unread = Room::up(&config(&[&vhost.amqp_url])).await;
    let mut blocked = Room::up(&config(&[&vhost.amqp_url])).await;
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

async fn ends_within(room: &mut Room, deadline: Duration) {
    let begin = Instant::now();
    room.shutdown.cancel();
    tokio::time::timeout(deadline, &mut room.ended)
        .await
        .expect("it ends")
        .unwrap();
    println!("ended after {:?}", begin.elapsed());
}

/// What the broker says about connections of the bridge that end.
fn broker_log(broker: &Broker) -> String {
    let logs = std::fs::read_dir(broker.dir().join("log"))
        .unwrap()
        .flatten();
    let texts = logs.filter(|log| log.file_name().to_string_lossy().contains('@'));
    let texts = texts
        .filter_map(|log| std::fs::read_to_string(log.path()).ok())
        .collect::<String>();
    let mut lines = texts
        .lines()
        .skip_while(|line| !line.contains("client-provided name: deskbridge"));
    lines.by_ref().fold(String::new(), |log, line| {
        if line.contains("clos") {
            log + line + "\n"
        } else {
            log
        }
    })
}

/// Waits until the broker would know a quorum queue again after a power cut: it writes down that
/// there is one only when it has had nothing to do for half a second, and one killed before has an
/// empty queue of that name that never gets a leader.
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
