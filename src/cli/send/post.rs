//! One webhook, signed and ready to be posted.

use bytes::Bytes;
use deskbridge::webhook::signature::sign;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use super::life::Occasion;
use super::target::Target;

const SIGNATURE: &str = "x-dd-signature";

/// A body with its signature. Cheap to clone.
#[derive(Clone)]
pub struct Post {
    /// Which of DeskDirector's two webhooks posts it.
    pub occasion: Occasion,
    body: Bytes,
    signature: Option<HeaderValue>,
}

impl Post {
    /// Signs a body for a target, with the secret of that webhook.
    pub fn sign(body: Vec<u8>, occasion: Occasion, target: &Target) -> Self {
        let signature = target.secret(occasion).map(|secret| {
            let signature = sign(secret.expose().as_bytes(), &body);
            HeaderValue::try_from(signature).expect("a signature is ASCII")
        });
        Self {
            occasion,
            body: body.into(),
            signature,
        }
    }

    /// The request, as DeskDirector makes it.
    pub fn request(self, target: &Target) -> Request<Full<Bytes>> {
        let mut request = Request::post(&target.url)
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .body(Full::new(self.body))
            .expect("a URL and fixed headers make a request");
        if let Some(signature) = self.signature {
            request.headers_mut().insert(SIGNATURE, signature);
        }
        request
    }
}
