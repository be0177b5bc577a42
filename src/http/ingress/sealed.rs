//! A request that is complete and not yet known to be authentic. Opening it is the only way to
//! what is inside.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::refusal::Refusal;
use crate::http::sources::Source;
use crate::webhook::signature::{Keys, Signature, Verified};
use crate::webhook::split::split;
use crate::webhook::{Envelope, Webhook};

/// Larger bodies are verified and split where they keep nobody else waiting.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// A request that is complete and not yet known to be authentic.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) source: Arc<Source>,
    pub(super) signature: Signature,
    pub(super) envelope: Envelope,
    /// What the body is said to be encoded with.
    pub(super) coding: Option<String>,
    pub(super) body: Bytes,
    pub(super) sessions_max: usize,
}

/// A request that is authentic and not yet split.
#[derive(Debug)]
pub(super) struct Opened {
    source: Arc<Source>,
    envelope: Envelope,
    coding: Option<String>,
    body: Verified<Bytes>,
    sessions_max: usize,
}

impl Sealed {
    /// Verifies the signature.
    pub(super) async fn open(self) -> Result<Opened, Refusal> {
        let length = self.body.len();
        aside(length, || self.open_here()).await
    }

    fn open_here(self) -> Result<Opened, Refusal> {
        let verified = self.source.keys.verify(&self.signature, self.body)?;
        Ok(Opened {
            source: self.source,
            envelope: self.envelope,
            coding: self.coding,
            body: verified,
            sessions_max: self.sessions_max,
        })
    }
}

impl Opened {
    /// The body as received.
    pub(super) fn body(&self) -> &[u8] {
        self.body.as_ref()
    }

    /// The position of the secret that signed it.
    pub(super) fn secret(&self) -> Option<usize> {
        self.body.secret()
    }

    /// Splits the body into events.
    pub(super) async fn split(self) -> Result<Webhook, Refusal> {
        let length = self.body.as_ref().len();
        aside(length, || self.split_here()).await
    }

    fn split_here(self) -> Result<Webhook, Refusal> {
        let mut webhook = split(self.body, self.envelope, self.sessions_max)?;
        if let Some(coding) = self.coding {
            webhook.explain_malformed(&format!("sent with the content coding {coding}"));
        }
        match (&self.source.keys, webhook.malformed()) {
            // Nobody vouches for it, so refusing it pauses no genuine sender.
            (Keys::Unsigned, Some(reject)) => Err(Refusal::Malformed(reject.detail.clone())),
            _ => Ok(webhook),
        }
    }
}

/// Works on a body, a large one where that keeps nobody else waiting.
async fn aside<T: Send + 'static>(
    length: usize,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if length <= INLINE_BYTES_MAX {
        work()
    } else {
        spawn_blocking(work).await?
    }
}
