//! What the bridge reports about events and routes, and what its journal contains.

use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use super::run::Bridge;
use crate::support::sender::array_of;
use crate::support::wait::{SOON, eventually};

const LONG: Duration = Duration::from_mins(1);

impl Bridge {
    /// A counter of `/status`: `accepted`, `published`, `dead_lettered`, `replayed`.
    pub async fn counter(&self, name: &str) -> u64 {
        self.status().await["counters"][name].as_u64().unwrap()
    }

    /// Waits until this number of further events was published.
    pub async fn publishes(&self, events: u64) {
        let end = self.counter("published").await + events;
        eventually("events are published", LONG, || async {
            self.counter("published").await >= end
        })
        .await;
    }

    /// Posts sessions; panics unless all are accepted.
    pub async fn accept(&self, sessions: &[Value]) {
        let answer = self.post(array_of(sessions)).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(answer.json()["accepted"], json!(sessions.len()));
    }

    /// Waits until exactly this number of events is pending.
    pub async fn backlog_is(&self, events: usize) {
        eventually(&format!("{events} events are pending"), SOON, || async {
            self.status().await["backlog"]["events"] == events
        })
        .await;
    }

    /// How often the bridge has lost its connection to the broker.
    pub async fn reconnects(&self) -> u64 {
        self.status().await["broker"]["reconnects"]
            .as_u64()
            .unwrap()
    }

    /// The number of publish attempts with this outcome: `nacked`, `unroutable`, `unknown`.
    pub async fn retries(&self, reason: &str) -> f64 {
        let metrics = self.metrics().await;
        metrics.sum_where("publish_retries_total", &[("reason", reason)])
    }

    /// A route in `/status`; null if the route is not there.
    pub async fn route(&self, exchange: &str, key: &str) -> Value {
        let status = self.status().await;
        let routes = status["routes"].as_array().unwrap().clone();
        let is_it = |route: &Value| route["exchange"] == exchange && route["routing_key"] == key;
        routes.into_iter().find(is_it).unwrap_or_default()
    }

    /// Waits until a route is in this state and returns the reason.
    pub async fn route_is(&self, exchange: &str, key: &str, state: &str) -> String {
        eventually(&format!("route `{key}` is {state}"), LONG, || async {
            self.route(exchange, key).await["state"] == state
        })
        .await;
        let route = self.route(exchange, key).await;
        route["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The journal's database.
    pub fn database(&self) -> Connection {
        Connection::open(self.journal_dir().join("journal.db")).unwrap()
    }
}
