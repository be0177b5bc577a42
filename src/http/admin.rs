//! Answers operators: whether the bridge is alive, whether it accepts webhooks, its status and its
//! metrics. Uses a separate listener that senders cannot reach.

mod host;
mod metrics;
mod process;
mod status;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, StatusCode};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::event_store::EventStore;
use super::json::Json;
use super::problem::Problem;
use super::refused::{Peer, RefusalReason};
use super::sources::Sources;
use crate::foreign;
use crate::telemetry::exposition;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{BrokerStatus, Pause, ReloadStatus, RetryingStatus, RouteStatus};

/// What the operators' listener reports on.
#[derive(Debug, Clone)]
pub struct Admin<H> {
    /// Backlog and counts.
    pub journal: H,
    /// Counters, gauges and histograms.
    pub metrics: Arc<Metrics>,
    /// The sources in use.
    pub sources: Sources,
    /// Statuses that have a route of their own, without `unknown`.
    pub statuses: watch::Receiver<Vec<Arc<str>>>,
    /// Status of the connection to the broker.
    pub broker: watch::Receiver<BrokerStatus>,
    /// The routes in use.
    pub routes: watch::Receiver<Vec<RouteStatus>>,
    /// Events that the broker rejected and that are retried.
    pub retrying: watch::Receiver<Vec<RetryingStatus>>,
    /// What operators have paused.
    pub pauses: watch::Receiver<Vec<Pause>>,
    /// The last reload, if there was one.
    pub reload: watch::Receiver<Option<ReloadStatus>>,
    /// Cancelled when the bridge begins to stop.
    pub drain: CancellationToken,
    /// When the process started.
    pub started: Instant,
    /// Names by which this listener is reached, in addition to IP addresses and `localhost`.
    pub hosts: Vec<String>,
}

impl<H: EventStore> Admin<H> {
    /// All URLs of the operators' listener.
    pub fn router(self) -> Router {
        let hosts: Arc<[String]> = Arc::from(self.hosts.clone());
        Router::new()
            .route("/livez", get(async || "alive\n"))
            .route("/readyz", get(readyz::<H>))
            .route("/status", get(status::<H>))
            .route("/metrics", get(metrics::<H>))
            .method_not_allowed_fallback(other_method)
            .fallback(not_found)
            .with_state(Arc::new(self))
            .layer(from_fn_with_state(hosts, host::check))
    }

    /// The state in one line: whether webhooks are accepted, the broker, and the backlog.
    pub fn summary(&self) -> String {
        let unready_reasons = self.unready_reasons();
        let webhooks = if unready_reasons.is_empty() {
            "accepting webhooks".to_owned()
        } else {
            format!("refusing webhooks: {}", unready_reasons.join("; "))
        };
        let broker = self.broker.borrow();
        let state = format!("{:?}", broker.state).to_lowercase();
        let reason = broker.reason.iter().map(|reason| format!(" ({reason})"));
        let reason: String = reason.collect();
        let pending = self.journal.totals().backlog_events;
        let line = format!("{webhooks}; broker {state}{reason}; {pending} events pending");
        foreign::line(&line).to_string()
    }

    /// Why webhooks are not accepted, one sentence per reason; empty if they are accepted.
    fn unready_reasons(&self) -> Vec<String> {
        let draining = self
            .drain
            .is_cancelled()
            .then(|| "the bridge is stopping".to_owned());
        let refusal = self.journal.obstacle();
        let secretless = self.sources.all_await_secrets().then(|| {
            format!(
                "no secret yet for {}: put it into its file, then send SIGHUP or restart",
                self.sources.awaiting().join(", ")
            )
        });
        [draining, refusal, secretless]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Answers whether webhooks are accepted, which does not depend on the broker.
async fn readyz<H: EventStore>(State(admin): State<Arc<Admin<H>>>) -> Response {
    let unready_reasons = admin.unready_reasons();
    if unready_reasons.is_empty() {
        let mut lines = vec!["ready".to_owned()];
        for source in admin.sources.status() {
            lines.extend(source.kept_secrets.iter().map(|file| {
                let (name, file) = (&source.name, foreign::line(file));
                format!("{name}: {file} has no secret; its last one stays in use")
            }));
        }
        (lines.join("\n") + "\n").into_response()
    } else {
        Problem::unavailable(unready_reasons.join("; "), 1).into_response()
    }
}

async fn status<H: EventStore>(State(admin): State<Arc<Admin<H>>>) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(status::of(&admin))).into_response()
}

async fn metrics<H: EventStore>(State(admin): State<Arc<Admin<H>>>) -> Response {
    let content_type = HeaderValue::from_static(exposition::CONTENT_TYPE);
    ([(CONTENT_TYPE, content_type)], metrics::page(&admin)).into_response()
}

async fn other_method(request: Request<Body>) -> Problem {
    Peer::refused_request(&request, RefusalReason::Method, None);
    Problem::method_not_allowed("GET, HEAD")
}

async fn not_found(request: Request<Body>) -> Problem {
    Peer::refused_request(&request, RefusalReason::UnknownPath, None);
    Problem::new(
        StatusCode::NOT_FOUND,
        "This listener serves /livez, /readyz, /status and /metrics.",
    )
}
