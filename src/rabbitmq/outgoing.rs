//! What can be published: the message of an event, or a copy of a message that was in a queue.

use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;

use super::publisher::properties::properties;
use crate::webhook::message::Message;
use crate::webhook::routing::Route;

/// A message to publish.
#[derive(Debug, Clone)]
pub enum OutgoingMessage {
    /// The message of an event.
    Event(Message),
    /// A copy of a message that was in a queue.
    Copy(Box<MessageCopy>),
}

/// A message with AMQP properties that the bridge did not write.
#[derive(Debug, Clone)]
pub struct MessageCopy {
    pub(super) route: Arc<Route>,
    pub(super) properties: BasicProperties,
    pub(super) body: Bytes,
}

impl OutgoingMessage {
    /// The exchange and routing key that it is published to.
    #[must_use]
    pub fn route(&self) -> &Arc<Route> {
        match self {
            Self::Event(message) => &message.route,
            Self::Copy(copy) => &copy.route,
        }
    }

    /// The body, byte for byte.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        match self {
            Self::Event(message) => &message.body,
            Self::Copy(copy) => &copy.body,
        }
    }

    /// The property `message_id`; a copy may have none.
    #[must_use]
    pub fn message_id(&self) -> Option<String> {
        match self {
            Self::Event(message) => Some(message.message_id.to_string()),
            Self::Copy(copy) => copy
                .properties
                .message_id()
                .as_ref()
                .map(ToString::to_string),
        }
    }

    pub(super) fn into_amqp(self) -> (Arc<Route>, BasicProperties, Bytes) {
        match self {
            Self::Event(mut message) => {
                let properties = properties(&mut message);
                (message.route, properties, message.body)
            }
            Self::Copy(copy) => (copy.route, copy.properties, copy.body),
        }
    }
}

impl From<Message> for OutgoingMessage {
    fn from(message: Message) -> Self {
        Self::Event(message)
    }
}

impl From<MessageCopy> for OutgoingMessage {
    fn from(copy: MessageCopy) -> Self {
        Self::Copy(Box::new(copy))
    }
}
