//! One webhook, signed and ready to be posted.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};

use crate::config::sources::Secret;
use crate::webhook::signature::{HEADER, sign};

/// Which of DeskDirector's two webhooks reports an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookKind {
    /// *New Chat Session*: all its sessions have the status `created`.
    New,
    /// *Chat Session Status Changed*: all its sessions were reported before.
    Changed,
}

impl WebhookKind {
    /// The name of the webhook in DeskDirector.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "New Chat Session",
            Self::Changed => "Chat Session Status Changed",
        }
    }
}

/// The URL to post to, and the secrets to sign with.
#[derive(Debug)]
pub struct Target {
    /// May contain secrets: do not print it.
    pub url: Uri,
    /// None for a source without signatures. The second one, if there is one, is that of
    /// [`WebhookKind::Changed`].
    pub secrets: Vec<Secret>,
}

/// A body with its signature, if the source is signed. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Post {
    pub(super) kind: WebhookKind,
    /// Whether it repeats an earlier one.
    pub(super) is_resent: bool,
    body: Bytes,
    signature: Option<HeaderValue>,
}

impl Post {
    /// Signs a body with the target's secret for that webhook.
    #[must_use]
    pub fn sign(body: Vec<u8>, kind: WebhookKind, target: &Target) -> Self {
        let secret = target.secrets.get(kind as usize);
        let secret = secret.or(target.secrets.first());
        let signature = secret.map(|secret| sign(secret.expose().as_bytes(), &body));
        Self {
            kind,
            is_resent: false,
            // A signature is ASCII.
            signature: signature.and_then(|signature| signature.try_into().ok()),
            body: body.into(),
        }
    }

    /// The request, as DeskDirector sends it.
    #[must_use]
    pub fn request(self, target: &Target) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.url.clone();
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        let signature = self.signature;
        let signature = signature.map(|value| (HeaderName::from_static(HEADER), value));
        let headers = [(CONTENT_TYPE, json)].into_iter().chain(signature);
        request.headers_mut().extend(headers);
        request
    }
}
