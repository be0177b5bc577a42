//! A real Prometheus that scrapes a bridge twice a second and evaluates its rules.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tempfile::TempDir;

use super::bridge::builder::free_address;
use super::http::get;
use super::process::{end_with_us, has_ended, signal};
use super::wait::{SOON, eventually};

/// The path of the shipped alert rules.
pub fn rules_file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/prometheus/alerts.yml")
}

/// Whether a program of the Prometheus distribution is installed.
pub fn is_installed(program: &str) -> bool {
    let run = Command::new(program).arg("--version").output();
    run.is_ok_and(|output| output.status.success())
}

/// A running Prometheus; killed (`kill -9`) when dropped.
pub struct Prometheus {
    address: SocketAddr,
    child: Child,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts Prometheus with these rules and waits until it has scraped the bridge.
    pub async fn watching(bridge: SocketAddr, rules: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("alerts.yml"), rules).unwrap();
        let config = format!(
            "global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}\n\
             rule_files: [alerts.yml]\n\
             scrape_configs:\n- job_name: deskbridge\n  static_configs: [{{ targets: [\"{bridge}\"] }}]\n"
        );
        std::fs::write(file("prometheus.yml"), config).unwrap();
        let address = free_address();
        let child = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                file("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", file("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        end_with_us(child.id());
        let prometheus = Self {
            address,
            child,
            _dir: dir,
        };
        eventually("Prometheus has scraped the bridge", SOON, || async {
            prometheus.has("deskbridge_build_info").await
        })
        .await;
        prometheus
    }

    /// The names of the firing alerts.
    pub async fn firing(&self) -> BTreeSet<String> {
        let answer = get(self.address, "/api/v1/alerts").await.unwrap().json();
        let alerts = answer["data"]["alerts"].as_array().unwrap();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Whether Prometheus has a sample of this metric.
    pub async fn has(&self, metric: &str) -> bool {
        self.value(metric).await.is_some()
    }

    /// The first value of an expression; `None` if it has none or Prometheus does not answer yet.
    pub async fn value(&self, expression: &str) -> Option<f64> {
        let path = format!("/api/v1/query?query={expression}");
        let answer = get(self.address, &path).await.ok()?;
        if answer.status != 200 {
            return None;
        }
        let value = answer.json()["data"]["result"][0]["value"][1].clone();
        value.as_str()?.parse().ok()
    }

    /// All values of an expression; an error of Prometheus is a panic.
    pub async fn values(&self, expression: &str) -> Vec<f64> {
        let encoded = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let path = format!("/api/v1/query?query={encoded}");
        let answer = get(self.address, &path).await.unwrap().json();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap();
        let values = series.iter().map(|series| series["value"][1].as_str());
        values
            .map(|value| value.unwrap().parse().unwrap())
            .collect()
    }

    /// Waits until the alert fires.
    pub async fn fires(&self, alert: &str) {
        let what = format!("{alert} fires");
        eventually(&what, 2 * SOON, || async {
            self.firing().await.contains(alert)
        })
        .await;
    }

    /// Waits until the alert no longer fires.
    pub async fn is_over(&self, alert: &str) {
        let what = format!("{alert} is over");
        eventually(&what, 2 * SOON, || async {
            !self.firing().await.contains(alert)
        })
        .await;
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        signal(self.child.id(), rustix::process::Signal::KILL);
        let _ = self.child.wait();
        has_ended(self.child.id());
    }
}
