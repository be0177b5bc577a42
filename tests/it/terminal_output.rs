//! Foreign text reaches a terminal with all characters escaped that a terminal interprets or hides:
//! control characters, bidirectional and zero-width characters, line separators. JSON output
//! contains the original text in escaped form.

use std::process::Output;

use serde_json::{Value, json};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::sender::{array_of, session};
use crate::support::terminal::shown_on;
use crate::support::vhost::Vhost;

/// Clears the screen, reverses text, hides a word, and begins what looks like a line of our own.
const HOSTILE: &str = "x\u{1b}[2J\u{9b}2J\u{7f}\u{ad}\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\u{e0041}\r\nerror: forged";
/// A hostile name that the broker accepts unchanged; it would remove line breaks.
const NAME: &str =
    "x\u{1b}[2J\u{9b}2J\u{7f}\u{ad}\u{202e}\u{2066}\u{200b}\u{feff}\u{2028}\u{e0041}";

/// The characters of the text that must not reach a terminal; line breaks may.
fn unsafe_in(text: &str) -> Vec<char> {
    let is_hostile =
        |c: &char| !c.is_ascii_graphic() && !matches!(c, ' ' | '\n') && HOSTILE.contains(*c);
    text.chars().filter(is_hostile).collect()
}

#[track_caller]
fn assert_safe(what: &str, text: &str) {
    assert!(unsafe_in(text).is_empty(), "{what}: {text:?}");
    let forged = text.lines().find(|line| line.starts_with("error: forged"));
    assert_eq!(forged, None, "{what}: {text}");
}

/// The output of a command, text or JSON; panics if either stream is unsafe.
async fn said(bridge: &Bridge, command: &str, words: &[&str]) -> String {
    let output: Output = bridge.run(command, words).await;
    let out = String::from_utf8(output.stdout).unwrap();
    assert_safe(command, &out);
    assert_safe(command, &String::from_utf8(output.stderr).unwrap());
    assert!(!out.is_empty(), "{command} {words:?} prints nothing");
    out
}

/// A bridge with hostile names, ids and texts in every place.
async fn besieged(vhost: &Vhost) -> Bridge {
    let management = format!("rabbitmq.management_url = '{}'", vhost.management_url());
    let bridge = BridgeBuilder::new(vhost)
        .with(&management)
        .connected()
        .await;
    vhost.queue_bound(NAME, "chat-sessions", "#").await;
    let company = json!({"creator": {"name": HOSTILE, "company": {"name": HOSTILE}}});
    bridge
        .post(array_of(&[
            session(HOSTILE, HOSTILE, company),
            json!({"id": "x", HOSTILE: 1}),
        ]))
        .await;
    bridge.post(HOSTILE).await;
    bridge.backlog_is_empty().await;
    bridge
}

fn values(text: &str) -> Vec<Value> {
    let value = |line| serde_json::from_str(line).expect("a line of JSON");
    text.lines().map(value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_escapes_foreign_text() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = besieged(&vhost).await;

    let text = said(&bridge, "check", &[]).await;
    assert!(text.contains("x\\u{1b}[2J"), "{text}");
    said(&bridge, "check", &["--json"]).await;

    let text = said(&bridge, "events", &["list"]).await;
    assert!(text.contains("\\r\\nerror: forged"), "{text}");
    let listed = values(&said(&bridge, "events", &["list", "--json"]).await);
    assert_eq!(listed[0]["session"], HOSTILE);
    assert_eq!(listed[0]["status"], HOSTILE);
    said(&bridge, "events", &["show", "1"]).await;
    let shown = values(&said(&bridge, "events", &["show", "1", "--json"]).await);
    assert_eq!(shown[0]["body"]["creator"]["name"], HOSTILE);
    said(&bridge, "events", &["export"]).await;
    said(&bridge, "events", &["replay", "--all", "--dry-run"]).await;

    said(&bridge, "dead-letters", &["list"]).await;
    let malformed = ["list", "--json", "--reason", "malformed"];
    let listed = values(&said(&bridge, "dead-letters", &malformed).await);
    assert_eq!(listed[0]["written_by"], "bridge");
    let id = listed[0]["id"].as_str().unwrap();
    said(&bridge, "dead-letters", &["show", id]).await;
    let shown = said(&bridge, "dead-letters", &["show", "--json", id]).await;
    assert_eq!(values(&shown)[0]["body"], HOSTILE);
    said(&bridge, "dead-letters", &["list", "--queue", NAME]).await;
    let named = ["show", "--json", "--queue", NAME, "#1"];
    let shown = values(&said(&bridge, "dead-letters", &named).await);
    assert_eq!(shown[0]["correlation_id"], HOSTILE);

    said(&bridge, "status", &[]).await;
    said(&bridge, "status", &["--json"]).await;
    for words in [&["why", HOSTILE][..], &["why", "--json", HOSTILE]] {
        let output = bridge.run(words[0], &words[1..]).await;
        for text in [output.stdout, output.stderr] {
            assert_safe("why", &String::from_utf8(text).unwrap());
        }
    }

    let status = bridge.admin("/status").await.text();
    assert_safe("/status", &status);
    assert_safe("the log", &bridge.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_escapes_foreign_text() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = besieged(&vhost).await;
    for format in ["--body", "--json"] {
        let (mut tail, mut said) =
            super::output_pipes::following(&bridge, &["--count", "1", format]);
        super::output_pipes::is_waiting(&mut said);
        bridge
            .post(array_of(&[session(HOSTILE, HOSTILE, json!({}))]))
            .await;
        let stdout = tail.stdout.take().unwrap();
        let text = tokio::task::spawn_blocking(|| std::io::read_to_string(stdout).unwrap());
        let text = text.await.unwrap();
        assert_eq!(tail.wait().unwrap().code(), Some(0));
        assert_safe("tail", &text);
        if format == "--json" {
            let message = &values(&text)[0];
            assert_eq!(message["headers"]["session-id"], HOSTILE);
            assert_eq!(message["body"]["status"], HOSTILE);
        } else {
            assert!(text.contains("\\u{202e}"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn body_bytes_are_escaped_on_a_terminal() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = besieged(&vhost).await;
    let exact = bridge.run("events", &["show", "--body", "3"]).await.stdout;
    assert_eq!(exact, HOSTILE.as_bytes());
    let shown = shown_on(&bridge, 80, &["events", "show", "--body", "3"]).await;
    assert!(unsafe_in(&shown).is_empty(), "{shown:?}");
    assert!(shown.contains("\\u{1b}[2J"), "{shown:?}");
}

/// `cli::table` tests what fits; this tests that the width is that of the terminal.
#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_the_terminal() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    bridge
        .post(r#"[{"id":"a","status":"created"},{"id":"b"}]"#)
        .await;
    bridge.backlog_is_empty().await;
    for command in ["events", "dead-letters"] {
        for (columns, is_cut) in [(36, true), (120, false)] {
            let shown = shown_on(&bridge, columns, &[command, "list"]).await;
            let head = shown.lines().next().unwrap();
            assert_eq!(head.ends_with('…'), is_cut, "{columns}:\n{shown}");
            let is_within = |line: &str| line.chars().count() <= columns.into();
            assert!(shown.lines().all(is_within), "{columns}:\n{shown}");
        }
        // Not a terminal: nothing is cut, whatever `COLUMNS` says.
        let mut command = bridge.command(command, &["list"]);
        let output = command.env("COLUMNS", "36").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains('…') && text.lines().count() >= 2, "{text}");
    }
}
