//! Whatever happens to the broker or to the network: every answer is 202, no event is lost, each
//! session stays in order, and duplicates have the same `message_id`.

mod sender_view;

use std::time::Duration;

use tokio::net::TcpListener;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::load::Load;
use crate::support::proxy::{Direction, Proxy};
use crate::support::wait::{SOON, eventually};

const LONG: Duration = Duration::from_mins(1);
/// The kernel tells the bridge at once that a killed broker is gone.
const NOTICES_WITHIN: Duration = Duration::from_secs(5);

/// A bridge that reconnects quickly and declares a queue for everything.
fn bridge_at(amqp_url: &str) -> BridgeBuilder {
    BridgeBuilder::at(amqp_url)
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with("retry = {delay_min = '20ms', delay_max = '200ms'}")
        .with("queues = [{name = 'all', keys = ['#']}]")
}

/// Waits until this number of further events was published, so that the following fault hits a
/// running transfer.
async fn flows(bridge: &Bridge, events: u64) {
    bridge.broker_is("connected").await;
    bridge.publishes(events).await;
}

/// Where the connection is cut: at once, or after this number of bytes of handshake, publish or
/// confirm.
const CUTS: &[Option<(u64, Direction)>] = &[
    None,
    Some((1, Direction::Up)),
    Some((40, Direction::Down)),
    None,
    Some((600, Direction::Up)),
    Some((700, Direction::Down)),
    Some((3_000, Direction::Up)),
    Some((21, Direction::Down)),
    None,
    Some((20_000, Direction::Up)),
    Some((2_000, Direction::Down)),
];

/// The threads and the descriptors of the bridge.
fn held(bridge: &Bridge) -> [usize; 2] {
    ["task", "fd"].map(|what| {
        let entries = std::fs::read_dir(format!("/proc/{}/{what}", bridge.pid()));
        entries.unwrap().count()
    })
}

/// Waits until the bridge holds about as much as before its later connections.
async fn releases(bridge: &Bridge, [threads, files]: [usize; 2]) {
    let what = "the resources of the connections are released";
    eventually(what, SOON, || async {
        let [threads_now, files_now] = held(bridge);
        threads_now <= threads + 2 && files_now <= files + 4
    })
    .await;
}

/// A peer that accepts connections and never answers costs neither threads nor sockets.
#[tokio::test(flavor = "multi_thread")]
async fn silent_peer_leaks_no_threads_or_descriptors() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bridge = bridge_at(&format!("amqp://{}", silent.local_addr().unwrap()))
        .with("rabbitmq = {reconnect_delay_min = '10ms', reconnect_delay_max = '20ms'}")
        .with("rabbitmq.connect_timeout = '100ms'")
        .start()
        .await;
    let mut accepted = Vec::new();
    let mut at_first = [0; 2];
    for attempt in 0..18 {
        if attempt == 3 {
            at_first = held(&bridge);
        }
        accepted.push(silent.accept().await.unwrap());
    }
    releases(&bridge, at_first).await;
}

/// Every connection creates a thread, a socket and a task; none of them may be left over.
#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_lose_nothing() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost.amqp_url_through(proxy.address()))
        .start()
        .await;
    let load = Load::paced(&bridge);
    let mut at_first = [0; 2];
    for (n, cut) in CUTS.iter().enumerate() {
        flows(&bridge, 100).await;
        if n == 3 {
            at_first = held(&bridge);
        }
        let before = (bridge.reconnects().await, proxy.cuts());
        if let Some((bytes, direction)) = *cut {
            proxy.cut_after_bytes(bytes, direction);
            eventually("the connection is cut there", SOON, || async {
                proxy.cuts() > before.1
            })
            .await;
        } else {
            proxy.cut();
        }
        eventually("the bridge has noticed", SOON, || async {
            bridge.reconnects().await > before.0
        })
        .await;
        println!("cut {n}: {cut:?}");
    }
    assert!(
        bridge.retries("unknown").await > 0.0,
        "no cut hit a publish window: this test tested nothing"
    );
    flows(&bridge, 50).await;
    releases(&bridge, at_first).await;
    load.arrives_in("all", &vhost, &bridge).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_confirms_and_messages_are_republished() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost.amqp_url_through(proxy.address()))
        .with("rabbitmq = {confirm_timeout = '1s', heartbeat = '2s', connect_timeout = '2s'}")
        .start()
        .await;
    let load = Load::paced(&bridge);
    for direction in [Direction::Down, Direction::Up] {
        flows(&bridge, 100).await;
        let before = (bridge.reconnects().await, bridge.retries("unknown").await);
        proxy.blackhole(direction);
        eventually("the bridge closes the connection", LONG, || async {
            bridge.reconnects().await > before.0
        })
        .await;
        assert!(
            bridge.retries("unknown").await > before.1,
            "no publish window was in flight"
        );
        load.accepts(100).await;
        proxy.pass();
        bridge.broker_is("connected").await;
    }
    let repetitions = load.arrives_in("all", &vhost, &bridge).await;
    assert_ne!(
        repetitions, 0,
        "messages whose confirms were lost are published again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn second_url_is_used_when_the_first_fails() {
    let vhost = Broker::shared().await.vhost().await;
    let first = Proxy::to(vhost.amqp_address()).await;
    let urls = [
        vhost.amqp_url_through(first.address()),
        vhost.amqp_url.clone(),
    ];
    let bridge = bridge_at(&urls[0])
        .with(&format!("rabbitmq.urls = {urls:?}"))
        .start()
        .await;
    let load = Load::paced(&bridge);
    flows(&bridge, 100).await;
    connected_to(&bridge, &first.address().to_string()).await;

    first.refuse();
    connected_to(&bridge, &vhost.amqp_address().to_string()).await;
    assert_eq!(first.connections_open(), 0);
    load.accepts(100).await;
    load.arrives_in("all", &vhost, &bridge).await;
}

async fn connected_to(bridge: &Bridge, address: &str) {
    eventually(&format!("connected to {address}"), SOON, || async {
        let broker = &bridge.status().await["broker"];
        let url = broker["url"].as_str().unwrap_or_default();
        assert!(!url.contains("guest"), "{url}");
        broker["state"] == "connected" && url.contains(address)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_broker_keeps_order_across_exchanges() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with(
            "routing.statuses.handled = {exchange = 'agents', routing_key = '{company}.{status}'}",
        )
        .connected()
        .await;
    vhost.bind("all", "agents", "#").await;
    let load = Load::paced(&bridge);
    for kills in 1..=2 {
        bridge.broker_is("connected").await;
        write_down_queues(&broker).await;
        flows(&bridge, 200).await;
        broker.kill().await;
        eventually("the bridge has noticed", NOTICES_WITHIN, || async {
            bridge.reconnects().await >= kills
        })
        .await;
        load.accepts(100).await;
        broker.start().await;
        bridge.broker_is("connected").await;
    }
    assert!(
        bridge.retries("unknown").await > 0.0,
        "no kill hit a publish window: this test tested nothing"
    );
    load.arrives_in("all", &vhost, &bridge).await;
}

/// Makes RabbitMQ write its table of quorum queues to disk. It does so late: a node that is killed
/// soon after a queue was declared, or soon after its start, comes back with that queue empty and
/// without a leader.
async fn write_down_queues(broker: &Broker) {
    let sync = "[dets:sync(Table) || Table <- dets:all()], ok.";
    assert_eq!(broker.ctl(&["eval", sync]).await.trim(), "ok");
}
