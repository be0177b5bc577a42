//! Brokers that violate the protocol: garbage, unusual codes, missing confirms. Every answer is
//! 202, no event is lost, and the bridge reconnects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use amq_protocol::protocol::AMQPClass;
use amq_protocol::protocol::connection::AMQPMethod as OfConnection;
use amq_protocol::protocol::queue::AMQPMethod as OfQueue;
use futures_util::future::join_all;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::load::Load;
use crate::support::peer::say::{ack, blocked, close_channel, close_connection, nack};
use crate::support::peer::{Heard, Peer, Say, Tune, What};
use crate::support::sender::array_of_new;
use crate::support::wait::eventually;

const LONG: Duration = Duration::from_mins(1);

/// A bridge with short timeouts.
fn bridge_at(peer: &Peer) -> BridgeBuilder {
    BridgeBuilder::at(&peer.url())
        .with("rabbitmq = {reconnect_delay_min = '20ms', reconnect_delay_max = '100ms'}")
        .with("rabbitmq = {confirm_timeout = '1s', heartbeat = '2s', connect_timeout = '1s'}")
        .with("retry = {delay_min = '20ms', delay_max = '200ms'}")
}

/// What a bad connection sends on a channel instead of a confirm.
type Fault = fn(u16) -> Vec<Say>;

fn bytes(bytes: &[u8]) -> Vec<Say> {
    vec![Say::Bytes(bytes.to_vec())]
}

/// A frame with any type, length and end byte.
fn frame(kind: u8, channel: u8, length: u32, payload: &[u8], end: u8) -> Vec<Say> {
    let mut frame = vec![kind, 0, channel];
    frame.extend(length.to_be_bytes());
    frame.extend(payload);
    frame.push(end);
    vec![Say::Bytes(frame)]
}

/// Greetings of servers that do not speak AMQP 0-9-1, and whether the server then hangs up.
const GREETINGS: [(&[u8], bool); 3] = [
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
    (b"AMQP\0\0\x09\0", true),
    (b"AMQP\x03\x01\0\0", false),
];

const FAULTS: &[(&str, Fault)] = &[
    ("garbage", |_| bytes(&[0xFF; 64])),
    ("zeros", |_| bytes(&[0; 4096])),
    ("a frame of 4 GiB", |_| {
        frame(1, 1, u32::MAX - 9, &[0; 1000], 0xCE)
    }),
    ("a frame over frame_max", |_| {
        frame(3, 1, 200_000, &[7; 200_000], 0xCE)
    }),
    ("a wrong end", |_| frame(8, 0, 0, &[], 0xCD)),
    ("a frame of no type", |_| frame(9, 0, 2, &[1, 2], 0xCE)),
    ("a method of no class", |_| {
        frame(1, 1, 4, &[0xAB, 0xCD, 0, 1], 0xCE)
    }),
    ("a heartbeat on a channel", |_| frame(8, 5, 0, &[], 0xCE)),
    ("a heartbeat with a body", |_| frame(8, 0, 3, b"abc", 0xCE)),
    ("a body nobody announced", |_| frame(3, 1, 3, b"abc", 0xCE)),
    ("a confirm of a strange channel", |_| {
        vec![ack(99, 1, false)]
    }),
    ("320", |_| vec![close_connection(320, "CONNECTION_FORCED")]),
    ("501", |_| vec![close_connection(501, "FRAME_ERROR")]),
    ("504", |_| vec![close_connection(504, "CHANNEL_ERROR")]),
    ("541", |_| vec![close_connection(541, "INTERNAL_ERROR")]),
    ("a code that is none", |_| vec![close_connection(999, "?")]),
    ("a code of channels", |_| vec![close_connection(406, "?")]),
    ("a channel closed with 541", |channel| {
        vec![close_channel(channel, 541, "INTERNAL_ERROR")]
    }),
    ("close and silence", |_| {
        vec![close_connection(320, "CONNECTION_FORCED"), Say::Freeze]
    }),
    ("frozen", |_| vec![Say::Freeze]),
    ("blocked, then dead", |_| {
        vec![blocked("low on memory"), Say::Reset]
    }),
    ("blocked, then frozen", |_| {
        vec![blocked("low on disk"), Say::Freeze]
    }),
    ("a confirm that never comes", |_| Vec::new()),
];

#[tokio::test(flavor = "multi_thread")]
async fn violations_lose_nothing_and_reconnect() {
    // After these faults, one connection is silent from the greeting on.
    let peer = Peer::scripted(
        |heard| match (&heard.what, FAULTS.get(heard.connection - 1)) {
            (What::Message(_), Some((_, fault))) => Some(fault(heard.channel)),
            (What::Method(AMQPClass::Connection(OfConnection::Open(_))), None) => {
                (heard.connection == FAULTS.len() + 1).then(|| vec![Say::Freeze])
            }
            _ => None,
        },
    )
    .await;
    let bridge = bridge_at(&peer)
        .with("rabbitmq = {confirm_timeout = '500ms', heartbeat = '1s', connect_timeout = '500ms'}")
        .start()
        .await;
    let load = Load::paced(&bridge);
    let names = FAULTS.iter().map(|(name, _)| *name);
    for (number, name) in names.chain(["silence after the greeting"]).enumerate() {
        let begin = std::time::Instant::now();
        eventually(
            &format!("the bridge connects again after {name}"),
            LONG,
            || async { peer.connections() > number + 1 },
        )
        .await;
        println!("{name}: {:?}", begin.elapsed());
    }
    eventually("the bridge publishes again", LONG, || async {
        bridge.status().await["backlog"]["events"].as_u64() < Some(100)
    })
    .await;
    bridge.broker_is("connected").await;
    load.accepts(100).await;
    let sent = load.stop_and_drain(&bridge).await;
    assert_ne!(sent.arrived_as(&peer.messages()), 0, "no duplicate");
    assert!(!bridge.stderr().contains("panicked"), "{}", bridge.stderr());
}

