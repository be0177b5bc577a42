//! A corrected body in place of one that could not be routed: the webhook it should have been,
//! split and routed by the bridge's own rules. Pure.

use bytes::Bytes;
use deskbridge::config::Config;
use deskbridge::rabbitmq::queue::Letter;
use deskbridge::webhook::message::{Header, Message};
use deskbridge::webhook::routing::Routing;
use deskbridge::webhook::signature::Keys;
use deskbridge::webhook::split::split;
use deskbridge::webhook::{Content, Envelope, Event, Webhook};
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::summary::text;

/// Why this body cannot be sent, whatever it is sent in place of.
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

/// The messages of its sessions, in place of this one.
pub fn messages(
    config: &Config,
    letter: &Letter,
    body: &Bytes,
    now: Timestamp,
) -> Result<Vec<Message>, String> {
    let source = text(letter, "source")
        .ok_or("it has no header `source`, so nobody knows whose session it is")?;
    let received = text(letter, "received-at").and_then(|at| at.parse().ok());
    let webhook_id = text(letter, "webhook-id").and_then(|id| id.parse().ok());
    let envelope = Envelope {
        webhook_id: webhook_id.unwrap_or_else(Uuid::now_v7),
        source: source.into(),
        received_at: received.unwrap_or(now),
        traceparent: text(letter, "traceparent").map(Into::into),
        tracestate: text(letter, "tracestate").map(Into::into),
    };
    let routing = Routing::new(&config.routing, &config.dead_letter)
        .map_err(|_| "the routing keys of the configuration cannot be read (`deskbridge check`)")?;
    let mut events = events(config, body, envelope)?;
    if let [event] = events.as_mut_slice() {
        let index = letter.headers.get("webhook-index").and_then(Value::as_u64);
        event.index = index.and_then(|index| index.try_into().ok()).unwrap_or(0);
    }
    let message = |event: &Event| {
        let mut message = Message::of(event, routing.route(event), routing.routed_status(event));
        message.headers.push(super::replay::replayed_at(now));
        if let Some(id) = &letter.received.message_id {
            message
                .headers
                .push(("corrected-from", Header::Text(id.clone())));
        }
        message
    };
    Ok(events.iter().map(message).collect())
}

fn events(config: &Config, body: &Bytes, envelope: Envelope) -> Result<Vec<Event>, String> {
    let unsigned = Keys::Unsigned;
    let verified = unsigned
        .read::<&[u8]>([])
        .and_then(|signature| unsigned.verify(&signature, body.clone()))
        .map_err(|error| error.to_string())?;
    let Webhook { events, .. } =
        split(verified, envelope, config.http.sessions_max).map_err(|error| error.to_string())?;
    if events.is_empty() {
        return Err("it has no session in it".into());
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
