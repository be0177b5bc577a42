//! Converts the properties of a message to AMQP. Nothing here can panic or fail: a text that does
//! not fit is truncated.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::webhook::message::{Header, Message};

/// The delivery mode of messages that survive a restart of the broker.
pub(in crate::rabbitmq) const PERSISTENT: u8 = 2;
/// Longest AMQP short string in bytes.
const SHORT_BYTES_MAX: usize = 255;

/// The AMQP properties and headers of a message. Moves the headers out of the message, because
/// copying their texts would be most of the cost.
pub(in crate::rabbitmq) fn properties(message: &mut Message) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in std::mem::take(&mut message.headers) {
        headers.insert(short(name), header(value));
    }
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type(short("application/json"))
        .with_message_id(short(&message.message_id.to_string()))
        .with_type(short(&message.message_type))
        .with_app_id(short("deskbridge"))
        .with_timestamp(message.timestamp_seconds)
        .with_headers(headers);
    match &message.correlation_id {
        Some(id) => properties.with_correlation_id(short(id)),
        None => properties,
    }
}

/// A copy of the properties of a message, with these headers. Without `user_id`, because the broker
/// accepts only our own, and without `expiration`.
pub(in crate::rabbitmq) fn copy(of: &BasicProperties, headers: FieldTable) -> BasicProperties {
    let mut copy = BasicProperties::default().with_headers(headers);
    macro_rules! keep {
        ($($get:ident => $with:ident),*) => {
            $(if let Some(value) = of.$get() { copy = copy.$with(value.clone()); })*
        };
    }
    keep!(
        content_type => with_content_type, content_encoding => with_content_encoding,
        delivery_mode => with_delivery_mode, priority => with_priority,
        correlation_id => with_correlation_id, reply_to => with_reply_to,
        message_id => with_message_id, timestamp => with_timestamp,
        kind => with_type, app_id => with_app_id
    );
    copy
}

/// A header's value as an AMQP long string or 64-bit integer.
pub(in crate::rabbitmq) fn header(value: Header) -> AMQPValue {
    match value {
        Header::Text(text) => AMQPValue::LongString(text.into()),
        Header::Integer(number) => AMQPValue::LongLongInt(number),
    }
}

/// Truncates a text to at most 255 bytes, at a character boundary.
pub(in crate::rabbitmq) fn short(text: &str) -> ShortString {
    let end = text.floor_char_boundary(SHORT_BYTES_MAX);
    ShortString::try_new(&text[..end]).expect("at most 255 bytes fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_at_a_character_boundary() {
        assert_eq!(short(&"x".repeat(300)).as_str().len(), 255);
        let euros = short(&"€".repeat(100));
        assert_eq!(euros.as_str().chars().count(), 85);
        assert_eq!(short("short").as_str(), "short");
    }
}
