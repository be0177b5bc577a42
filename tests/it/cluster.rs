//! Three nodes and a quorum queue: the leader dies, two of three die, and come back. Every answer
//! is 202, nothing is lost, the order of each session is kept.

use std::time::{Duration, Instant};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::cluster::Cluster;
use crate::support::sessions::{Load, everything_in};
use crate::support::vhost::Vhost;
use crate::support::wait::eventually;

const LIFE: &[&str] = &["created", "handled", "completed"];
const LONG: Duration = Duration::from_mins(1);

async fn published(bridge: &Bridge) -> u64 {
    bridge.status().await["counters"]["published"]
        .as_u64()
        .unwrap()
}

/// Waits until so many events more have reached the broker, and says how long that took.
async fn flows(bridge: &Bridge, events: u64) -> Duration {
    let begin = Instant::now();
    let end = published(bridge).await + events;
    eventually("events are published", LONG, || async {
        published(bridge).await >= end
    })
    .await;
    begin.elapsed()
}

/// Kills the node that leads the queue `all`, while events flow; gives which one.
async fn kill_the_leader(cluster: &Cluster, vhost: &Vhost, bridge: &Bridge) -> usize {
    let leader = cluster.leader_of(vhost, "all", 0).await.expect("a leader");
    flows(bridge, 100).await;
    cluster.nodes[leader].kill().await;
    leader
}

async fn has_another_leader(cluster: &Cluster, vhost: &Vhost, dead: usize) {
    let asked = (dead + 1) % cluster.nodes.len();
    eventually("another node leads the queue", LONG, || async {
        let leader = cluster.leader_of(vhost, "all", asked).await;
        leader.is_some_and(|leader| leader != dead)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_leader_dies_nor_when_two_of_three_nodes_do() {
    let cluster = Cluster::of_three().await;
    let vhost = cluster.nodes[0].vhost().await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url)
        .with(&format!("rabbitmq.urls = {:?}", cluster.urls(&vhost)))
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with("rabbitmq = {confirm_timeout = '3s', heartbeat = '2s', connect_timeout = '2s'}")
        // A queue without a quorum refuses, like a full one: at the default delays twelve attempts
        // last for more than a minute, at these for some seconds.
        .with("retry = {delay_min = '50ms', delay_max = '1s', attempts_max = 1000}")
        .with("queues = [{name = 'all', keys = ['#']}]")
        .start()
        .await;
    bridge.broker_is("connected").await;
    let load = Load::on(&bridge, LIFE);
    let begin = Instant::now();
    flows(&bridge, 500).await;
    println!("calm: p99 {:?}", load.p99_since(begin));

    let begin = Instant::now();
    let dead = kill_the_leader(&cluster, &vhost, &bridge).await;
    let took = flows(&bridge, 300).await;
    println!(
        "leader {dead} dead: p99 {:?}, 300 events published after {took:?}",
        load.p99_since(begin)
    );
    has_another_leader(&cluster, &vhost, dead).await;
    cluster.nodes[dead].start().await;
    flows(&bridge, 300).await;

    let begin = Instant::now();
    let first = kill_the_leader(&cluster, &vhost, &bridge).await;
    cluster.nodes[(first + 1) % 3].kill().await;
    // What was under way at the moment may still be confirmed.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = published(&bridge).await;
    load.goes_on_for(500).await;
    let alone = published(&bridge).await - before;
    assert_eq!(alone, 0, "one node of three confirms nothing");
    println!("two of three dead: p99 {:?}", load.p99_since(begin));
    assert!(bridge.ready().await);
    assert!(bridge.status().await["backlog"]["events"].as_u64() >= Some(500));

    let begin = Instant::now();
    tokio::join!(
        cluster.nodes[first].start(),
        cluster.nodes[(first + 1) % 3].start()
    );
    println!("the nodes are back after {:?}", begin.elapsed());
    let took = flows(&bridge, 300).await;
    println!(
        "back: p99 {:?}, publishing after {took:?}",
        load.p99_since(begin)
    );

    let sent = load.stop_and_drain(&bridge).await;
    let repetitions = sent.arrived_as(&everything_in(&vhost, "all").await);
    println!("{} events, {repetitions} came again", sent.count());
}
