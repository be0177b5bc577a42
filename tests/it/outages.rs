//! Whatever happens to the broker or to the way there: every answer is 202, nothing is lost, the
//! order of each session is kept, and what comes twice has the same `message_id`.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::authority::Authority;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::proxy::{Direction, Proxy};
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::sessions::{Load, everything_in};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

const LIFE: &[&str] = &["created", "handled", "completed"];
const LONG: Duration = Duration::from_mins(1);

/// A bridge that is quick to connect again and declares a queue for everything.
fn bridge_at(amqp_url: &str) -> BridgeBuilder {
    BridgeBuilder::at(amqp_url)
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with("retry = {delay_min = '20ms', delay_max = '200ms'}")
        .with("queues = [{name = 'all', keys = ['#']}]")
}

/// The same, and quick to lose its patience.
fn impatient_bridge_at(amqp_url: &str) -> BridgeBuilder {
    bridge_at(amqp_url)
        .with("rabbitmq = {confirm_timeout = '1s', heartbeat = '2s', connect_timeout = '2s'}")
}

async fn reconnects(bridge: &Bridge) -> u64 {
    bridge.status().await["broker"]["reconnects"]
        .as_u64()
        .unwrap()
}

/// Waits until so many events more have reached the broker: whatever is done to it then, it is
/// done in the middle of something.
async fn flows(bridge: &Bridge, events: u64) {
    let published = async || bridge.status().await["counters"]["published"].as_u64();
    bridge.broker_is("connected").await;
    let end = published().await.unwrap() + events;
    eventually("events are published", LONG, || async {
        published().await >= Some(end)
    })
    .await;
}

/// Messages of which nobody knew what had become of them.
async fn outcomes_unknown(bridge: &Bridge) -> f64 {
    let metrics = bridge.metrics().await;
    metrics.sum_where("publish_retries_total", &[("reason", "unknown")])
}

