//! Events are listed, shown and filtered, with and without a running bridge.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{accept, done, failed, field, objects, told};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::process::signal;
use crate::support::proxy::Proxy;
use crate::support::vhost::Vhost;

/// A bridge with seven events: five published (two of them with an unknown status), one malformed,
/// and one pending.
async fn seven(vhost: &Vhost) -> (Bridge, Proxy) {
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .connected()
        .await;
    accept(
        &bridge,
        &[
            ("a", "created"),
            ("b", "created"),
            ("a", "handled"),
            ("a", "archived"),
            ("c", "archived"),
        ],
    )
    .await;
    bridge.post("malformed \u{1b}[31m").await;
    bridge.backlog_is_empty().await;
    proxy.refuse();
    bridge.broker_is("connecting").await;
    accept(&bridge, &[("a", "completed")]).await;
    (bridge, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn list_selects_events_by_filter() {
    let vhost = Broker::shared().await.vhost().await;
    let (mut bridge, _proxy) = seven(&vhost).await;
    check_filters(&bridge).await;
    bridge.terminate().await;
    check_filters(&bridge).await;
}

async fn check_filters(bridge: &Bridge) {
    let seqs = async |filters: &[&str]| {
        let arguments = [&["list", "--json"], filters].concat();
        let events = objects(&done(&bridge.run("events", &arguments).await));
        let seqs = field(&events, "seq");
        seqs.into_iter().map(|seq| seq.as_i64().unwrap()).collect()
    };
    let check = async |filters: &[&str], expected: &[i64]| {
        let found: Vec<i64> = seqs(filters).await;
        assert_eq!(found, expected, "{filters:?}");
    };
    check(&[], &[1, 2, 3, 4, 5, 6, 7]).await;
    check(&["--session", "a"], &[1, 3, 4, 7]).await;
    check(&["--session", "a", "--session", "b"], &[1, 2, 3, 4, 7]).await;
    check(&["--status", "created"], &[1, 2]).await;
    check(&["--status", "archived", "--status", "handled"], &[3, 4, 5]).await;
    check(&["--status", "unknown"], &[4, 5]).await;
    check(&["--status", "malformed"], &[6]).await;
    check(&["--source", "deskdirector", "--status", "handled"], &[3]).await;
    check(&["--source", "another"], &[]).await;
    check(&["--state", "pending"], &[7]).await;
    // The alias for `pending`, from earlier releases.
    check(&["--state", "unsettled"], &[7]).await;
    check(&["--state", "published", "--session", "a"], &[1, 3, 4]).await;
    check(&["--state", "dead-lettered"], &[6]).await;
    check(&["--since", "1h"], &[1, 2, 3, 4, 5, 6, 7]).await;
    check(&["--until", "1h"], &[]).await;
    check(&["--since", "2100-01-01T00:00:00Z"], &[]).await;
    check(&["--limit", "2"], &[6, 7]).await;
    check(
        &["--limit", "2", "--session", "a", "--state", "published"],
        &[3, 4],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn list_prints_json_lines_or_a_table() {
    let vhost = Broker::shared().await.vhost().await;
    let (bridge, _proxy) = seven(&vhost).await;
    let events = objects(&done(&bridge.run("events", &["list", "--json"]).await));
    let first = &events[0];
    assert_eq!(first["session"], "a");
    assert_eq!(first["status"], "created");
    assert_eq!(first["source"], "deskdirector");
    assert_eq!(first["state"], "published");
    assert_eq!(first["attempts"], 1);
    assert_eq!(first["webhook_index"], 0);
    assert_eq!(first["kept"], false);
    assert!(first["message_id"].as_str().unwrap().len() == 36);
    assert!(first["received_at"].as_str().unwrap().ends_with('Z'));
    assert!(first["settled_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (&events[5]["reason"], &events[5]["session"]),
        (&json!("malformed"), &Value::Null)
    );
    assert_eq!(events[6]["state"], "pending");
    assert_eq!(events[6]["routing_key"], "chat-session.completed");

    let table = done(&bridge.run("events", &["list"]).await);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 8, "{table}");
    assert!(lines[0].starts_with("SEQ") && lines[0].ends_with("BYTES"));
    assert!(lines[6].contains("dead-lettered (malformed)"), "{table}");

    let (code, out, err) = told(&bridge.run("events", &["list", "--session", "z"]).await);
    assert_eq!((code, &*out), (Some(0), ""));
    assert!(err.contains("no such event"), "{err}");
    assert!(
        err.contains("`deskbridge events list --status invalid`"),
        "{err}"
    );
    let (_, _, err) = told(
        &bridge
            .run("events", &["list", "--since", "2100-01-01"])
            .await,
    );
    assert!(err.contains("no such event"), "{err}");
    assert!(!err.contains("invalid"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn export_contains_body_and_outcome_of_each_event() {
    let vhost = Broker::shared().await.vhost().await;
    let (bridge, _proxy) = seven(&vhost).await;
    let lines = done(&bridge.run("events", &["export"]).await);
    let exported = objects(&lines);
    let listed = objects(&done(&bridge.run("events", &["list", "--json"]).await));
    assert_eq!(exported.len(), listed.len());
    for (line, listed) in exported.iter().zip(&listed) {
        let seq = line["seq"].to_string();
        let shown = objects(&done(
            &bridge.run("events", &["show", &seq, "--json"]).await,
        ));
        assert_eq!(*line, shown[0]);
        assert_eq!(line["state"], listed["state"]);
        assert_eq!(line["damaged"], false);
    }
    assert_eq!(exported[0]["body"]["id"], "a");
    let of_one = done(&bridge.run("events", &["export", "--session", "a"]).await);
    assert!(objects(&of_one).iter().all(|line| line["session"] == "a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn show_prints_the_body_by_number_and_id() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    let element = "{\"id\": \"x\",\n \"status\":\"created\", \"n\": 1.000000000000000005}";
    for _ in 0..2 {
        bridge.post(format!("[ {element} ]")).await;
    }
    bridge.backlog_is_empty().await;
    let show = async |arguments: &[&str]| {
        let output = bridge.run("events", &[&["show"], arguments].concat()).await;
        done(&output)
    };
    assert_eq!(show(&["1", "--body"]).await, element, "byte for byte");
    let shown = objects(&show(&["1", "--json"]).await);
    assert_eq!(shown[0]["body"]["id"], "x");
    assert_eq!(shown[0]["damaged"], false);
    let id = shown[0]["message_id"].as_str().unwrap();
    let same = objects(&show(&[id, "--json"]).await);
    assert_eq!(
        field(&same, "seq"),
        [1, 2],
        "the same event, received twice"
    );
    assert_eq!(show(&[id, "--body"]).await, element);
    let readable = show(&["2"]).await;
    assert!(
        readable.contains(id) && readable.contains("1.000000000000000005"),
        "{readable}"
    );

    let err = failed(&bridge.run("events", &["show", "99"]).await, 1);
    assert!(err.contains("no event 99") && err.contains("try:"), "{err}");
    failed(&bridge.run("events", &["show", "nonsense"]).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_prints_new_events_until_interrupted() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    accept(&bridge, &[("before", "created"), ("last", "created")]).await;
    let arguments = ["list", "--json", "--follow", "--limit", "1"];
    let mut child = bridge
        .command("events", &arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.next().unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["session"].clone()
    };
    assert_eq!(next(), "last");
    accept(&bridge, &[("new-1", "created"), ("new-2", "created")]).await;
    assert_eq!(next(), "new-1");
    assert_eq!(next(), "new-2");
    accept(&bridge, &[("new-3", "created")]).await;
    assert_eq!(next(), "new-3");
    signal(child.id(), Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// `cli::time` tests how times are read and shown; this tests in which time zone.
#[tokio::test(flavor = "multi_thread")]
async fn times_are_local_unless_utc_is_asked() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    accept(&bridge, &[("a", "created")]).await;
    let run_in = |zone: &str, words: &[&str]| {
        let mut command = bridge.command("events", words);
        command.env("TZ", zone).output().unwrap()
    };
    let in_kolkata = |words: &[&str]| done(&run_in("Asia/Kolkata", words));
    let event = objects(&in_kolkata(&["list", "--json"])).remove(0);
    let received = event["received_at"].as_str().unwrap();
    assert!(received.ends_with('Z'), "{event}");
    let received: Timestamp = received.parse().unwrap();
    let local = received.to_zoned(TimeZone::get("Asia/Kolkata").unwrap());
    let shown = local.strftime("%Y-%m-%dT%H:%M:%S+05:30").to_string();
    assert!(in_kolkata(&["list"]).contains(&shown), "{shown}");
    let utc = received.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    assert!(in_kolkata(&["list", "--utc"]).contains(&utc), "{utc}");
    assert!(in_kolkata(&["show", "1"]).contains(&shown[..19]), "{shown}");

    let minute = local.strftime("%Y-%m-%dT%H:%M").to_string();
    let since = ["list", "--json", "--since", &minute];
    assert_eq!(objects(&in_kolkata(&since)).len(), 1);
    // In another time zone the same words mean another time.
    let in_utc = [&since[..], &["--utc"]].concat();
    assert_eq!(in_kolkata(&in_utc), "");

    let err = failed(&run_in("Mars/Base", &["list"]), 2);
    assert!(err.contains("TZ is `Mars/Base`"), "{err}");
    let twice = ["list", "--since", "2026-10-25T02:30"];
    let err = failed(&run_in("Europe/Berlin", &twice), 2);
    assert!(err.contains("2026-10-25T02:30:00+01:00"), "{err}");
}
