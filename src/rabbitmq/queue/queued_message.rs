//! A held message with all its properties: as plain values for display, and unchanged for
//! publishing it again.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::message::Delivery;
use serde_json::{Map, Value};

use crate::rabbitmq::consumer::{Received, received};
use crate::rabbitmq::headers::{filtered, plain_table};
use crate::rabbitmq::publisher::properties::{self, header, short};
use crate::rabbitmq::publisher::size::{HEADERS_BYTES_MAX, table_bytes};
use crate::rabbitmq::{MessageCopy, OutgoingMessage};
use crate::webhook::message::Header;
use crate::webhook::routing::Route;

/// A message that was fetched and is held unacknowledged.
#[derive(Debug, Clone)]
pub struct QueuedMessage {
    /// Position in the queue, counted from 1.
    pub position: u64,
    /// The message as a consumer receives it.
    pub received: Received,
    /// All headers, with nested tables and arrays.
    pub headers: Map<String, Value>,
    properties: BasicProperties,
    pub(super) tag: u64,
    /// Number of the batch that it was fetched with.
    pub(super) batch: u64,
}

impl QueuedMessage {
    pub(super) fn new(position: u64, batch: u64, delivery: Delivery) -> Self {
        let properties = delivery.properties.clone();
        Self {
            position,
            tag: delivery.delivery_tag,
            batch,
            headers: properties
                .headers()
                .as_ref()
                .map(plain_table)
                .unwrap_or_default(),
            properties,
            received: received(delivery),
        }
    }

    /// The value of a header, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(Value::as_str)
    }

    /// A copy of the message for `route`, with all its properties and headers except `user_id`,
    /// because the broker accepts only our own, and the headers that `is_left_out` selects; with
    /// the header `added`.
    ///
    /// # Errors
    /// If the headers are too large for one frame: the broker would close the connection.
    pub fn copy(
        &self,
        route: Route,
        is_left_out: impl Fn(&str) -> bool,
        added: (&'static str, Header),
    ) -> Result<OutgoingMessage, String> {
        let headers = self.properties.headers().clone().unwrap_or_default();
        let mut headers = filtered(&headers, |name| !is_left_out(name));
        headers.insert(short(added.0), header(added.1));
        let bytes = table_bytes(&headers);
        if bytes > HEADERS_BYTES_MAX {
            return Err(format!(
                "{bytes} bytes of headers are too large for one frame"
            ));
        }
        let mut properties = properties::copy(&self.properties, headers);
        if let Some(expiration) = self.properties.expiration() {
            properties = properties.with_expiration(expiration.clone());
        }
        let copy = MessageCopy {
            route: Arc::new(route),
            properties,
            body: self.received.body.clone(),
        };
        Ok(copy.into())
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::{AMQPValue, FieldTable};

    use super::*;

    fn queued(properties: BasicProperties) -> QueuedMessage {
        let mut delivery = Delivery::mock(7, "e".into(), "k".into(), false, b"body".to_vec());
        delivery.properties = properties;
        QueuedMessage::new(1, 1, delivery)
    }

    fn copied(message: &QueuedMessage) -> Result<(Arc<Route>, BasicProperties, Vec<u8>), String> {
        let route = Route {
            exchange: "to".into(),
            routing_key: "key".into(),
        };
        let added = ("added", Header::Integer(1));
        let copy = message.copy(route, |name| name == "left-out", added)?;
        let (route, properties, body) = copy.into_amqp();
        Ok((route, properties, body.to_vec()))
    }

    #[test]
    fn copy_keeps_foreign_properties_and_header_types() {
        let mut headers = FieldTable::default();
        headers.insert("left-out".into(), AMQPValue::Boolean(true));
        headers.insert("float".into(), AMQPValue::Float(0.5));
        let properties = BasicProperties::default()
            .with_delivery_mode(1)
            .with_priority(3)
            .with_expiration("60000".into())
            .with_reply_to("r".into())
            .with_content_encoding("gzip".into());
        let original = properties.clone().with_user_id("guest".into());
        let (route, copy, body) = copied(&queued(original.with_headers(headers))).unwrap();
        assert_eq!((&*route.exchange, &*route.routing_key), ("to", "key"));
        let mut expected = FieldTable::default();
        expected.insert("float".into(), AMQPValue::Float(0.5));
        expected.insert("added".into(), AMQPValue::LongLongInt(1));
        assert_eq!(copy, properties.with_headers(expected));
        assert_eq!(body, b"body");
    }

    #[test]
    fn copy_with_oversized_headers_is_refused() {
        let mut headers = FieldTable::default();
        let long = AMQPValue::LongString("x".repeat(HEADERS_BYTES_MAX).into());
        headers.insert("long".into(), long);
        let error = copied(&queued(BasicProperties::default().with_headers(headers))).unwrap_err();
        assert!(error.contains("too large for one frame"), "{error}");
    }
}
