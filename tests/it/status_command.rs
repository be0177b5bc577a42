//! `status`: what it shows of a healthy bridge, of one whose broker is away, and of none.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::bridge::builder::{BridgeBuilder, on_shared_broker};
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::terminal::{shown_on, watched_on};

async fn status(bridge: &Bridge) -> (i32, String) {
    let Output { status, stdout, .. } = bridge.run("status", &[]).await;
    (status.code().unwrap(), String::from_utf8(stdout).unwrap())
}

async fn document(bridge: &Bridge) -> Value {
    let output = bridge.run("status", &["--json"]).await;
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_bridge_exits_with_0() {
    let (_vhost, mut bridge) = on_shared_broker("").await;
    let (code, text) = status(&bridge).await;
    assert_eq!(code, 0, "{text}");
    contains(
        &text,
        &[
            "healthy: no webhook since the start, nothing pending",
            "deskdirector: none since the start",
        ],
    );

    let sessions = [
        session("1", "created", json!({})),
        session("2", "missed", json!({})),
        json!({"id": "3"}),
    ];
    assert_eq!(bridge.post(array_of(&sessions)).await.status, 202);
    bridge.backlog_is_empty().await;
    let (code, text) = status(&bridge).await;
    assert_eq!(code, 0, "{text}");
    contains(
        &text,
        &[
            "healthy: last webhook ",
            "signed with secrets[0]",
            "3 accepted, 2 published, 1 dead-lettered, 0 pending",
            "created 1, invalid 1, missed 1",
        ],
    );
    let document = document(&bridge).await;
    assert_eq!(document["health"], "healthy");
    assert_eq!(document["findings"], json!([]));
    assert_eq!(document["status"]["counters"]["accepted"], 3);

    bridge.terminate().await;
    let (code, text) = status(&bridge).await;
    assert_eq!(code, 2, "{text}");
    contains(
        &text,
        &[
            "not accepting webhooks",
            "no bridge is running",
            "try: start the bridge",
        ],
    );
    let output = bridge.run("status", &["--json"]).await;
    assert_eq!(output.status.code(), Some(2));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["health"], "not-accepting");
    assert_eq!(document["status"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_broker_is_degraded_with_1() {
    let vhost = Broker::shared().await.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .connected()
        .await;
    proxy.refuse();
    proxy.cut();
    bridge.broker_is("connecting").await;
    assert_eq!(bridge.post(array_of_new("waits", 2)).await.status, 202);
    let (code, text) = status(&bridge).await;
    assert_eq!(code, 1, "{text}");
    contains(
        &text,
        &[
            "degraded: last webhook ",
            "2 events pending",
            "the running bridge is not connected to the broker (connecting)",
            "try: start the broker",
        ],
    );
    assert_eq!(document(&bridge).await["health"], "degraded");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_screen_of_a_terminal_is_enough() {
    let (_vhost, bridge) = on_shared_broker("").await;
    bridge.post(array_of_new("some", 3)).await;
    bridge.backlog_is_empty().await;
    for columns in [30, 80, 200] {
        let shown = shown_on(&bridge, columns, &["status"]).await;
        contains(&shown, &["\u{1b}[32m"]);
        let plain = console_text(&shown);
        assert!(plain.lines().count() < 24, "{plain}");
        for line in plain.lines() {
            assert!(
                line.chars().count() <= columns.into(),
                "{columns}:\n{plain}"
            );
        }
    }
    let mut command = bridge.command("status", &[]);
    let output = command.env("CLICOLOR_FORCE", "0").output().unwrap();
    assert!(!output.stdout.contains(&0x1b), "no style in a pipe");

    let shown = watched_on(&bridge, &["status", "--watch"], "● ").await;
    // It ends with the old screen and the cursor.
    contains(&shown, &["\u{1b}[?1049h", "healthy"]);
    assert!(shown.ends_with("\u{1b}[?25h\u{1b}[?1049l"), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_needs_a_terminal() {
    let bridge = BridgeBuilder::at("amqp://localhost:1").build();
    let output = bridge.run("status", &["--watch"]).await;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    contains(&text, &["--watch needs a terminal", "try: "]);
}

/// The text without the styles of a terminal.
fn console_text(shown: &str) -> String {
    let mut parts = shown.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (_, rest) = part.split_once('m').expect("a style");
        text + rest
    })
}
