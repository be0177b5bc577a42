//! Which source a request is for. What is for none is refused here, with a hint in the log at what
//! its sender may have meant.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::any;
use hyper::{Method, Request};

use super::Ingress;
use super::refusal::Refusal;
use crate::http::hold::Hold;
use crate::http::refused::{Peer, Reason};
use crate::http::sources::Sources;

/// Less similar names are not worth a question.
const SIMILARITY_MIN: f64 = 0.5;

/// Sources named in one line of the log.
const SOURCES_NAMED_MAX: usize = 5;

/// What operators ask for, on the other listener.
const OPERATORS_PATHS: [&str; 6] = [
    "/livez", "/readyz", "/status", "/metrics", "/health", "/healthz",
];

impl<H: Hold> Ingress<H> {
    /// All URLs of the public listener.
    pub fn router(self) -> Router {
        Router::new()
            .route("/webhooks/{source}", any(receive::<H>))
            .route("/webhooks/{source}/", any(receive::<H>))
            .fallback(elsewhere::<H>)
            .with_state(Arc::new(self))
    }
}

async fn receive<H: Hold>(
    State(ingress): State<Arc<Ingress<H>>>,
    name: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response {
    let peer = Peer::of(&request);
    let name = name.map(|Path(name)| name).ok();
    let source = name.as_deref().and_then(|name| ingress.sources.get(name));
    let result = match &source {
        _ if request.method() != Method::POST => {
            let hint = "webhooks are posted; whether the bridge accepts them says /readyz of `admin.listen`";
            report(&request, Reason::Method, Some(hint));
            Err(Refusal::Method)
        }
        None => {
            let hint = meant_source(&name.unwrap_or_default(), &ingress.sources);
            report(&request, Reason::UnknownSource, Some(&hint));
            Err(Refusal::UnknownSource)
        }
        Some(source) => ingress.receive(source, request).await,
    };
    ingress.answer(source.as_deref(), peer.as_deref(), result)
}

async fn elsewhere<H: Hold>(
    State(ingress): State<Arc<Ingress<H>>>,
    request: Request<Body>,
) -> Response {
    let hint = meant_path(request.uri().path(), &ingress.sources);
    report(&request, Reason::UnknownPath, hint.as_deref());
    let peer = Peer::of(&request);
    ingress.answer(None, peer.as_deref(), Err(Refusal::UnknownPath))
}

fn report<B>(request: &Request<B>, reason: Reason, hint: Option<&str>) {
    if let Some(peer) = Peer::of(request) {
        let subject = format!("{} {}", request.method(), request.uri().path());
        peer.refused(reason, &subject, hint);
    }
}

/// What a name may have been meant to be that no source has.
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
            format!("there are {}{rest}", paths.join(", "))
        }
    }
}

/// What a path may have been meant to be that is none of a webhook.
fn meant_path(path: &str, sources: &Sources) -> Option<String> {
    let source = path.split('/').rev().find_map(|part| sources.get(part));
    if let Some(source) = source {
        return Some(format!("did you mean `/webhooks/{}`?", source.name));
    }
    if OPERATORS_PATHS.contains(&path.trim_end_matches('/')) {
        return Some("operators ask the listener of `admin.listen`".into());
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
            secret_names: Vec::new(),
            awaits_secret: false,
        }))
    }

    #[test]
    fn the_source_that_was_meant_is_named() {
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
        let all = Some("there are `/webhooks/Other`, `/webhooks/acme`");
        check("/webhooks", all);
        check("/webhooks/", all);
        let admin = Some("operators ask the listener of `admin.listen`");
        check("/readyz", admin);
        check("/status/", admin);
        check("/wp-login.php", None);
        check("/", None);
    }

    #[test]
    fn a_name_that_is_nearly_right_is_asked_for() {
        let sources = sources(&["acme", "deskdirector", "c", "d", "e", "f", "g"]);
        let check = |name: &str, expected: &str| assert_eq!(meant_source(name, &sources), expected);
        check("acmee", "did you mean `/webhooks/acme`?");
        check("desk-director", "did you mean `/webhooks/deskdirector`?");
        check("DESKDIREKTOR", "did you mean `/webhooks/deskdirector`?");
        let hint = meant_source("github", &sources);
        assert!(hint.ends_with(" and 2 more"), "{hint}");
    }
}
