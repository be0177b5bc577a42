//! What kind of queue one is, asked over AMQP: the broker does not describe a queue, but it says
//! what differs when one that is there is declared again with other arguments, and changes nothing.
//! A policy does not show this way.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::rabbitmq::live::{CallError, Live};
use crate::rabbitmq::publisher::properties::short;
use crate::rabbitmq::topology::DELIVERY_LIMIT_NONE;

/// Arguments that a queue can have, more or less.
const QUESTIONS_MAX: usize = 20;

/// What a delivery that is given back means to a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// Deliveries are not counted, or to a limit that nobody reaches.
    Unlimited,
    /// A quorum queue: a message is dropped or dead-lettered after so many.
    Limited(u64),
    /// A quorum queue without an argument for it: unlimited before 4.0, 20 since.
    BrokersDefault,
    /// Not a queue but a stream.
    Stream,
    /// The broker does not say.
    Unknown,
}

/// What the broker's words mean.
#[derive(Debug, PartialEq)]
enum Answer {
    Is(Nature),
    /// It has this argument too: ask again with it.
    Has(String, AMQPValue),
}

/// Asks about a queue that was just there.
pub(super) async fn ask(live: &Live, name: &ShortString) -> Result<Nature, CallError> {
    let mut arguments = FieldTable::default();
    let quorum = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), quorum);
    let no_limit = AMQPValue::LongLongInt(DELIVERY_LIMIT_NONE);
    arguments.insert("x-delivery-limit".into(), no_limit);
    for _ in 0..QUESTIONS_MAX {
        let channel = live.open_channel().await?;
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declaring = channel.queue_declare(name.clone(), options, arguments.clone());
        match live.call("tell of a queue", declaring).await {
            Ok(_) => return Ok(Nature::Unlimited),
            Err(CallError::Closed(_, text)) => match read(&text) {
                Answer::Is(nature) => return Ok(nature),
                Answer::Has(argument, value) => {
                    arguments.insert(short(&argument), value);
                }
            },
            Err(CallError::Lost) => return Err(CallError::Lost),
        }
    }
    Ok(Nature::Unknown)
}

/// `… inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received '…' but current is '5'`
fn read(text: &str) -> Answer {
    let words = text.split_once("inequivalent arg '").and_then(|(_, rest)| {
        let (argument, rest) = rest.split_once('\'')?;
        Some((argument, rest.rsplit_once("current is ")?.1))
    });
    let Some((argument, current)) = words else {
        return Answer::Is(Nature::Unknown);
    };
    let plain = current.trim_matches('\'');
    Answer::Is(match (argument, plain) {
        // A quorum queue is always durable and nobody's own.
        ("durable" | "exclusive" | "auto_delete", _) | ("x-queue-type", "classic" | "none") => {
            Nature::Unlimited
        }
        ("x-queue-type", "stream") => Nature::Stream,
        ("x-delivery-limit", "none") => Nature::BrokersDefault,
        ("x-delivery-limit", limit) => limit.parse().map_or(Nature::Unknown, Nature::Limited),
        _ => match typed(current) {
            Some(value) => return Answer::Has(argument.to_owned(), value),
            None => Nature::Unknown,
        },
    })
}

/// `the value '100000' of type 'signedint'`
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
    fn the_brokers_words_tell_kind_limit_and_what_else_there_is() {
        let check = |difference: &str, expected: Answer| {
            let text = format!("PRECONDITION_FAILED - inequivalent arg {difference}");
            assert_eq!(read(&text), expected, "{text}");
        };
        let is = Answer::Is;
        check(
            "'x-delivery-limit' for queue 't' in vhost '/': received '1000000000' but current is '5'",
            is(Nature::Limited(5)),
        );
        check(
            "'x-delivery-limit' for queue 't' in vhost '/': received the value '1000000000' of type 'signedint' but current is none",
            is(Nature::BrokersDefault),
        );
        check(
            "'x-queue-type' for queue 't' in vhost '/': received 'quorum' but current is 'classic'",
            is(Nature::Unlimited),
        );
        check(
            "'x-queue-type' for queue 't' in vhost '/': received the value 'quorum' of type 'longstr' but current is none",
            is(Nature::Unlimited),
        );
        check(
            "'durable' for queue 't' in vhost '/': received 'true' but current is 'false'",
            is(Nature::Unlimited),
        );
        check(
            "'x-queue-type' for queue 't' in vhost '/': received 'quorum' but current is 'stream'",
            is(Nature::Stream),
        );
        check(
            "'x-message-ttl' for queue 't' in vhost '/': received none but current is the value '100000' of type 'signedint'",
            Answer::Has("x-message-ttl".into(), AMQPValue::LongLongInt(100_000)),
        );
        check(
            "'x-overflow' for queue 't' in vhost '/': received none but current is the value 'drop-head' of type 'longstr'",
            Answer::Has(
                "x-overflow".into(),
                AMQPValue::LongString("drop-head".into()),
            ),
        );
        check(
            "'x' for queue: received none but current is odd",
            is(Nature::Unknown),
        );
        let refused = "ACCESS_REFUSED - access to queue 't'";
        assert_eq!(read(refused), is(Nature::Unknown));
    }
}
