//! What the admin listener reports, and what no output contains.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::sender::{SECRET, array_of, session, sign};
use crate::support::wait::{SOON, eventually};

/// The standard process metrics of Prometheus client libraries, without our prefix.
const PROCESS_METRICS: [&str; 6] = [
    "process_cpu_seconds_total counter",
    "process_open_fds gauge",
    "process_max_fds gauge",
    "process_resident_memory_bytes gauge",
    "process_virtual_memory_bytes gauge",
    "process_start_time_seconds gauge",
];

/// Name and kind of each metric in the table of the runbook.
fn documented() -> BTreeSet<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md");
    let page = std::fs::read_to_string(page).unwrap();
    let row = |line: &str| {
        let row = line.strip_prefix("| `")?;
        let (name, rest) = row.split_once("` | ")?;
        let (kind, _) = rest.split_once(" |")?;
        let is_metric = name.starts_with("deskbridge_");
        is_metric.then(|| format!("{name} {kind}"))
    };
    page.lines().filter_map(row).collect()
}

async fn families(bridge: &Bridge) -> BTreeSet<String> {
    let page = bridge.admin("/metrics").await.text();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_exactly_the_documented_ones() {
    let vhost = Broker::shared().await.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).start().await;
    let mut promised = documented();
    promised.extend(PROCESS_METRICS.map(ToOwned::to_owned));
    assert_eq!(families(&bridge).await, promised);
    bridge.broker_is("connected").await;
    let odd = array_of(&[session("x", "archived", json!({})), json!(7)]);
    bridge.post(odd).await;
    bridge.post("nonsense").await;
    bridge.post_with(&[], "[]").await.unwrap();
    bridge.backlog_is_empty().await;
    assert_eq!(families(&bridge).await, promised, "no metric appears later");

    let page = bridge.metrics().await;
    let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
        let found = page.sum_where(name, labels);
        assert!(
            (found - expected).abs() < 0.5,
            "{name} {labels:?}: {found}, not {expected}"
        );
    };
    let ours = ("source", "deskdirector");
    is("webhooks_total", &[ours, ("code", "202")], 2.0);
    is("webhooks_total", &[ours, ("code", "401")], 1.0);
    is(
        "sessions_accepted_total",
        &[ours, ("status", "unknown")],
        1.0,
    );
    is(
        "sessions_accepted_total",
        &[ours, ("status", "invalid")],
        1.0,
    );
    is(
        "sessions_accepted_total",
        &[ours, ("status", "malformed")],
        1.0,
    );
    is("sessions_published_total", &[("status", "unknown")], 1.0);
    is("dead_letters_total", &[("reason", "invalid")], 1.0);
    is("dead_letters_total", &[("reason", "malformed")], 1.0);
    is("broker_connected", &[], 1.0);
    is("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    assert!(
        !bridge.admin("/metrics").await.text().contains("archived"),
        "text of a sender is a label"
    );
    assert!(page.sum("journal_fsync_seconds_count") >= 2.0);
    assert!(page.sum("delivery_seconds_count") >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_pages_contain_no_secret_or_body() {
    let vhost = Broker::shared().await.vhost().await;
    let password = "not-for-anybodys-eyes";
    let user = format!("bridge-{}", vhost.name);
    vhost.user(&user, password).await;
    let url = vhost.amqp_url_as(&user, password);
    for format in ["text", "json"] {
        let mut bridge = BridgeBuilder::at(&url)
            .with(&format!(
                "telemetry.log_format = {format:?}\ntelemetry.log_level = \"trace\""
            ))
            .connected()
            .await;
        let body = array_of(&[
            session("x", "created", json!({"name": "Confidential Name"})),
            json!({"name": "Confidential Name"}),
        ]);
        let signature = sign(SECRET, &body);
        assert_eq!(bridge.post(&body).await.status, 202);
        bridge.post("[\"Confidential Name\"").await;
        bridge.post_signed_with("some other secret", &body).await;
        bridge.backlog_is_empty().await;
        bridge.reconfigure("retry.attempts_mix = 3");
        bridge.hang_up();
        eventually("the broker refuses the connection", SOON, || async {
            bridge.stderr().contains("attempts_mix")
        })
        .await;
        vhost.user(&user, "changed meanwhile").await;
        let pages = [
            bridge.admin("/status").await.text(),
            bridge.admin("/metrics").await.text(),
        ];
        bridge.reconfigure("rabbitmq.in_flight_max = 100");
        bridge.terminate().await;
        let log = bridge.stderr();
        assert!(log.contains("connected to the broker"), "there is a log");
        for text in [&log, &pages[0], &pages[1]] {
            for secret in [
                SECRET,
                password,
                "Confidential Name",
                &signature["sha256=".len()..],
            ] {
                assert!(!text.contains(secret), "`{secret}` in:\n{text}");
            }
        }
        vhost.user(&user, password).await;
    }
}
