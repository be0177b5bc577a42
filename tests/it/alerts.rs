//! The alert rules and their runbook: Prometheus accepts the rules, the metrics and the runbook
//! sections that they name exist, and real faults of a real bridge raise the alerts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::prometheus::{Prometheus, is_installed, rules_file};
use crate::support::proxy::Proxy;
use crate::support::sender::{array_of, array_of_new, session};
use crate::support::skip::skipped;
use crate::support::wait::{SOON, eventually};

fn rules() -> String {
    fs::read_to_string(rules_file()).unwrap()
}

/// All values that follow this word in the rules.
fn each<'a>(rules: &'a str, word: &'a str) -> Vec<&'a str> {
    let lines = rules
        .lines()
        .filter_map(move |line| line.trim().strip_prefix(word));
    lines.map(str::trim).collect()
}

/// The anchor that GitHub generates for a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept
        .chars()
        .filter(|char| char.is_alphanumeric() || " -_".contains(*char));
    kept.map(|char| if char == ' ' { '-' } else { char })
        .collect()
}

#[test]
fn rules_are_valid_for_prometheus() {
    if !is_installed("promtool") {
        return skipped("rules_are_valid_for_prometheus", "needs promtool");
    }
    let checked = Command::new("promtool")
        .args(["check", "rules"])
        .arg(rules_file())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

/// The shipped rules with this offset from UTC (hours).
fn rules_ahead_by(hours_ahead: i32) -> String {
    let shipped = "time() + 0 * 3600";
    let rules = rules();
    assert!(rules.contains(shipped), "no `{shipped}` to edit");
    rules.replace(shipped, &format!("time() + {hours_ahead} * 3600"))
}

/// The shipped rules without the texts of the alerts.
fn rules_without_annotations() -> String {
    let rules = rules();
    let mut kept = Vec::new();
    let mut is_annotation = false;
    for line in rules.lines() {
        is_annotation = line.starts_with("        annotations:")
            || is_annotation && line.starts_with("          ");
        if !is_annotation {
            kept.push(line);
        }
    }
    kept.join("\n")
}

/// Runs the test cases of a file against rules.
fn promtool_agrees(cases: &str, rules: &str) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("alerts.yml"), rules).unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prometheus");
    fs::copy(data.join(cases), dir.path().join(cases)).unwrap();
    let tested = Command::new("promtool")
        .args(["test", "rules", cases])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&tested.stderr);
    let shown = String::from_utf8_lossy(&tested.stdout);
    assert!(tested.status.success(), "{cases}: {shown}{said}");
}

#[test]
fn alerts_follow_office_hours_and_certificates() {
    if !is_installed("promtool") {
        return skipped(
            "alerts_follow_office_hours_and_certificates",
            "needs promtool",
        );
    }
    promtool_agrees("office_hours.yml", &rules_ahead_by(0));
    // The working day of this office begins on the previous day in UTC.
    promtool_agrees("office_hours_auckland.yml", &rules_ahead_by(13));
    promtool_agrees("certificates.yml", &rules());
}

#[test]
fn every_alert_fires_and_does_not_fire() {
    let cases = include_str!("../data/prometheus/every_alert.yml");
    let mut expected = BTreeSet::new();
    for case in cases.split("alertname: ").skip(1) {
        let (alert, rest) = case.split_once('\n').unwrap();
        let is_quiet = rest.trim_start().starts_with("exp_alerts: []");
        expected.insert((alert, !is_quiet));
    }
    for alert in each(&rules(), "- alert:") {
        for fires in [true, false] {
            assert!(expected.contains(&(alert, fires)), "{alert}: {fires}");
        }
    }
    if !is_installed("promtool") {
        return skipped("every_alert_fires_and_does_not_fire", "needs promtool");
    }
    promtool_agrees("every_alert.yml", &rules_without_annotations());
}

