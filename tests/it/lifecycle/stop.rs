//! Stopping loses no webhook and stays within its time limit.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::load::Load;
use crate::support::sender::{RawClient, array_of_new, signed_head};
use crate::support::wait::{SOON, eventually};

/// The default of `shutdown.grace`.
const GRACE: Duration = Duration::from_secs(8);

fn signed(name: &str) -> Vec<u8> {
    let body = array_of_new(name, 1);
    [signed_head(&body).as_bytes(), &body].concat()
}

async fn listener_is_closed(bridge: &Bridge) {
    let address = bridge.address();
    eventually("the listener is closed", SOON, || async {
        TcpStream::connect(address).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_answers_open_connections_and_loses_nothing() {
    let (vhost, mut bridge) = on_shared_broker("").await;
    let consumer = Consumer::subscribed(&vhost, "chat-sessions", "chat-session.#").await;
    let mut fresh = RawClient::connect(bridge.address()).await;
    let mut used = RawClient::connect(bridge.address()).await;
    used.write(signed("load-used-0")).await;
    let answer = used.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (202, None));
    let load = Load::start(bridge.address(), 8);
    load.accepts(300).await;

    let begin = Instant::now();
    bridge.signal(Signal::TERM);
    listener_is_closed(&bridge).await;
    for (client, name) in [(&mut used, "load-used-1"), (&mut fresh, "load-fresh-0")] {
        client.write(signed(name)).await;
        let answer = client.answer().await.expect("an answer while it stops");
        assert_eq!(
            (answer.status, answer.header("connection")),
            (202, Some("close"))
        );
        assert!(client.is_closed_within(SOON).await);
    }
    let exit = bridge.exit().await;
    assert_eq!(exit.status.code(), Some(0), "{}", bridge.stderr());
    assert!(begin.elapsed() < GRACE, "{:?}", begin.elapsed());
    let ledger = load.stop().await;
    assert!(ledger.answers.keys().eq([&202]), "{:?}", ledger.answers);
    assert!(ledger.unsent > 0, "no request was sent after the end");
    assert_eq!(ledger.unanswered, 0, "requests without an answer");

    bridge.start().await;
    bridge.backlog_is_empty().await;
    let by_hand = ["load-used-0-0", "load-used-1-0", "load-fresh-0-0"];
    eventually("everything has arrived", SOON, || async {
        consumer.count() >= ledger.len() + by_hand.len()
    })
    .await;
    let (others, of_the_load): (Vec<_>, Vec<_>) = consumer
        .all()
        .into_iter()
        .partition(|message| message.json()["step"].is_null());
    assert_eq!(ledger.missing(&of_the_load), Vec::<&(String, u64)>::new());
    for name in by_hand {
        assert!(
            others
                .iter()
                .any(|message| message.header("session-id") == name),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_with_a_frozen_broker_ends_in_time() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).connected().await;
    vhost.queue_bound("all", "chat-sessions", "#").await;
    broker.freeze();
    for number in 0..5 {
        assert_eq!(
            bridge
                .post(array_of_new(&format!("frozen-{number}"), 3))
                .await
                .status,
            202
        );
    }
    let exit = bridge.terminate().await;
    broker.thaw();
    assert_eq!(exit.status.code(), Some(0), "{}", bridge.stderr());
    assert!(exit.took < GRACE, "{:?}", exit.took);
    bridge.start().await;
    bridge.backlog_is_empty().await;
    let consumer = Consumer::of(&vhost, "all").await;
    eventually("everything has arrived", SOON, || async {
        let mut sessions: Vec<_> = consumer
            .all()
            .into_iter()
            .map(|message| message.correlation_id)
            .collect();
        sessions.sort_unstable();
        sessions.dedup();
        sessions.len() == 15
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_sigterm_ends_at_once() {
    let (_vhost, mut bridge) = on_shared_broker("").await;
    // A half-received webhook delays the first shutdown, because its signature cannot be verified
    // yet.
    let mut half = RawClient::connect(bridge.address()).await;
    let head = signed_head(b"[         ");
    half.write(format!("{head}[")).await;
    let before = bridge.post(array_of_new("before", 1)).await;
    assert_eq!(before.status, 202);
    bridge.signal(Signal::TERM);
    listener_is_closed(&bridge).await;
    assert!(
        bridge.is_running(),
        "the first SIGTERM waits for the webhook"
    );
    bridge.signal(Signal::TERM);
    let exit = bridge.exit().await;
    assert!(exit.took < Duration::from_secs(1), "{:?}", exit.took);
    assert!(
        bridge.stderr().contains("second signal received"),
        "{}",
        bridge.stderr()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_stops_like_sigterm() {
    let vhost = Broker::shared().await.vhost().await;
    let mut bridge = BridgeBuilder::new(&vhost).start().await;
    bridge.signal(Signal::INT);
    assert_eq!(bridge.exit().await.status.code(), Some(0));
}