/// Ends the load, waits until everything is published, and judges what is in the queue `all`.
/// Gives how many messages came again.
async fn judge(load: Load, bridge: &Bridge, vhost: &Vhost) -> usize {
    let sent = load.stop_and_drain(bridge).await;
    sent.arrived_as(&everything_in(vhost, "all").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_accepted_while_the_broker_is_absent_and_arrive_when_it_appears() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    broker.stop().await;
    let bridge = bridge_at(&vhost.amqp_url).start().await;
    let load = Load::on(&bridge, LIFE);
    load.goes_on_for(300).await;
    let status = bridge.status().await;
    assert_eq!(status["broker"]["state"], "connecting", "{status:#}");
    assert!(
        status["broker"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("refused")),
        "{status:#}"
    );
    assert!(status["backlog"]["events"].as_u64() >= Some(300));
    assert!(
        bridge.ready().await,
        "the broker is none of /readyz' business"
    );

    broker.start().await;
    flows(&bridge, 100).await;
    judge(load, &bridge, &vhost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_broker_is_stopped_and_started_under_load() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url).start().await;
    let load = Load::on(&bridge, LIFE);
    for stops in 1..=2 {
        flows(&bridge, 200).await;
        broker.stop().await;
        bridge.broker_is("connecting").await;
        load.goes_on_for(200).await;
        broker.start().await;
        bridge.broker_is("connected").await;
        assert!(reconnects(&bridge).await >= stops);
    }
    judge(load, &bridge, &vhost).await;
}

/// Where the connection is cut: at once, or after so many bytes of handshake, publish or confirm.
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

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_connection_is_cut_in_the_middle_of_a_window() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost.amqp_url_through(proxy.address()))
        .start()
        .await;
    let load = Load::on(&bridge, LIFE);
    for (n, cut) in CUTS.iter().enumerate() {
        flows(&bridge, 100).await;
        let before = (reconnects(&bridge).await, proxy.cuts());
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
            reconnects(&bridge).await > before.0
        })
        .await;
        println!("cut {n}: {cut:?}");
    }
    assert!(
        outcomes_unknown(&bridge).await > 0.0,
        "no cut hit a window: this test shows nothing"
    );
    println!("{} came again", judge(load, &bridge, &vhost).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_confirms_or_messages_vanish_on_the_way() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = impatient_bridge_at(&vhost.amqp_url_through(proxy.address()))
        .start()
        .await;
    let load = Load::on(&bridge, LIFE);
    for direction in [Direction::Down, Direction::Up] {
        flows(&bridge, 100).await;
        let before = (reconnects(&bridge).await, outcomes_unknown(&bridge).await);
        proxy.blackhole(direction);
        eventually("the bridge gives the connection up", LONG, || async {
            reconnects(&bridge).await > before.0
        })
        .await;
        assert!(
            outcomes_unknown(&bridge).await > before.1,
            "no window was under way"
        );
        load.goes_on_for(100).await;
        proxy.pass();
        bridge.broker_is("connected").await;
    }
    let repetitions = judge(load, &bridge, &vhost).await;
    assert_ne!(
        repetitions, 0,
        "what was stored without a confirm that arrived is sent again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_broker_freezes_for_longer_than_the_confirm_timeout() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let bridge = impatient_bridge_at(&vhost.amqp_url).start().await;
    let load = Load::on(&bridge, LIFE);
    flows(&bridge, 100).await;
    let before = outcomes_unknown(&bridge).await;

    broker.freeze();
    bridge.broker_is("connecting").await;
    assert!(
        outcomes_unknown(&bridge).await > before,
        "no window was under way"
    );
    eventually("the frozen broker is seen as one", LONG, || async {
        let reason = bridge.status().await["broker"]["reason"].clone();
        reason
            .as_str()
            .is_some_and(|reason| reason.contains("did not answer"))
    })
    .await;
    load.goes_on_for(200).await;
    broker.thaw();
    flows(&bridge, 100).await;
    println!("{} came again", judge(load, &bridge, &vhost).await);
    bridge.says("was not confirmed for 1000 ms").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alarm_of_the_broker_stops_publishing_and_costs_no_connection() {
    const BLOCKED_FOR: Duration = Duration::from_secs(5);
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let bridge = impatient_bridge_at(&vhost.amqp_url).start().await;
    let load = Load::on(&bridge, LIFE);
    flows(&bridge, 100).await;

    broker.raise_memory_alarm().await;
    bridge.broker_is("blocked").await;
    let status = bridge.status().await;
    assert!(
        status["broker"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("memory")),
        "{status:#}"
    );
    // Longer than the confirm timeout and twice the heartbeat, so that either would have acted.
    let begin = Instant::now();
    while begin.elapsed() < BLOCKED_FOR {
        load.goes_on_for(20).await;
        let status = bridge.status().await;
        assert_eq!(status["broker"]["state"], "blocked");
        assert!(is_every_route("open", &status), "{status:#}");
    }
    let waiting = bridge.status().await["backlog"]["events"].as_u64().unwrap();
    assert!(waiting > 20, "only {waiting} events wait");

    broker.clear_memory_alarm().await;
    flows(&bridge, 100).await;
    let repetitions = judge(load, &bridge, &vhost).await;
    assert_eq!(
        (reconnects(&bridge).await, repetitions),
        (0, 0),
        "nothing was reconnected and nothing sent again"
    );
}

fn is_every_route(state: &str, status: &Value) -> bool {
    let routes = status["routes"].as_array().unwrap();
    !routes.is_empty() && routes.iter().all(|route| route["state"] == state)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_url_is_taken_when_the_first_host_is_gone() {
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
    let load = Load::on(&bridge, LIFE);
    flows(&bridge, 100).await;
    connected_to(&bridge, &first.address().to_string()).await;

    first.refuse();
    connected_to(&bridge, &vhost.amqp_address().to_string()).await;
    assert_eq!(first.connections_open(), 0);
    load.goes_on_for(100).await;
    judge(load, &bridge, &vhost).await;
}

async fn connected_to(bridge: &Bridge, address: &str) {
    eventually(&format!("connected to {address}"), SOON, || async {
        let broker = &bridge.status().await["broker"];
        broker["state"] == "connected" && broker["url"].as_str().unwrap().contains(address)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_walk_across_two_exchanges_stay_in_order_when_the_broker_is_killed() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let bridge = bridge_at(&vhost.amqp_url)
        .with(
            "routing.statuses.handled = {exchange = 'agents', routing_key = '{company}.{status}'}",
        )
        .start()
        .await;
    bridge.broker_is("connected").await;
    vhost.bind("all", "agents", "#").await;
    let load = Load::on(&bridge, LIFE);
    for kills in 1..=2 {
        bridge.broker_is("connected").await;
        write_down_queues(&broker).await;
        flows(&bridge, 200).await;
        broker.kill().await;
        eventually("the bridge has noticed", SOON, || async {
            reconnects(&bridge).await >= kills
        })
        .await;
        load.goes_on_for(100).await;
        broker.start().await;
        bridge.broker_is("connected").await;
    }
    assert!(
        outcomes_unknown(&bridge).await > 0.0,
        "no kill hit a window: this test shows nothing"
    );
    println!("{} came again", judge(load, &bridge, &vhost).await);
}

/// RabbitMQ writes down late which quorum queues it has: one that is killed soon after a queue was
/// declared, or after its last start, brings that queue back empty and without a leader.
async fn write_down_queues(broker: &Broker) {
    let sync = "[dets:sync(Table) || Table <- dets:all()], ok.";
    assert_eq!(broker.ctl(&["eval", sync]).await.trim(), "ok");
}

/// A broker that speaks TLS, asking for a client certificate or not.
async fn broker_with_tls(dir: &Path, authority: &Authority, asks_for_client: bool) -> Broker {
    let (cert, key) = authority.issue(dir, "localhost");
    let (ca, cert, key) = (authority.ca_file.display(), cert.display(), key.display());
    let verify = if asks_for_client { "peer" } else { "none" };
    Broker::own_with(&format!(
        "listeners.ssl.default = 127.0.0.1:@TLS_PORT@\n\
         ssl_options.cacertfile = {ca}\nssl_options.certfile = {cert}\nssl_options.keyfile = {key}\n\
         ssl_options.verify = verify_{verify}\n\
         ssl_options.fail_if_no_peer_cert = {asks_for_client}\n"
    ))
    .await
}

fn amqps_url(broker: &Broker, vhost: &Vhost) -> String {
    let port = broker.port("TLS_PORT");
    format!("amqps://guest:guest@localhost:{port}/{}", vhost.name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_arrives_over_amqps_with_our_own_authority() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ours");
    let broker = broker_with_tls(dir.path(), &authority, false).await;
    let vhost = broker.vhost().await;
    let mut bridge = bridge_at(&amqps_url(&broker, &vhost)).start().await;
    // Without the authority the broker is a stranger.
    assert_eq!(bridge.post(array_of_new("early", 2)).await.status, 202);
    bridge.broker_is("refused").await;

    bridge.reconfigure(&format!("rabbitmq.tls.ca_file = {:?}", authority.ca_file));
    bridge.restart().await;
    bridge.broker_is("connected").await;
    bridge.post(array_of_new("late", 2)).await;
    bridge.backlog_is_empty().await;
    assert_eq!(everything_in(&vhost, "all").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_arrives_over_amqps_with_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ours");
    let broker = broker_with_tls(dir.path(), &authority, true).await;
    let vhost = broker.vhost().await;
    let mut bridge = bridge_at(&amqps_url(&broker, &vhost))
        .with(&format!("rabbitmq.tls.ca_file = {:?}", authority.ca_file))
        .start()
        .await;
    let sent = array_of(&[session("s1", "completed", json!({}))]);
    assert_eq!(bridge.post(&sent).await.status, 202);
    eventually("the certificate is asked for", SOON, || async {
        let broker = bridge.status().await["broker"].clone();
        let reason = broker["reason"].as_str().unwrap_or_default().to_lowercase();
        broker["state"] != "connected" && reason.contains("certificate")
    })
    .await;

    let (cert, key) = authority.issue(dir.path(), "bridge");
    bridge.reconfigure(&format!(
        "rabbitmq.tls = {{cert_file = {cert:?}, key_file = {key:?}}}"
    ));
    bridge.restart().await;
    bridge.broker_is("connected").await;
    let message = Consumer::of(&vhost, "all").await.receive().await;
    assert_eq!([b"[".as_slice(), &message.body, b"]"].concat(), sent);
}

/// With every connection a thread, a socket and a task come; none of them may stay.
#[tokio::test(flavor = "multi_thread")]
async fn thirty_reconnects_leave_nothing_behind() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = bridge_at(&vhost.amqp_url_through(proxy.address()))
        .with("rabbitmq.reconnect_delay_min = '10ms'\nrabbitmq.reconnect_delay_max = '20ms'")
        .start()
        .await;
    let load = Load::on(&bridge, LIFE);
    let held = |what: &str| {
        let entries = std::fs::read_dir(format!("/proc/{}/{what}", bridge.pid()));
        entries.unwrap().count()
    };
    let reconnect = async |times: usize| {
        for _ in 0..times {
            let before = proxy.connections();
            proxy.cut();
            eventually("it connects again", SOON, || async {
                proxy.connections() > before
            })
            .await;
            bridge.broker_is("connected").await;
        }
    };
    reconnect(3).await;
    flows(&bridge, 50).await;
    let (threads, files) = (held("task"), held("fd"));
    reconnect(30).await;
    flows(&bridge, 50).await;
    eventually("what the connections had is given back", SOON, || async {
        held("task") <= threads + 2 && held("fd") <= files + 4
    })
    .await;
    judge(load, &bridge, &vhost).await;
}
