//! A healthy bridge with one consumer queue, which a test then breaks, and the output of `check`
//! for it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::vhost::Vhost;

/// A configured consumer queue that receives everything.
pub const TICKETS: &str = "[[queues]]\nname = \"tickets\"\nkeys = [\"#\"]\n";

/// A bridge that has declared its topology.
pub struct Setup {
    pub vhost: Vhost,
    pub bridge: Bridge,
}

/// The result of one run of `check`.
#[derive(Debug)]
pub struct Checked {
    pub code: i32,
    /// `severity: problem`, each cause before its consequences, without notes.
    pub findings: Vec<String>,
    /// As `findings`, for notes.
    pub notes: Vec<String>,
    /// The first cause, which may be an error of the configuration.
    pub first: String,
    /// The number of causes.
    pub causes: usize,
    /// The first word of the last line; empty if the configuration is unusable.
    pub verdict: String,
    /// Everything it printed.
    pub output: String,
}

impl Setup {
    /// A connected bridge with this configuration; `check` may query the management API.
    pub async fn of(toml: &str) -> Self {
        let vhost = Broker::shared().await.vhost().await;
        Self::on(vhost, toml).await
    }

    /// As [`Setup::of`], in a vhost that already contains objects.
    pub async fn on(vhost: Vhost, toml: &str) -> Self {
        let mut bridge = unstarted(&vhost, toml).build();
        bridge.start().await;
        bridge.broker_is("connected").await;
        Self { vhost, bridge }
    }

    /// Waits until `check` exits with this code and has exactly these findings, each identified by
    /// the beginning of its line, in any order. (The management API may lag for a moment.)
    pub async fn finds(&self, code: i32, expected: &[&str]) -> Checked {
        finds(&self.bridge, code, expected).await
    }
}

/// As [`Setup::of`], but not started.
pub fn unstarted(vhost: &Vhost, toml: &str) -> BridgeBuilder {
    BridgeBuilder::new(vhost)
        .with("journal.backlog_bytes_max = \"16MiB\"\njournal.retention_bytes = \"16MiB\"")
        .with(&format!(
            "rabbitmq.management_url = {:?}",
            vhost.management_url()
        ))
        .with(toml)
}

/// As [`Setup::finds`], for any bridge.
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

/// Runs `check` once, with JSON output.
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
        "the output contains a password: {checked:#?}"
    );
    checked
}

impl Checked {
    fn take(&mut self, line: &Value, is_cause: bool) {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let told = format!("{}: {}", text("severity"), text("problem"));
        // The tests may run on a tmpfs.
        if told.contains("tmpfs") {
            return;
        }
        if line["severity"] == "note" {
            self.notes.push(told);
            return;
        }
        if line["severity"] == "error" && is_cause {
            assert!(
                line["impact"].is_string(),
                "a finding without an impact: {line}"
            );
            assert!(line["fix"].is_string(), "a finding without a fix: {line}");
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

/// Disables the delivery limit on every version; the default of RabbitMQ 4 is 20.
pub const NO_LIMIT: i64 = 1_000_000_000;

/// The arguments of a safe queue, changed by these; null removes one.
pub fn safe(with: &Value) -> Value {
    let mut arguments = json!({
        "x-queue-type": "quorum", "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "chat-sessions.dead-letter",
        "x-dead-letter-strategy": "at-least-once",
    });
    for (name, value) in with.as_object().unwrap() {
        if value.is_null() {
            arguments.as_object_mut().unwrap().remove(name);
        } else {
            arguments[name] = value.clone();
        }
    }
    arguments
}
