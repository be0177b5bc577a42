//! Three nodes and a quorum queue: the leader is killed, then two of three nodes, and both return.
//! Every answer is 202, no event is lost, and each session stays in order.

use std::time::Instant;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::cluster::Cluster;
use crate::support::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn losing_leader_or_quorum_loses_nothing() {
    let cluster = Cluster::of_three().await;
    let vhost = cluster.nodes[0].vhost().await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url)
        .with(&format!("rabbitmq.urls = {:?}", cluster.urls(&vhost)))
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with("rabbitmq = {confirm_timeout = '3s', heartbeat = '2s', connect_timeout = '2s'}")
        // A queue without a quorum nacks, like a full queue. With the default delays, twelve
        // attempts last for more than a minute, with these delays only for some seconds.
        .with("retry = {delay_min = '50ms', delay_max = '1s', attempts_max = 1000}")
        .with("queues = [{name = 'all', keys = ['#']}]")
        .connected()
        .await;
    let load = Load::paced(&bridge);
    let begin = Instant::now();
    bridge.publishes(200).await;
    println!("calm: p99 {:?}", load.p99_since(begin));

    let leader = cluster.leader_of(&vhost, "all", 0).await.expect("a leader");
    bridge.publishes(100).await;
    let begin = Instant::now();
    cluster.nodes[leader].kill().await;
    // Some events may be confirmed already; the others need another leader.
    bridge.publishes(400).await;
    println!(
        "leader dead: p99 {:?}, 400 events published after {:?}",
        load.p99_since(begin),
        begin.elapsed()
    );

    let begin = Instant::now();
    let second = (leader + 1) % 3;
    cluster.nodes[second].kill().await;
    // Messages that were in flight may still be confirmed.
    load.accepts(300).await;
    let before = bridge.counter("published").await;
    load.accepts(300).await;
    let alone = bridge.counter("published").await - before;
    assert_eq!(alone, 0, "one node of three cannot confirm");
    println!("two of three dead: p99 {:?}", load.p99_since(begin));
    assert!(bridge.ready().await);
    assert!(bridge.status().await["backlog"]["events"].as_u64() >= Some(300));

    let begin = Instant::now();
    tokio::join!(cluster.nodes[leader].start(), cluster.nodes[second].start());
    println!("the nodes are back after {:?}", begin.elapsed());
    bridge.publishes(100).await;
    println!("back: p99 {:?}", load.p99_since(begin));
    load.arrives_in("all", &vhost, &bridge).await;
}
