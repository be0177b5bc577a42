//! A stored value that this release never writes counts as damage of its row; everything else
//! continues.

use crate::support::bridge::builder::on_shared_broker;
use crate::support::sender::array_of_new;

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
