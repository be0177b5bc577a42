//! A corrected body in place of one that could not be routed. It is treated like the body of a
//! webhook: split and routed by the same code as in the bridge. Pure.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::config::Config;
use crate::rabbitmq::queue::QueuedMessage;
use crate::webhook::message::{Header, Message};
use crate::webhook::routing::Routing;
use crate::webhook::signature::Keys;
use crate::webhook::split::split;
use crate::webhook::{Content, Envelope, Event, Webhook};

/// Checks a corrected body, independently of the message that it replaces.
///
/// # Errors
/// If it is not one valid chat session or an array of them; says why.
pub fn check(config: &Config, body: &Bytes) -> Result<(), String> {
    let envelope = Envelope {
        webhook_id: Uuid::nil(),
        source: "".into(),
        received_at: Timestamp::UNIX_EPOCH,
        traceparent: None,
        tracestate: None,
    };
    events(config, body, envelope).map(drop)
}

/// The messages of the body's sessions, which replace a message of the queue.
///
/// # Errors
/// If the message does not say which source its session is of.
pub(super) fn messages(
    config: &Config,
    routing: &Routing,
    replaced: &QueuedMessage,
    body: &Bytes,
    now: Timestamp,
) -> Result<Vec<Message>, String> {
    let source = replaced
        .text("source")
        .ok_or("it has no header `source`, so the source of the session is unknown")?;
    let received = replaced.text("received-at").and_then(|at| at.parse().ok());
    let webhook_id = replaced.text("webhook-id").and_then(|id| id.parse().ok());
    let envelope = Envelope {
        webhook_id: webhook_id.unwrap_or_else(Uuid::now_v7),
        source: source.into(),
        received_at: received.unwrap_or(now),
        traceparent: replaced.text("traceparent").map(Into::into),
        tracestate: replaced.text("tracestate").map(Into::into),
    };
    let mut events = events(config, body, envelope)?;
    if let [event] = events.as_mut_slice() {
        let index = replaced
            .headers
            .get("webhook-index")
            .and_then(Value::as_u64);
        Arc::make_mut(event).index = index.and_then(|index| index.try_into().ok()).unwrap_or(0);
    }
    let message = |event: &Arc<Event>| {
        let status = routing.routed_status(event);
        let mut message = Message::of(event, routing.route(event), status).replayed(now);
        if let Some(id) = &replaced.received.message_id {
            message
                .headers
                .push(("corrected-from", Header::Text(id.clone())));
        }
        message
    };
    Ok(events.iter().map(message).collect())
}

fn events(config: &Config, body: &Bytes, envelope: Envelope) -> Result<Vec<Arc<Event>>, String> {
    let unsigned = Keys::Unsigned;
    let verified = unsigned
        .read::<&[u8]>([])
        .and_then(|signature| unsigned.verify(&signature, body.clone()))
        .map_err(|error| error.to_string())?;
    let Webhook { events, .. } =
        split(verified, envelope, config.http.sessions_max).map_err(|error| error.to_string())?;
    if events.is_empty() {
        return Err("it contains no session".into());
    }
    for event in &events {
        if let Content::Reject(reject) = &event.content {
            return Err(format!(
                "it is {} too: {} (element {})",
                reject.reason.as_str(),
                reject.detail,
                event.index
            ));
        }
    }
    Ok(events)
}
