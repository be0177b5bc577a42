//! The answers of the operators' listener.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::sync::watch;

use super::support::*;
use crate::http::admin::Admin;
use crate::http::limits::{ConnectionLimits, Stop};
use crate::http::refused::RequestRefusals;
use crate::http::sources::Sources;
use crate::journal::WriteError;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{
    BrokerState, BrokerStatus, CertificateRole, ReloadStatus, RetryingStatus, RouteState,
    RouteStatus, Totals,
};

struct Desk {
    address: std::net::SocketAddr,
    shelf: Shelf,
    stop: Stop,
    broker: watch::Sender<BrokerStatus>,
    routes: watch::Sender<Vec<RouteStatus>>,
    reload: watch::Sender<Option<ReloadStatus>>,
}

fn broker() -> BrokerStatus {
    BrokerStatus {
        state: BrokerState::Connecting,
        reason: Some("connection refused".into()),
        advice: None,
        since: Timestamp::UNIX_EPOCH,
        url: Some("amqp://localhost:5672/%2f".into()),
        findings: vec![],
        retries: BTreeMap::new(),
        unrouted_messages: None,
        dead_letter_messages: None,
        reconnects: 0,
        restored: 0,
        certificates: [(CertificateRole::Broker, Timestamp::UNIX_EPOCH)].into(),
    }
}

fn retrying() -> RetryingStatus {
    RetryingStatus {
        exchange: "chat-sessions".into(),
        routing_key: "chat-session.missed".into(),
        reason: "nacked",
        events: 13,
        since: Timestamp::UNIX_EPOCH,
        last_refusal: "refused by the broker (basic.nack)".into(),
    }
}

