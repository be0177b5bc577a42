//! The alternative, in a process of its own: what a competent developer writes in an afternoon with
//! axum and lapin. It verifies and splits webhooks, publishes the same messages as the bridge, and
//! answers when all of them are confirmed. It has no journal, so without the broker it can only
//! refuse.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use ring::digest::{Context, SHA256};
use ring::hmac::{self, HMAC_SHA256, Key};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::role;
use crate::support::sender::{PATH, SECRET};
use crate::support::vhost::connect;

const SOURCE: &str = "deskdirector";

/// Addresses to listen on and to publish to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Forwarding {
    pub listen: SocketAddr,
    pub amqp_url: String,
    pub exchange: String,
}

struct Forwarder {
    key: Key,
    channel: Channel,
    exchange: String,
}

/// The fields of a session that it needs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    id: String,
    status: String,
    r#type: Option<String>,
    #[serde(default)]
    past_status: Vec<String>,
}

/// Data shared by all sessions of a request.
struct Request {
    id: String,
    received_at: jiff::Timestamp,
}

/// Runs this role until the benchmark ends.
pub fn play(forwarding: &Forwarding) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(serve(forwarding));
}

async fn serve(forwarding: &Forwarding) {
    let connection = connect(&forwarding.amqp_url).await;
    let channel = connection.create_channel().await.expect("a channel");
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .expect("confirms");
    let forwarder = Arc::new(Forwarder {
        key: Key::new(HMAC_SHA256, SECRET.as_bytes()),
        channel,
        exchange: forwarding.exchange.clone(),
    });
    let app = Router::new()
        .route(PATH, post(webhook))
        .with_state(forwarder);
    let listener = tokio::net::TcpListener::bind(forwarding.listen).await;
    let listener = listener.expect("a free address");
    role::say(&"ready");
    let serving = axum::serve(listener, app);
    let end = tokio::task::spawn_blocking(role::wait_for_line);
    tokio::select! {
        ended = serving.into_future() => ended.expect("serving"),
        _ = end => {}
    }
}

async fn webhook(
    State(forwarder): State<Arc<Forwarder>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, String), StatusCode> {
    if !forwarder.is_authentic(&headers, &body) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let elements: Vec<&RawValue> =
        serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let request = Request {
        id: Uuid::new_v4().to_string(),
        received_at: jiff::Timestamp::now(),
    };
    let published = elements
        .iter()
        .enumerate()
        .map(|(index, element)| forwarder.publish(&request, index, element.get()));
    try_join_all(published).await?;
    let answer = format!(
        r#"{{"webhook_id":"{}","accepted":{}}}"#,
        request.id,
        elements.len()
    );
    Ok((StatusCode::ACCEPTED, answer))
}

impl Forwarder {
    fn is_authentic(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let signature = headers.get("x-dd-signature");
        let digest = signature
            .and_then(|value| value.to_str().ok()?.strip_prefix("sha256="))
            .and_then(|hex| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok());
        digest.is_some_and(|digest| hmac::verify(&self.key, body, &digest).is_ok())
    }

    async fn publish(
        &self,
        request: &Request,
        index: usize,
        element: &str,
    ) -> Result<(), StatusCode> {
        let session: Session =
            serde_json::from_str(element).map_err(|_| StatusCode::BAD_REQUEST)?;
        let key = format!("chat-session.{}", session.status);
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let properties = properties(request, index, &session, element);
        let confirm = self
            .channel
            .basic_publish(
                self.exchange.as_str().into(),
                key.into(),
                options,
                element.as_bytes(),
                properties,
            )
            .await
            .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        match confirm.await {
            Ok(Confirmation::Ack(None)) => Ok(()),
            _ => Err(StatusCode::SERVICE_UNAVAILABLE),
        }
    }
}

fn properties(
    request: &Request,
    index: usize,
    session: &Session,
    element: &str,
) -> BasicProperties {
    let text = |value: &str| AMQPValue::LongString(value.into());
    let mut headers = FieldTable::default();
    headers.insert("source".into(), text(SOURCE));
    headers.insert("session-id".into(), text(&session.id));
    if let Some(kind) = &session.r#type {
        headers.insert("session-type".into(), text(kind));
    }
    headers.insert("status".into(), text(&session.status));
    if let Some(previous) = session.past_status.last() {
        headers.insert("previous-status".into(), text(previous));
    }
    headers.insert("webhook-id".into(), text(&request.id));
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    headers.insert("webhook-index".into(), AMQPValue::LongLongInt(index));
    let received_at = format!("{:.3}", request.received_at);
    headers.insert("received-at".into(), text(&received_at));
    let seconds = request.received_at.as_second();
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_message_id(message_id(session, element).to_string().into())
        .with_correlation_id(session.id.as_str().into())
        .with_type(format!("chat-session.{}", session.status).into())
        .with_app_id("deskbridge".into())
        .with_timestamp(u64::try_from(seconds).unwrap_or_default())
        .with_headers(headers)
}

fn message_id(session: &Session, element: &str) -> Uuid {
    let mut hash = Context::new(&SHA256);
    for part in [SOURCE, &session.id] {
        let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
        hash.update(&length.to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(element.as_bytes());
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finish().as_ref()[..16]);
    Uuid::new_v8(first)
}
