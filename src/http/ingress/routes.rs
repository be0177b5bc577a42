//! Finds the source of a request. A request for no source is refused here; the log says what is served.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper::{Method, Request};

use super::Ingress;
use super::refusal::Refusal;
use crate::http::event_store::EventStore;
use crate::http::problem::Problem;
use crate::http::refused::{Peer, RefusalReason};
use crate::http::sources::Sources;
use crate::telemetry::traces::WebhookSpan;

/// Maximum number of sources named in one log line.
const SOURCES_NAMED_MAX: usize = 5;

impl<H: EventStore> Ingress<H> {
    /// All URLs of the public listener.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(healthz::<H>).fallback(not_found::<H>))
            .route("/webhooks/{source}", any(receive::<H>))
            .route("/webhooks/{source}/", any(receive::<H>))
            .fallback(not_found::<H>)
            .with_state(Arc::new(self))
    }
}

async fn receive<H: EventStore>(
    State(ingress): State<Arc<Ingress<H>>>,
    name: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    let peer = Peer::of(&request);
    let name = name.map(|Path(name)| name).ok();
    let source = name.as_deref().and_then(|name| ingress.sources.get(name));
    let mut span = WebhookSpan::default();
    let result = match &source {
        _ if request.method() != Method::POST => {
            let hint = "webhooks use POST; /readyz on `admin.listen` says if they are accepted";
            Peer::refused_request(&request, RefusalReason::Method, Some(hint));
            Err(Refusal::Method)
        }
        None => {
            let hint = served(&ingress.sources);
            Peer::refused_request(&request, RefusalReason::UnknownSource, Some(&hint));
            Err(Refusal::UnknownSource)
        }
        Some(source) => ingress.receive(source, &peer, request, &mut span).await,
    };
    // A monitor that asks with another method says nothing about the webhooks of a source.
    let source = source.filter(|_| !matches!(result, Err(Refusal::Method)));
    let response = ingress.answer(source.as_deref(), &peer, result);
    span.answered(response.status().as_u16());
    response
}

/// Answers load balancers that probe the port of the webhooks: whether webhooks can be accepted.
async fn healthz<H: EventStore>(State(ingress): State<Arc<Ingress<H>>>) -> Response {
    match ingress.journal.obstacle() {
        None if !ingress.sources.all_await_secrets() => "ok\n".into_response(),
        _ => Problem::unavailable("Webhooks cannot be accepted at the moment.", 1).into_response(),
    }
}

async fn not_found<H: EventStore>(
    State(ingress): State<Arc<Ingress<H>>>,
    request: Request<Body>,
) -> Response {
    let hint = served(&ingress.sources);
    Peer::refused_request(&request, RefusalReason::UnknownPath, Some(&hint));
    ingress.answer(None, &Peer::of(&request), Err(Refusal::UnknownPath))
}

/// What is served where, for the log.
fn served(sources: &Sources) -> String {
    let mut names = sources.names();
    names.sort();
    let more = match names.len().saturating_sub(SOURCES_NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let paths = names.iter().take(SOURCES_NAMED_MAX);
    let paths: Vec<_> = paths.map(|name| format!("`/webhooks/{name}`")).collect();
    let paths = paths.join(", ");
    format!("webhooks: {paths}{more}; /readyz, /status and /metrics are on `admin.listen`")
}
