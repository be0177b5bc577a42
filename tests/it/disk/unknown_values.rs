//! A stored value that this release never writes counts as damage of its row; everything else
//! continues.

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::broker::Broker;
use crate::support::consumer::Consumer;
use crate::support::proxy::Proxy;
use crate::support::sender::array_of_new;

#[tokio::test(flavor = "multi_thread")]
async fn unknown_value_is_a_damaged_dead_letter() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let mut bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .connected()
        .await;
    proxy.refuse();
    assert_eq!(bridge.post(array_of_new("held", 4)).await.status, 202);
    bridge.terminate().await;
    let database = bridge.database();
    let change = "UPDATE webhooks SET fields = replace(fields, '\"held-1\",', '\"held-1\" ');
                  UPDATE webhooks SET fields = replace(fields, '\"held-2\",', '7,')";
    database.execute_batch(change).unwrap();
    database.close().unwrap();
    proxy.pass();
    bridge.start().await;
    bridge.backlog_is_empty().await;
    let mut letters = Consumer::of(&vhost, "chat-sessions.dead-letter").await;
    for letter in letters.receive_n(2).await {
        assert_eq!(letter.header("dead-letter-reason"), "damaged");
    }
    let counters = bridge.status().await["counters"].clone();
    assert_eq!(counters["published"], 2, "{counters}");
    assert_eq!(counters["dead_lettered_by_reason"]["damaged"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcome_is_listed_as_damaged() {
    let (_vhost, mut bridge) = on_shared_broker("").await;
    assert_eq!(bridge.post(array_of_new("held", 2)).await.status, 202);
    bridge.backlog_is_empty().await;
    bridge.terminate().await;
    let database = bridge.database();
    let change = "INSERT INTO outcomes (seq, outcome, attempts, kept) VALUES (1, 'bored', 1, 0)";
    database.execute(change, []).unwrap();
    database.close().unwrap();
    let listed = bridge.run("events", &["list", "--json"]).await;
    let lines = String::from_utf8(listed.stdout).unwrap();
    let states: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| (line["state"].clone(), line["outcome"].clone()))
        .collect();
    assert!(
        states.contains(&("damaged".into(), "bored".into())),
        "{lines}"
    );
    assert!(states.contains(&("published".into(), ().into())), "{lines}");
    bridge.start().await;
    assert!(bridge.ready().await);
}