#[test]
fn every_alert_has_a_runbook_section() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = rules();
    let runbooks = each(&rules, "runbook_url:");
    assert!(runbooks.len() >= 7);
    assert_eq!(runbooks.len(), each(&rules, "- alert:").len());
    assert_eq!(
        runbooks.len(),
        runbooks.iter().collect::<BTreeSet<_>>().len()
    );
    for runbook in runbooks {
        let page = runbook.strip_prefix("https://{{ $externalLabels.deskbridge_docs }}/");
        let (page, wanted) = page.and_then(|page| page.split_once('#')).unwrap();
        let text = fs::read_to_string(root.join("docs").join(page)).unwrap();
        let begin = text
            .lines()
            .position(|line| line.starts_with('#') && anchor(line) == wanted);
        let begin = begin.unwrap_or_else(|| panic!("no heading for {runbook}"));
        let paragraph = text
            .lines()
            .skip(begin + 1)
            .take_while(|line| !line.starts_with("## "));
        let paragraph: String = paragraph.collect::<Vec<_>>().join("\n");
        for part in ["**Means**", "**Data loss**", "**Resolved when**"] {
            assert!(paragraph.contains(part), "{runbook} does not say {part}");
        }
    }
    let page = fs::read_to_string(root.join("docs/operating.md")).unwrap();
    let anchors: BTreeSet<_> = page
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(anchor)
        .collect();
    for link in page.split("](#").skip(1) {
        let link = link.split(')').next().unwrap();
        assert!(anchors.contains(link), "no heading for #{link}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_in_the_rules_is_exported() {
    let bridge = BridgeBuilder::without_broker().start().await;
    let scraped = bridge.metrics().await;
    let scraped: BTreeSet<_> = scraped.names().into_iter().collect();
    let rules = rules();
    let code: Vec<_> = rules
        .lines()
        .filter(|line| !line.trim().starts_with('#'))
        .collect();
    let code = code.join("\n");
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = code.split(|char| !is_word(char));
    let named: BTreeSet<_> = words
        .filter(|word| word.starts_with("deskbridge_") && *word != "deskbridge_docs")
        .collect();
    assert!(named.len() >= 10, "{named:?}");
    for metric in named {
        assert!(scraped.contains(metric), "{metric} is not scraped");
    }
}

/// The shipped rules with durations of minutes shortened to seconds.
fn shortened() -> String {
    let mut rules = rules();
    for (long, short) in [
        ("for: 1m", "for: 1s"),
        ("for: 2m", "for: 1s"),
        ("for: 5m", "for: 1s"),
        ("for: 10m", "for: 1s"),
        ("for: 1h", "for: 1s"),
        ("[5m", "[20s"),
        ("[15m", "[20s"),
        ("offset 15m", "offset 20s"),
        ("> 300", "> 3"),
        // No office hours: the alert is always enabled.
        (
            "((deskbridge:office_clock_seconds % 86400 - 8 * 3600 >= 0) < 10 * 3600)",
            "vector(86400)",
        ),
        (
            "(day_of_week(deskbridge:office_clock_seconds) >= 1 <= 5)",
            "vector(1)",
        ),
    ] {
        assert!(rules.contains(long), "no `{long}` to shorten");
        rules = rules.replace(long, short);
    }
    rules
}

/// Waits until the alert has fired at some time.
async fn has_fired(prometheus: &Prometheus, alert: &str) {
    let firing = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}[10m]");
    let ever = format!("count_over_time({firing})");
    eventually(&format!("{alert} has fired"), 2 * SOON, || async {
        !prometheus.values(&ever).await.is_empty()
    })
    .await;
}

