//! A request that is complete and not yet known to be authentic. Opening it is the only way to
//! what is inside.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::refusal::Refusal;
use crate::http::sources::Source;
use crate::webhook::signature::{Keys, Signature};
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
    pub(super) body: Bytes,
    pub(super) sessions_max: usize,
}

impl Sealed {
    /// Verifies and splits.
    pub(super) async fn open(self) -> Result<Webhook, Refusal> {
        if self.body.len() <= INLINE_BYTES_MAX {
            self.open_here()
        } else {
            spawn_blocking(|| self.open_here()).await?
        }
    }

    fn open_here(self) -> Result<Webhook, Refusal> {
        let verified = self.source.keys.verify(&self.signature, self.body)?;
        let webhook = split(verified, self.envelope, self.sessions_max)?;
        match (&self.source.keys, webhook.malformed()) {
            // Nobody vouches for it, so refusing it pauses no genuine sender.
            (Keys::Unsigned, Some(reject)) => Err(Refusal::Malformed(reject.detail.clone())),
            _ => Ok(webhook),
        }
    }
}