/// A wrong greeting counts as a refusal, after which the bridge waits for at least 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_greetings_lose_nothing_and_reconnect() {
    let check = async |(greeting, hangs_up): (&'static [u8], bool)| {
        let peer = Peer::scripted(move |heard| {
            let is_first = heard.connection == 1 && matches!(heard.what, What::Hello);
            let mut says = bytes(greeting);
            says.extend(hangs_up.then_some(Say::HangUp));
            is_first.then_some(says)
        })
        .await;
        let bridge = bridge_at(&peer).start().await;
        assert_eq!(bridge.post(array_of_new("s", 5)).await.status, 202);
        bridge.backlog_is_empty().await;
        assert!(peer.connections() > 1, "{greeting:?}");
        assert_eq!(peer.stored().len(), 5, "{greeting:?}");
    };
    join_all(GREETINGS.map(check)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unconfirmed_events_move_to_another_connection() {
    let peer = Peer::scripted(|heard| {
        let is_silent = heard.connection <= 2 && matches!(heard.what, What::Message(_));
        is_silent.then(Vec::new)
    })
    .await;
    let bridge = bridge_at(&peer).start().await;
    bridge.post(array_of_new("s", 30)).await;
    bridge.backlog_is_empty().await;
    let stored = peer.stored();
    let over = |connection: usize| {
        let those = stored
            .iter()
            .filter(move |one| one.connection == connection);
        those
            .map(|one| (one.message_id.as_str(), one.body.as_slice()))
            .collect::<Vec<_>>()
    };
    assert_eq!(over(1).len(), 30);
    let mut last: Vec<_> = (2..=peer.connections()).flat_map(over).collect();
    let again = last.clone();
    last.sort_unstable();
    last.dedup();
    let mut first = over(1);
    first.sort_unstable();
    assert_eq!(first, last, "the same events with the same ids");
    assert!(
        again.len() < 90,
        "{} messages: too many retries",
        again.len()
    );
    bridge.says("was not confirmed for 1000 ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_broker_gets_each_message_once() {
    let peer = Peer::scripted(|heard| match &heard.what {
        What::Message(message) => Some(vec![
            Say::Wait(Duration::from_millis(200)),
            ack(message.channel, message.tag, false),
        ]),
        _ => None,
    })
    .await;
    let bridge = bridge_at(&peer).start().await;
    // Takes twice the confirm timeout.
    let begin = std::time::Instant::now();
    bridge.post(array_of_new("s", 10)).await;
    bridge.backlog_is_empty().await;
    assert!(begin.elapsed() >= Duration::from_secs(2));
    assert_eq!(peer.stored().len(), 10, "no duplicate");
    assert_eq!(peer.connections(), 1);
}

/// lapin keeps the reply with which a channel was closed, and gives it to the next channel with the
/// same number.
#[tokio::test(flavor = "multi_thread")]
async fn reply_to_a_declaration_says_nothing_about_a_message() {
    const NACKS: usize = 4;
    let attempts = Mutex::new(BTreeMap::<String, usize>::new());
    let tune = Tune {
        channel_max: 16,
        ..Tune::default()
    };
    let script = move |heard: &Heard| match &heard.what {
        What::Method(AMQPClass::Queue(OfQueue::Declare(declare))) if !declare.passive => {
            let text = "PRECONDITION_FAILED - inequivalent arg 'x-overflow'";
            Some(vec![close_channel(heard.channel, 406, text)])
        }
        // After a nack, the next attempt uses another channel.
        What::Message(message) => {
            let mut attempts = attempts.lock().unwrap();
            let attempt = attempts.entry(message.message_id.clone()).or_default();
            *attempt += 1;
            (*attempt <= NACKS).then(|| vec![nack(heard.channel, message.tag, false)])
        }
        _ => None,
    };
    let peer = Peer::scripted_and_tuned(script, tune).await;
    let bridge = bridge_at(&peer).connected().await;
    for number in 0..10 {
        bridge.post(array_of_new(&format!("s{number}"), 1)).await;
        bridge.backlog_is_empty().await;
    }
    assert_eq!(
        bridge.counter("published").await,
        10,
        "{}",
        bridge.status().await
    );
    let exchanges: BTreeSet<_> = peer.stored().into_iter().map(|one| one.exchange).collect();
    assert_eq!(exchanges, ["chat-sessions".to_owned()].into());
    assert_eq!(bridge.reconnects().await, 0);
}
