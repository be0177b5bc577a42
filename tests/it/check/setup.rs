//! A healthy bridge with one consumer queue, for a test to spoil, and what `check` says of it.

use std::time::Duration;

use serde_json::Value;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::vhost::Vhost;

/// A consumer queue of the configuration that takes everything.
pub const TICKETS: &str = "[[queues]]\nname = \"tickets\"\nkeys = [\"#\"]\n";

/// A bridge that has declared what it needs.
pub struct Setup {
    pub vhost: Vhost,
    pub bridge: Bridge,
}

/// What a run of `check` came to.
#[derive(Debug)]
pub struct Checked {
    pub code: i32,
    /// `severity: problem`, notes left out.
    pub findings: Vec<String>,
    /// The same for notes.
    pub notes: Vec<String>,
    /// Everything it printed.
    pub output: String,
}

impl Setup {
    /// The bridge of this configuration, connected; `check` may ask the management API.
    pub async fn of(toml: &str) -> Self {
        let vhost = Broker::shared().await.vhost().await;
        Self::on(vhost, toml).await
    }

    /// The same in a vhost where something is already.
    pub async fn on(vhost: Vhost, toml: &str) -> Self {
        let mut bridge = unstarted(&vhost, toml).build();
        bridge.start().await;
        bridge.broker_is("connected").await;
        Self { vhost, bridge }
    }

    /// Waits until `check` finds just these, each by the beginning of its line, in any order, and
    /// ends with this code. (The management API may be a moment behind.)
    pub async fn finds(&self, code: i32, expected: &[&str]) -> Checked {
        finds(&self.bridge, code, expected).await
    }
}

/// As [`Setup::of`], not started.
pub fn unstarted(vhost: &Vhost, toml: &str) -> BridgeBuilder {
    BridgeBuilder::new(vhost)
        .with("journal.backlog_bytes_max = \"16MiB\"")
        .with(&format!(
            "rabbitmq.management_url = {:?}",
            vhost.management_url()
        ))
        .with(toml)
}

/// See [`Setup::finds`].
pub async fn finds(bridge: &Bridge, code: i32, expected: &[&str]) -> Checked {
    let mut last = check(bridge).await;
    let deadline = Duration::from_secs(20);
    let what = format!("check finds {expected:#?}");
    let is_it = |checked: &Checked| {
        let is_told = |begin: &&str| {
            let told = checked.findings.iter();
            told.filter(|line| line.starts_with(*begin)).count() == 1
        };
        checked.findings.len() == expected.len() && expected.iter().all(is_told)
    };
    let begin = std::time::Instant::now();
    while !is_it(&last) && begin.elapsed() < deadline {
        last = check(bridge).await;
    }
    assert!(is_it(&last), "{what}, but it is {last:#?}");
    assert_eq!(last.code, code, "{last:#?}");
    last
}

/// Runs it once, as JSON.
pub async fn check(bridge: &Bridge) -> Checked {
    let run = bridge.run("check", &["--json"]).await;
    let output = String::from_utf8(run.stdout).unwrap();
    let (mut findings, mut notes) = (Vec::new(), Vec::new());
    for line in output.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let told = format!("{}: {}", text("severity"), text("problem"));
        // Where the tests run may be a memory file system.
        if told.contains("tmpfs") {
            continue;
        }
        if line["severity"] == "note" {
            notes.push(told);
            continue;
        }
        if line["severity"] == "error" {
            assert!(line["lost"].is_string(), "what is lost by it? {line}");
            assert!(line["advice"].is_string(), "what to type? {line}");
        }
        findings.push(told);
    }
    assert!(!output.contains("guest:guest"), "a password: {output}");
    Checked {
        code: run.status.code().unwrap(),
        findings,
        notes,
        output: output + &String::from_utf8(run.stderr).unwrap(),
    }
}
