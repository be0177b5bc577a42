//! The Grafana dashboard: a real Prometheus answers every query with values of a real bridge.
//! Grafana itself is not part of the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::broker::Broker;
use crate::support::http::get;
use crate::support::prometheus::{Prometheus, is_installed};
use crate::support::sender::array_of_new;
use crate::support::skip::skipped;
use crate::support::wait::{SOON, eventually};

/// Panels without a finite value on this bridge: it has no certificate.
const WITHOUT_VALUE: [&str; 1] = ["Certificates expire in"];

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/grafana/deskbridge.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().unwrap()
}

/// Title of the panel and query, with the variables of Grafana replaced.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("instance=~\"$instance\""), "{query}");
            let query = query
                .replace("$instance", ".*")
                .replace("$__rate_interval", "20s");
            assert!(!query.contains('$'), "{query}");
            queries.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    queries
}

#[test]
fn panels_are_complete_and_do_not_overlap() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(variables[0]["name"], "datasource");
    assert_eq!(variables[0]["type"], "datasource");
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = &panel["title"];
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        assert_ne!(panel["description"].as_str().unwrap(), "", "{title}");
        let targets = panel["targets"].as_array().unwrap();
        let sources = targets.iter().chain([panel]).map(|of| &of["datasource"]);
        for source in sources {
            let variable = json!({"type": "prometheus", "uid": "${datasource}"});
            assert_eq!(*source, variable, "{title}");
        }
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(side("x") + side("w") <= 24, "{title}");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(cells.insert((x, y)), "{title} overlaps another panel");
            }
        }
    }
    assert!((12..=18).contains(&ids.len()), "{} panels", ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_has_values_of_a_bridge() {
    let test = "every_query_has_values_of_a_bridge";
    if !is_installed("prometheus") {
        return skipped(test, "needs prometheus");
    }
    let broker = Broker::shared().await;
    let vhost = broker.vhost().await;
    let bridge = BridgeBuilder::new(&vhost).connected().await;
    bridge.post(array_of_new("first", 1)).await;
    let prometheus = Prometheus::watching(bridge.admin_address(), "groups: []").await;
    for (panel, query) in queries(&dashboard()) {
        eventually(&format!("{panel}: {query}"), SOON, || async {
            // Something of every kind between two scrapes: accepted, malformed, refused, unknown.
            bridge.post(array_of_new("more", 1)).await;
            bridge.post("nonsense").await;
            bridge
                .post_signed_with("another secret than ours", "[]")
                .await;
            get(bridge.address(), "/robots.txt").await.unwrap();
            let values = prometheus.values(&query).await;
            let is_finite = values.iter().all(|value| value.is_finite());
            !values.is_empty() && (is_finite || WITHOUT_VALUE.contains(&panel.as_str()))
        })
        .await;
    }
    assert_eq!(
        prometheus.values("sum(deskbridge_ready)").await,
        [1.0],
        "still accepting"
    );
}
