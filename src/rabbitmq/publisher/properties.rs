//! A message's properties as AMQP writes them. Nothing here can panic or refuse: what does not fit
//! is cut.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::webhook::message::{Header, Message};

/// Kept by the broker across a restart.
const PERSISTENT: u8 = 2;
/// Bytes of an AMQP short string at most.
const SHORT_BYTES_MAX: usize = 255;

/// Properties and headers of the contract. Takes the headers out of the message: a copy of every
/// text is what most of this would cost.
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

/// A header's value.
pub(in crate::rabbitmq) fn header(value: Header) -> AMQPValue {
    match value {
        Header::Text(text) => AMQPValue::LongString(text.into()),
        Header::Integer(number) => AMQPValue::LongLongInt(number),
    }
}

/// At most 255 bytes of a text, whole characters.
pub(in crate::rabbitmq) fn short(text: &str) -> ShortString {
    let end = text.floor_char_boundary(SHORT_BYTES_MAX);
    ShortString::try_new(&text[..end]).expect("at most 255 bytes fit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_at_a_character() {
        assert_eq!(short(&"x".repeat(300)).as_str().len(), 255);
        let euros = short(&"€".repeat(100));
        assert_eq!(euros.as_str().chars().count(), 85);
        assert_eq!(short("short").as_str(), "short");
    }
}
