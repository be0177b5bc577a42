//! Determines the delivery limit of a queue over AMQP. AMQP cannot describe a queue. But when an
//! existing queue is declared with other arguments, the broker names the difference, and changes
//! nothing. Policies are not visible this way.

use std::ops::ControlFlow::{self, Break, Continue};

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::rabbitmq::open_connection::{CallError, OpenConnection};
use crate::rabbitmq::publisher::properties::short;
use crate::rabbitmq::topology::DELIVERY_LIMIT_NONE;

/// Limit for the number of declarations; about as many arguments as a queue can have.
const QUESTIONS_MAX: usize = 20;

/// How many returned deliveries of a message a queue allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryLimit {
    /// Deliveries are not counted, or the limit is too high to be reached.
    Unlimited,
    /// A quorum queue that drops or dead-letters a message after this many deliveries.
    Limited(u64),
    /// A quorum queue without the argument: unlimited before 4.0, 20 from then on.
    BrokersDefault,
    /// The queue is a stream, which does not count deliveries.
    Stream,
    /// The broker's reply does not tell.
    Unknown,
}

/// Determines the delivery limit of a queue that is known to exist: the declaration would create a
/// missing one.
pub(super) async fn ask(
    connection: &OpenConnection,
    name: &ShortString,
) -> Result<DeliveryLimit, CallError> {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    let no_limit = AMQPValue::LongLongInt(DELIVERY_LIMIT_NONE);
    arguments.insert("x-delivery-limit".into(), no_limit);
    for _ in 0..QUESTIONS_MAX {
        let channel = connection.open_channel().await?;
        let options = QueueDeclareOptions::durable();
        let declaring = channel.queue_declare(name.clone(), options, arguments.clone());
        match connection.call("describe a queue", declaring).await {
            Ok(_) => return Ok(DeliveryLimit::Unlimited),
            Err(CallError::Closed(_, text)) => match read(&text) {
                Break(limit) => return Ok(limit),
                Continue((argument, value)) => {
                    arguments.insert(short(&argument), value);
                }
            },
            Err(CallError::Lost) => return Err(CallError::Lost),
        }
    }
    Ok(DeliveryLimit::Unknown)
}

/// Parses a reply such as
/// `… inequivalent arg 'x-delivery-limit' for queue 'q' …: received '…' but current is '5'`.
/// Continues with an argument that the queue also has.
fn read(text: &str) -> ControlFlow<DeliveryLimit, (String, AMQPValue)> {
    let words = text.split_once("inequivalent arg '").and_then(|(_, rest)| {
        let (argument, rest) = rest.split_once('\'')?;
        Some((argument, rest.rsplit_once("current is ")?.1))
    });
    let Some((argument, current)) = words else {
        return Break(DeliveryLimit::Unknown);
    };
    Break(match (argument, current.trim_matches('\'')) {
        // A quorum queue is always durable and never exclusive, so this is not one.
        ("durable" | "exclusive" | "auto_delete", _) | ("x-queue-type", "classic" | "none") => {
            DeliveryLimit::Unlimited
        }
        ("x-queue-type", "stream") => DeliveryLimit::Stream,
        ("x-delivery-limit", "none") => DeliveryLimit::BrokersDefault,
        ("x-delivery-limit", limit) => limit
            .parse()
            .map_or(DeliveryLimit::Unknown, DeliveryLimit::Limited),
        _ => match typed(current) {
            Some(value) => return Continue((argument.to_owned(), value)),
            None => DeliveryLimit::Unknown,
        },
    })
}

/// Parses a value such as `the value '100000' of type 'signedint'`.
fn typed(current: &str) -> Option<AMQPValue> {
    let (value, kind) = current
        .strip_prefix("the value '")?
        .strip_suffix('\'')?
        .split_once("' of type '")?;
    match kind {
        "longstr" => Some(AMQPValue::LongString(value.into())),
        "bool" => value.parse().ok().map(AMQPValue::Boolean),
        _ => value.parse().ok().map(AMQPValue::LongLongInt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_reply_reveals_kind_and_delivery_limit() {
        let check =
            |difference: &str, expected: ControlFlow<DeliveryLimit, (String, AMQPValue)>| {
                let text = format!("PRECONDITION_FAILED - inequivalent arg {difference}");
                assert_eq!(read(&text), expected, "{text}");
            };
        check(
            "'x-delivery-limit' for queue 't' in vhost '/': received '1000000000' but current is '5'",
            Break(DeliveryLimit::Limited(5)),
        );
        check(
            "'x-delivery-limit' for queue 't' in vhost '/': received the value '1000000000' of type 'signedint' but current is none",
            Break(DeliveryLimit::BrokersDefault),
        );
        check(
            "'x-queue-type' for queue 't' in vhost '/': received 'quorum' but current is 'classic'",
            Break(DeliveryLimit::Unlimited),
        );
        check(
            "'x-queue-type' for queue 't' in vhost '/': received the value 'quorum' of type 'longstr' but current is none",
            Break(DeliveryLimit::Unlimited),
        );
        check(
            "'durable' for queue 't' in vhost '/': received 'true' but current is 'false'",
            Break(DeliveryLimit::Unlimited),
        );
        check(
            "'x-queue-type' for queue 't' in vhost '/': received 'quorum' but current is 'stream'",
            Break(DeliveryLimit::Stream),
        );
        check(
            "'x-message-ttl' for queue 't' in vhost '/': received none but current is the value '100000' of type 'signedint'",
            Continue(("x-message-ttl".into(), AMQPValue::LongLongInt(100_000))),
        );
        check(
            "'x-overflow' for queue 't' in vhost '/': received none but current is the value 'drop-head' of type 'longstr'",
            Continue((
                "x-overflow".into(),
                AMQPValue::LongString("drop-head".into()),
            )),
        );
        check(
            "'x' for queue: received none but current is odd",
            Break(DeliveryLimit::Unknown),
        );
        let refused = "ACCESS_REFUSED - access to queue 't'";
        assert_eq!(read(refused), Break(DeliveryLimit::Unknown));
    }
}