impl Desk {
    async fn start() -> Self {
        let (shelf, stop) = (shelf(), Stop::default());
        let (broker, routes) = (watch::Sender::new(broker()), watch::Sender::default());
        let reload = watch::Sender::new(None);
        let known = ["created", "handled", "missed", "completed", "callback"].map(Arc::from);
        let metrics = Arc::new(Metrics::default());
        drop(RequestRefusals::of("admin", Arc::clone(&metrics)));
        let admin = Admin {
            journal: shelf.clone(),
            metrics,
            sources: Sources::new([acme(SECRET)]),
            statuses: watch::Sender::new(known.to_vec()).subscribe(),
            broker: broker.subscribe(),
            routes: routes.subscribe(),
            retrying: watch::Sender::new(vec![retrying()]).subscribe(),
            pauses: watch::Sender::default().subscribe(),
            reload: reload.subscribe(),
            drain: stop.drain.clone(),
            started: Instant::now(),
            hosts: vec!["bridge".into()],
        };
        let (address, _) = serve(
            admin.router(),
            ConnectionLimits::of_admin(),
            Stop::default(),
        )
        .await;
        Self {
            address,
            shelf,
            stop,
            broker,
            routes,
            reload,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        let mut client = Client::connect(self.address).await;
        client
            .send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
            .await;
        client.answer().await
    }
}

fn totals() -> Totals {
    let count = |pairs: &[(&str, u64)]| {
        pairs
            .iter()
            .map(|(name, n)| (Arc::from(*name), *n))
            .collect()
    };
    Totals {
        accepted: [("created", 7), ("invalid", 2)]
            .map(|(status, n)| ((Arc::from("acme"), Arc::from(status)), n))
            .into(),
        published: count(&[("created", 4)]),
        dead_lettered: count(&[("invalid", 2)]),
        backlog_events: 3,
        backlog_bytes: 300,
        lost_events: 1,
        replayed: 5,
    }
}

#[tokio::test]
async fn readiness_does_not_depend_on_the_broker() {
    let desk = Desk::start().await;
    assert_eq!(desk.get("/livez").await.status, 200);
    assert_eq!(desk.get("/readyz").await.status, 200);
    *desk.shelf.refusal.lock().unwrap() = Some(WriteError::BacklogFull);
    desk.stop.drain.cancel();
    let answer = desk.get("/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("the backlog has reached") && answer.body.contains("stopping"),
        "{answer:?}"
    );
    assert_eq!(desk.get("/livez").await.status, 200);
}

#[tokio::test]
async fn status_shows_broker_backlog_routes_and_reload() {
    let desk = Desk::start().await;
    *desk.shelf.totals.lock().unwrap() = totals();
    desk.routes.send_replace(vec![RouteStatus {
        exchange: "gone".into(),
        routing_key: "chat-session.missed".into(),
        state: RouteState::Unavailable,
        reason: Some("no exchange `gone`".into()),
        since: Some(Timestamp::UNIX_EPOCH),
    }]);
    desk.reload.send_replace(Some(ReloadStatus {
        at: Timestamp::UNIX_EPOCH,
        is_applied: false,
        findings: vec!["unknown key `htpp`".into()],
        waiting_for_restart: vec!["retry"],
    }));
    let status = desk.get("/status").await.json();
    for (pointer, expected) in [
        ("/version", serde_json::json!(env!("CARGO_PKG_VERSION"))),
        ("/broker/state", "connecting".into()),
        ("/broker/reason", "connection refused".into()),
        ("/backlog/events", 3.into()),
        ("/backlog/bytes", 300.into()),
        ("/backlog/oldest_seconds", 1.5.into()),
        ("/counters/accepted", 9.into()),
        ("/counters/published", 4.into()),
        ("/counters/dead_lettered", 2.into()),
        ("/counters/accepted_by_source/acme/invalid", 2.into()),
        ("/routes/0/state", "closed".into()),
        ("/retrying/0/routing_key", "chat-session.missed".into()),
        ("/retrying/0/reason", "nacked".into()),
        ("/retrying/0/events", 13.into()),
        (
            "/retrying/0/last_refusal",
            "refused by the broker (basic.nack)".into(),
        ),
        ("/journal/lost_events", 1.into()),
        ("/reload/is_applied", false.into()),
        ("/reload/waiting_for_restart/0", "retry".into()),
    ] {
        assert_eq!(
            status.pointer(pointer),
            Some(&expected),
            "{pointer} in {status}"
        );
    }
    assert!(status["uptime_seconds"].is_u64());
}

#[tokio::test]
async fn journal_counters_add_up_and_broker_is_shown() {
    let desk = Desk::start().await;
    *desk.shelf.totals.lock().unwrap() = totals();
    desk.broker.send_replace(BrokerStatus {
        state: BrokerState::Blocked,
        unrouted_messages: Some(5),
        reconnects: 2,
        ..broker()
    });
    let answer = desk.get("/metrics").await;
    let content_type = answer.header("content-type").unwrap();
    assert!(content_type.starts_with("text/plain; version=0.0.4"));
    let page = exposition::parse(&answer.body);
    let sum = |name: &str| page.sum(&format!("deskbridge_{name}"));
    let settled = sum("sessions_published_total") + sum("dead_letters_total");
    assert_eq!(sum("sessions_accepted_total"), 9);
    assert_eq!(
        sum("sessions_accepted_total"),
        settled + sum("journal_backlog_events")
    );
    assert_eq!((sum("broker_connected"), sum("broker_blocked")), (1, 1));
    assert_eq!(
        (sum("broker_reconnects_total"), sum("unrouted_messages")),
        (2, 5)
    );
    assert_eq!(page.0["deskbridge_dead_letter_messages"], "NaN");
    // These series exist from the start.
    for series in [
        r#"sessions_accepted_total{source="acme",status="callback"}"#,
        r#"sessions_accepted_total{source="acme",status="unknown"}"#,
        r#"sessions_accepted_total{source="acme",status="malformed"}"#,
        r#"sessions_published_total{status="unknown"}"#,
        r#"dead_letters_total{reason="too-large"}"#,
        r#"webhooks_total{source="acme",code="202"}"#,
    ] {
        let value = page.0.get(&format!("deskbridge_{series}"));
        assert_eq!(value.map(String::as_str), Some("0"), "{series}");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let desk = Desk::start().await;
    assert_eq!(desk.get("/webhooks/acme").await.status, 404);
    let mut client = Client::connect(desk.address).await;
    client
        .send(b"POST /status HTTP/1.1\r\nhost: bridge\r\ncontent-length: 0\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.header("allow")),
        (405, Some("GET, HEAD")),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json")
    );
}

/// Parses metrics as strictly as Prometheus: every sample belongs to the family declared last.
mod exposition {
    use std::collections::{BTreeMap, BTreeSet};

    pub(super) struct Page(pub(super) BTreeMap<String, String>);

    impl Page {
        /// The sum of all series of a metric; whole numbers only.
        pub(super) fn sum(&self, name: &str) -> u64 {
            let of = |series: &str| series.split('{').next() == Some(name);
            self.0
                .iter()
                .filter(|(series, _)| of(series))
                .map(|(_, value)| value.parse::<u64>().unwrap())
                .sum()
        }
    }

    pub(super) fn parse(text: &str) -> Page {
        let (mut families, mut series) = (BTreeSet::new(), BTreeMap::new());
        let (mut family, mut kind) = ("", "");
        for line in text.lines().filter(|line| !line.starts_with("# HELP ")) {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                (family, kind) = declared.split_once(' ').unwrap();
                assert!(families.insert(family), "twice: {line}");
                continue;
            }
            let (name, value) = line.rsplit_once(' ').expect(line);
            let suffix = name.split('{').next().unwrap().strip_prefix(family);
            let allowed: &[&str] = match kind {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let is_of_family = suffix.is_some_and(|suffix| allowed.contains(&suffix));
            assert!(is_of_family, "`{line}` in {family}");
            assert!(value.parse::<f64>().is_ok(), "no number: {line}");
            let before = series.insert(name.to_owned(), value.to_owned());
            assert!(before.is_none(), "twice: {line}");
        }
        Page(series)
    }
}
