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
    /// `severity: problem`, each cause before what follows from it, notes left out.
    pub findings: Vec<String>,
    /// The same for notes.
    pub notes: Vec<String>,
    /// The first cause, also one of the configuration.
    pub first: String,
    /// How many causes there are.
    pub causes: usize,
    /// The last line's word; empty where the configuration cannot be used.
    pub verdict: String,
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
        .with("journal.backlog_bytes_max = \"16MiB\"\njournal.retention_bytes = \"16MiB\"")
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
    let told = String::from_utf8(run.stderr).unwrap();
    let mut checked = Checked {
        code: run.status.code().unwrap(),
        findings: Vec::new(),
        notes: Vec::new(),
        first: String::new(),
        causes: 0,
        verdict: String::new(),
        output: format!("{output}{told}"),
    };
    for line in output.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if let Some(verdict) = line["verdict"].as_str() {
            verdict.clone_into(&mut checked.verdict);
        } else {
            checked.take(&line, true);
        }
    }
    if checked.code == 2 {
        let finding = told.lines().find(|line| line.starts_with("  "));
        let finding = finding.unwrap_or_default().trim();
        finding.clone_into(&mut checked.first);
    }
    assert!(
        !checked.output.contains("guest:guest"),
        "a password: {checked:#?}"
    );
    checked
}

impl Checked {
    fn take(&mut self, line: &Value, is_cause: bool) {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let told = format!("{}: {}", text("severity"), text("problem"));
        // Where the tests run may be a memory file system.
        if told.contains("tmpfs") {
            return;
        }
        if line["severity"] == "note" {
            self.notes.push(told);
            return;
        }
        if line["severity"] == "error" && is_cause {
            assert!(line["impact"].is_string(), "what is lost by it? {line}");
            assert!(line["fix"].is_string(), "what to type? {line}");
        }
        if is_cause {
            self.causes += 1;
            if self.first.is_empty() {
                self.first.clone_from(&told);
            }
        }
        self.findings.push(told);
        for consequence in line["consequences"].as_array().into_iter().flatten() {
            self.take(consequence, false);
        }
    }
}
