//! The actions that a script can have the peer perform.

use std::time::Duration;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use amq_protocol::protocol::basic::{self, AMQPMethod as Basic};
use amq_protocol::protocol::channel::{self, AMQPMethod as OfChannel};
use amq_protocol::protocol::connection::{self, AMQPMethod as OfConnection};
use amq_protocol::protocol::{AMQPClass, BasicProperties};
use amq_protocol::types::ShortString;

use super::Stored;

/// The AMQP class of all methods with content (`basic`).
const BASIC: u16 = 60;

/// One action of the peer.
#[expect(clippy::large_enum_variant, reason = "a few of them at a time")]
#[derive(Debug, Clone)]
pub enum Say {
    /// A well-formed frame.
    Frame(AMQPFrame),
    /// Arbitrary bytes.
    Bytes(Vec<u8>),
    /// Neither reads nor writes for this time.
    Wait(Duration),
    /// Neither reads nor writes any more, but keeps the connection open.
    Freeze,
    /// RST.
    Reset,
    /// FIN.
    HangUp,
}

/// Confirms this message, or with `multiple` all messages up to it.
pub fn ack(channel: u16, delivery_tag: u64, multiple: bool) -> Say {
    let ack = basic::Ack {
        delivery_tag,
        multiple,
    };
    method(channel, AMQPClass::Basic(Basic::Ack(ack)))
}

/// Nacks this message, or with `multiple` all messages up to it.
pub fn nack(channel: u16, delivery_tag: u64, multiple: bool) -> Say {
    let nack = basic::Nack {
        delivery_tag,
        multiple,
        requeue: false,
    };
    method(channel, AMQPClass::Basic(Basic::Nack(nack)))
}

/// Returns the message as unroutable.
pub fn return_of(message: &Stored) -> Vec<Say> {
    let back = basic::Return {
        reply_code: 312,
        reply_text: "NO_ROUTE".into(),
        exchange: short(&message.exchange),
        routing_key: short(&message.routing_key),
    };
    let header = AMQPContentHeader {
        class_id: BASIC,
        body_size: message.body.len() as u64,
        properties: BasicProperties::default().with_message_id(short(&message.message_id)),
    };
    vec![
        method(message.channel, AMQPClass::Basic(Basic::Return(back))),
        Say::Frame(AMQPFrame::Header(message.channel, header)),
        Say::Frame(AMQPFrame::Body(message.channel, message.body.clone())),
    ]
}

/// Tells the client that the connection is blocked by an alarm.
pub fn blocked(reason: &str) -> Say {
    let blocked = connection::Blocked {
        reason: short(reason),
    };
    method(0, AMQPClass::Connection(OfConnection::Blocked(blocked)))
}

/// Closes the connection with this code.
pub fn close_connection(reply_code: u16, text: &str) -> Say {
    let close = connection::Close {
        reply_code,
        reply_text: short(text),
        class_id: 0,
        method_id: 0,
    };
    method(0, AMQPClass::Connection(OfConnection::Close(close)))
}

/// Closes a channel with this code.
pub fn close_channel(channel: u16, reply_code: u16, text: &str) -> Say {
    let close = channel::Close {
        reply_code,
        reply_text: short(text),
        class_id: BASIC,
        method_id: 40,
    };
    method(channel, AMQPClass::Channel(OfChannel::Close(close)))
}

/// Sends any method.
pub fn method(channel: u16, class: AMQPClass) -> Say {
    Say::Frame(AMQPFrame::Method(channel, class))
}

fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap()
}
