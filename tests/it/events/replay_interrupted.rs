//! A replay is interrupted, loses its broker, or restores the messages that a broker has lost.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{bridge_with_queue, done, objects};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::consumer::everything_in;
use crate::support::message::Message;
use crate::support::process::signal;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of, session};
use crate::support::vhost::Vhost;
use crate::support::wait::{SOON, eventually};

const LONG: Duration = Duration::from_mins(1);

/// Posts this number of webhooks with 100 sessions each; each contains the next status of all
/// sessions.
async fn fill(bridge: &Bridge, webhooks: usize) {
    for n in 0..webhooks {
        let sessions: Vec<_> = (0..100)
            .map(|id| session(&format!("s{id}"), "handled", json!({"n": n})))
            .collect();
        assert_eq!(bridge.post(array_of(&sessions)).await.status, 202);
    }
    bridge.backlog_is_empty().await;
}

/// Panics unless each session's messages come in the order of their numbers, duplicates aside.
fn assert_order(messages: &[Message]) {
    for id in 0..100 {
        let id = format!("s{id}");
        let of_session = messages
            .iter()
            .filter(|message| message.correlation_id.as_deref() == Some(&id));
        let mut numbers: Vec<_> = of_session
            .map(|message| message.json()["n"].as_i64().unwrap())
            .collect();
        numbers.dedup();
        assert!(numbers.is_sorted(), "{id}: {numbers:?}");
    }
}

/// A bridge that has published everything, and a proxy that only the replay uses.
async fn bridge_and_proxy(vhost: &Vhost) -> (Bridge, Proxy) {
    let mut bridge = bridge_with_queue(vhost, "all").await;
    fill(&bridge, 30).await;
    vhost.purge_queue("all").await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    bridge.reconfigure(&format!(
        "rabbitmq.urls = ['{}']\nrabbitmq.in_flight_max = 8",
        vhost.amqp_url_through(proxy.address())
    ));
    (bridge, proxy)
}

fn replay_begun(bridge: &Bridge) -> Child {
    let mut command = bridge.command("events", &["replay", "--all", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_replay_reports_the_confirmed_count() {
    let vhost = Broker::shared().await.vhost().await;
    let (bridge, _proxy) = bridge_and_proxy(&vhost).await;
    let child = replay_begun(&bridge);
    eventually("some have arrived", LONG, || async {
        vhost.message_count("all").await.unwrap() > 20
    })
    .await;
    signal(child.id(), Signal::INT);
    let output = child.wait_with_output().unwrap();
    let told = &objects(&String::from_utf8_lossy(&output.stdout))[0];
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told["ended"], "interrupted", "{told}");
    let arrived = everything_in(&vhost, "all").await;
    let count = |name: &str| usize::try_from(told[name].as_u64().unwrap()).unwrap();
    let confirmed = count("confirmed");
    let possible = confirmed..=confirmed + count("unknown");
    assert!(
        possible.contains(&arrived.len()),
        "{told}, {} arrived",
        arrived.len()
    );
    assert!(
        arrived.len() < 3000,
        "the replay was complete before the interruption"
    );
    assert_order(&arrived);
    eventually("the replayed events are counted", SOON, || async {
        bridge.counter("replayed").await == told["confirmed"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_cause_only_duplicates() {
    let vhost = Broker::shared().await.vhost().await;
    let (bridge, proxy) = bridge_and_proxy(&vhost).await;
    let child = replay_begun(&bridge);
    for seen in [100, 600] {
        eventually("some have arrived", LONG, || async {
            vhost.message_count("all").await.unwrap() > seen
        })
        .await;
        proxy.cut();
    }
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = output.await.unwrap().unwrap();
    let told = &objects(&done(&output))[0];
    assert_eq!(told["confirmed"], 3000, "{told}");
    let arrived = everything_in(&vhost, "all").await;
    let ids: BTreeSet<_> = arrived.iter().map(Message::id).collect();
    assert_eq!(ids.len(), 3000);
    assert_order(&arrived);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_restores_a_broker_without_its_disk() {
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let bridge = bridge_with_queue(&vhost, "all").await;
    fill(&bridge, 3).await;
    bridge.post("malformed").await;
    bridge.backlog_is_empty().await;
    let before = everything_in(&vhost, "all").await;
    broker.stop().await;
    std::fs::remove_dir_all(broker.dir().join("data")).unwrap();
    broker.start().await;
    vhost.make().await;
    bridge.broker_is("connected").await;
    assert_eq!(
        vhost.message_count("all").await,
        Some(0),
        "the broker has lost all messages"
    );

    done(&bridge.run("events", &["replay", "--all"]).await);
    let restored = everything_in(&vhost, "all").await;
    let ids = |messages: &[Message]| -> BTreeSet<String> {
        messages
            .iter()
            .map(|message| message.id().to_owned())
            .collect()
    };
    assert_eq!(ids(&restored), ids(&before));
    assert_order(&restored);
    let letters = everything_in(&vhost, "chat-sessions.dead-letter").await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].body, b"malformed");
}
