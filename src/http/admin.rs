//! Answers operators: is it alive, does it take webhooks, how does it stand. On a listener of its
//! own that senders cannot reach.

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

use super::hold::Hold;
use super::json::Json;
use super::problem::Problem;
use super::refused::{Peer, Reason};
use super::sources::Sources;
use crate::telemetry::exposition;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::{BrokerStatus, ReloadStatus, RetryingStatus, RouteStatus};

/// What operators are told about.
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
    /// The connection to the broker.
    pub broker: watch::Receiver<BrokerStatus>,
    /// The routes in use.
    pub routes: watch::Receiver<Vec<RouteStatus>>,
    /// Events that were refused and are tried again.
    pub retrying: watch::Receiver<Vec<RetryingStatus>>,
    /// The last reload, if there was one.
    pub reload: watch::Receiver<Option<ReloadStatus>>,
    /// Cancelled when the bridge begins to stop.
    pub drain: CancellationToken,
    /// When the process started.
    pub started: Instant,
    /// Names this listener is reached by, beside IP addresses and `localhost`.
    pub hosts: Vec<String>,
}

impl<H: Hold> Admin<H> {
    /// All URLs of the operators' listener.
    pub fn router(self) -> Router {
        let hosts: Arc<[String]> = Arc::from(self.hosts.clone());
        Router::new()
            .route("/livez", get(async || "alive\n"))
            .route("/readyz", get(readyz::<H>))
            .route("/status", get(status::<H>))
            .route("/metrics", get(metrics::<H>))
            .method_not_allowed_fallback(other_method)
            .fallback(elsewhere)
            .with_state(Arc::new(self))
            .layer(from_fn_with_state(hosts, host::check))
    }

    /// Why no webhook is accepted, one sentence each; empty if they are.
    fn obstacles(&self) -> Vec<String> {
        let draining = self
            .drain
            .is_cancelled()
            .then(|| "the bridge is stopping".to_owned());
        let refusal = self.journal.obstacle();
        let awaiting = self.sources.awaiting();
        let secretless = (awaiting.len() == self.sources.names().len()).then(|| {
            format!(
                "no secret yet for {}: put it into its file, then send SIGHUP or restart",
                awaiting.join(", ")
            )
        });
        [draining, refusal, secretless]
            .into_iter()
            .flatten()
            .collect()
    }
}

/// Whether webhooks are accepted; the broker has no say in it.
async fn readyz<H: Hold>(State(admin): State<Arc<Admin<H>>>) -> Response {
    let obstacles = admin.obstacles();
    if obstacles.is_empty() {
        "ready\n".into_response()
    } else {
        Problem::unavailable(obstacles.join("; "), 1).into_response()
    }
}

async fn status<H: Hold>(State(admin): State<Arc<Admin<H>>>) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(status::of(&admin))).into_response()
}

async fn metrics<H: Hold>(State(admin): State<Arc<Admin<H>>>) -> Response {
    let content_type = HeaderValue::from_static(exposition::CONTENT_TYPE);
    ([(CONTENT_TYPE, content_type)], metrics::page(&admin)).into_response()
}

async fn other_method(request: Request<Body>) -> Problem {
    report(&request, Reason::Method);
    Problem::method_not_allowed("GET, HEAD")
}

fn report(request: &Request<Body>, reason: Reason) {
    if let Some(peer) = Peer::of(request) {
        let subject = format!("{} {}", request.method(), request.uri().path());
        peer.refused(reason, &subject, None);
    }
}

async fn elsewhere(request: Request<Body>) -> Problem {
    report(&request, Reason::UnknownPath);
    Problem::new(
        StatusCode::NOT_FOUND,
        "There are /livez, /readyz, /status and /metrics.",
    )
}