async fn post_until_refused(bridge: &Bridge) {
    eventually("the journal is full", SOON, || async {
        let note = json!({ "note": "x".repeat(20_000) });
        let answer = bridge
            .post(array_of(&[session("full", "created", note)]))
            .await;
        answer.status == 503
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_fire_alerts_and_health_fires_none() {
    if !is_installed("prometheus") {
        return skipped(
            "faults_fire_alerts_and_health_fires_none",
            "needs prometheus",
        );
    }
    let broker = Broker::own().await;
    let vhost = broker.vhost().await;
    let proxy = Proxy::to(vhost.amqp_address()).await;
    let mut bridge = BridgeBuilder::at(&vhost.amqp_url_through(proxy.address()))
        .with("http.body_bytes_max = \"64KiB\"\njournal.backlog_bytes_max = \"256KiB\"")
        .with("routing.statuses.missed.exchange = \"alarms\"")
        .with("[[queues]]\nname = \"tickets\"\nkeys = [\"#\"]")
        .connected()
        .await;
    bridge.post(array_of_new("first", 1)).await;
    let prometheus = Prometheus::watching(bridge.admin_address(), &shortened()).await;
    eventually(
        "the rules were evaluated for a while on a healthy bridge",
        SOON,
        || async {
            prometheus
                .value("count_over_time(deskbridge_build_info[1m])")
                .await
                >= Some(6.0)
                && prometheus.value("deskbridge_unrouted_messages").await == Some(0.0)
        },
    )
    .await;
    assert_eq!(
        prometheus.firing().await,
        BTreeSet::new(),
        "no alert fires on a healthy bridge"
    );

    vhost.unbind("tickets", "chat-sessions", "#").await;
    bridge.post(array_of_new("unrouted", 3)).await;
    bridge.post("nonsense").await;
    bridge
        .post_signed_with("the secret of somebody else", "[]")
        .await;
    prometheus.fires("DeskbridgeRefusing").await;
    prometheus.fires("DeskbridgeDeadLettersGrowing").await;
    vhost.bind("tickets", "chat-sessions", "#").await;

    broker.raise_memory_alarm().await;
    bridge.post(array_of_new("blocked", 1)).await;
    prometheus.fires("DeskbridgeBrokerBlocked").await;
    prometheus.fires("DeskbridgeBacklogAgeing").await;
    broker.clear_memory_alarm().await;
    prometheus.is_over("DeskbridgeBrokerBlocked").await;
    prometheus.is_over("DeskbridgeBacklogAgeing").await;

    let full = json!({"x-max-length": 1, "x-overflow": "reject-publish"});
    vhost.declare_queue("full", full).await;
    vhost.bind("full", "chat-sessions", "#").await;
    bridge.post(array_of_new("refused", 3)).await;
    prometheus.fires("DeskbridgeRefusedByQueue").await;
    vhost.delete_queue("full").await;
    bridge.backlog_is_empty().await;

    // An exchange that no channel has used yet: RabbitMQ caches permissions per channel for a
    // while.
    vhost.allow("guest", ".*", "^(?!alarms$).*", ".*").await;
    bridge
        .post(array_of(&[session("closed", "missed", json!({}))]))
        .await;
    prometheus.fires("DeskbridgeRouteClosed").await;
    vhost.allow("guest", ".*", ".*", ".*").await;
    prometheus.is_over("DeskbridgeRouteClosed").await;

    bridge.reconfigure("sources.quiet.secrets = [\"too short\"]");
    bridge.hang_up();
    prometheus.fires("DeskbridgeReloadRejected").await;
    bridge.reconfigure("sources.quiet.secrets = [\"a-secret-nobody-uses\"]");
    bridge.hang_up();
    prometheus.is_over("DeskbridgeReloadRejected").await;
    assert!(bridge.run("pause", &[]).await.status.success());
    prometheus.fires("DeskbridgePaused").await;
    assert!(bridge.run("resume", &[]).await.status.success());
    prometheus.is_over("DeskbridgePaused").await;
    prometheus.fires("DeskbridgeNoWebhook").await;

    // The bridge asks for the length of the queue every 15 s.
    has_fired(&prometheus, "DeskbridgeUnroutedGrowing").await;
    proxy.refuse();
    prometheus.fires("DeskbridgeBrokerDisconnected").await;
    post_until_refused(&bridge).await;
    prometheus.fires("DeskbridgeNotAccepting").await;
    prometheus.fires("DeskbridgeJournalFilling").await;
    bridge.kill().await;
    prometheus.fires("DeskbridgeDown").await;
}
