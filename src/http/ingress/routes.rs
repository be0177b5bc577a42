//! Finds the source of a request. A request for no source is refused here, with a hint in the log
//! at what its sender may have meant.

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

/// Minimum similarity of a name that is suggested, from 0 to 1.
const SIMILARITY_MIN: f64 = 0.5;

/// Maximum number of sources named in one log line.
const SOURCES_NAMED_MAX: usize = 5;

/// Paths that belong on the operators' listener.
const OPERATORS_PATHS: [&str; 5] = ["/livez", "/readyz", "/status", "/metrics", "/health"];

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
            let hint = meant_source(&name.unwrap_or_default(), &ingress.sources);
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
    let hint = meant_path(request.uri().path(), &ingress.sources);
    Peer::refused_request(&request, RefusalReason::UnknownPath, hint.as_deref());
    ingress.answer(None, &Peer::of(&request), Err(Refusal::UnknownPath))
}

/// Suggests what an unknown name of a source was meant to be.
fn meant_source(name: &str, sources: &Sources) -> String {
    let mut names = sources.names();
    names.sort();
    let name = name.to_ascii_lowercase();
    let similar = |known: &Arc<str>| {
        let known = known.to_ascii_lowercase();
        strsim::normalized_damerau_levenshtein(&name, &known)
    };
    let nearest = names
        .iter()
        .map(|known| (similar(known), known))
        .max_by(|(left, _), (right, _)| left.total_cmp(right));
    match nearest {
        Some((similarity, known)) if similarity >= SIMILARITY_MIN => {
            format!("did you mean `/webhooks/{known}`?")
        }
        _ => {
            let paths = names.iter().take(SOURCES_NAMED_MAX);
            let paths: Vec<_> = paths.map(|known| format!("`/webhooks/{known}`")).collect();
            let more = names.len().saturating_sub(SOURCES_NAMED_MAX);
            let rest = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!("the configured paths are {}{rest}", paths.join(", "))
        }
    }
}

/// Suggests what an unknown path was meant to be.
fn meant_path(path: &str, sources: &Sources) -> Option<String> {
    let source = path.split('/').rev().find_map(|part| sources.get(part));
    if let Some(source) = source {
        return Some(format!("did you mean `/webhooks/{}`?", source.name));
    }
    if OPERATORS_PATHS.contains(&path.trim_end_matches('/')) {
        return Some("operators' paths are on the listener `admin.listen`".into());
    }
    let is_webhook = path.to_ascii_lowercase().contains("webhook");
    is_webhook.then(|| meant_source("", sources))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sources::Source;
    use crate::webhook::signature::Keys;

    fn sources(names: &[&str]) -> Sources {
        Sources::new(names.iter().map(|name| Source {
            name: (*name).into(),
            keys: Keys::Unsigned,
            kept_secrets: Arc::default(),
            secret_names: Vec::new(),
            awaits_secret: false,
        }))
    }

    #[test]
    fn probable_source_is_named() {
        let sources = sources(&["acme", "Other"]);
        let check = |path: &str, expected: Option<&str>| {
            let hint = meant_path(path, &sources);
            assert_eq!(hint.as_deref(), expected, "{path}");
        };
        let acme = Some("did you mean `/webhooks/acme`?");
        check("/acme", acme);
        check("/webhook/acme", acme);
        check("/Webhooks/ACME", acme);
        check("//webhooks/acme", acme);
        check("/webhooks/acme/created", acme);
        check("/other/", Some("did you mean `/webhooks/Other`?"));
        let all = Some("the configured paths are `/webhooks/Other`, `/webhooks/acme`");
        check("/webhooks", all);
        check("/webhooks/", all);
        let admin = Some("operators' paths are on the listener `admin.listen`");
        check("/readyz", admin);
        check("/status/", admin);
        check("/wp-login.php", None);
        check("/", None);
    }

    #[test]
    fn similar_source_name_is_suggested() {
        let sources = sources(&["acme", "deskdirector", "c", "d", "e", "f", "g"]);
        let check = |name: &str, expected: &str| assert_eq!(meant_source(name, &sources), expected);
        check("acmee", "did you mean `/webhooks/acme`?");
        check("desk-director", "did you mean `/webhooks/deskdirector`?");
        check("DESKDIREKTOR", "did you mean `/webhooks/deskdirector`?");
        let hint = meant_source("github", &sources);
        assert!(hint.ends_with(" and 2 more"), "{hint}");
    }
}
