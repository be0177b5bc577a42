//! From a complete body to a webhook. Verifying the signature is the only way to the content: only
//! [`Verified`] bytes are split.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::refusal::Refusal;
use crate::http::sources::Source;
use crate::webhook::signature::{Keys, Signature, Verified};
use crate::webhook::split;
use crate::webhook::{Envelope, Webhook};

/// Maximum size of a body that is verified and split on the async runtime. Larger bodies are moved
/// to a blocking thread, so that other requests do not wait.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Verifies the signature of a body.
pub(super) async fn verify(
    source: &Arc<Source>,
    signature: Signature,
    body: Bytes,
) -> Result<Verified<Bytes>, Refusal> {
    let source = Arc::clone(source);
    run_blocking_if_large(body.len(), move || {
        Ok(source.keys.verify(&signature, body)?)
    })
    .await
}

/// Splits a body into events. `coding` is the content coding that the head declares.
pub(super) async fn split(
    source: &Source,
    body: Verified<Bytes>,
    envelope: Envelope,
    coding: Option<String>,
    sessions_max: usize,
) -> Result<Webhook, Refusal> {
    let is_unsigned = matches!(source.keys, Keys::Unsigned);
    run_blocking_if_large(body.as_ref().len(), move || {
        let mut webhook = split::split(body, envelope, sessions_max)?;
        if let Some(coding) = coding {
            webhook.explain_malformed(&format!("sent with the content coding {coding}"));
        }
        match webhook.malformed() {
            // Nothing proves who sent it, so a refusal does not pause a verified sender.
            Some(reject) if is_unsigned => Err(Refusal::Malformed(reject.detail.clone())),
            _ => Ok(webhook),
        }
    })
    .await
}

/// Runs `work` on a body of `length` bytes; for a large one on a blocking thread.
async fn run_blocking_if_large<T: Send + 'static>(
    length: usize,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if length <= INLINE_BYTES_MAX {
        work()
    } else {
        spawn_blocking(work).await.unwrap_or(Err(Refusal::Failed))
    }
}
