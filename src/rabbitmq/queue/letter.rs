//! A message that is held, with everything it carries: as plain values to look at, and as it came
//! to be published again.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Number, Value};

use crate::rabbitmq::consumer::{Received, received};

/// A message that is held.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Its place in the queue, from 1.
    pub position: u64,
    /// What a consumer would have received.
    pub received: Received,
    /// Every header with all that is in it.
    pub headers: Map<String, Value>,
    pub(super) properties: BasicProperties,
    pub(super) tag: u64,
    /// The window it was taken with.
    pub(super) window: u64,
}

impl Letter {
    pub(super) fn new(position: u64, window: u64, delivery: Delivery) -> Self {
        let properties = delivery.properties.clone();
        Self {
            position,
            tag: delivery.delivery_tag,
            window,
            headers: properties
                .headers()
                .as_ref()
                .map(plain_table)
                .unwrap_or_default(),
            properties,
            received: received(delivery),
        }
    }
}

fn plain_table(table: &FieldTable) -> Map<String, Value> {
    table
        .into_iter()
        .map(|(name, value)| (name.to_string(), plain(value)))
        .collect()
}

/// Times become RFC 3339, bytes that are not UTF-8 and decimals their debug text.
fn plain(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => (*value).into(),
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => (*value).into(),
        AMQPValue::Float(value) => Number::from_f64((*value).into()).into(),
        AMQPValue::Double(value) => Number::from_f64(*value).into(),
        AMQPValue::ShortString(value) => value.as_str().into(),
        AMQPValue::LongString(value) => String::from_utf8_lossy(value.as_bytes()).into(),
        AMQPValue::Timestamp(seconds) => time(*seconds),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(plain).collect(),
        AMQPValue::FieldTable(table) => plain_table(table).into(),
        AMQPValue::Void => Value::Null,
        AMQPValue::DecimalValue(_) | AMQPValue::ByteArray(_) => format!("{value:?}").into(),
    }
}

fn time(seconds: u64) -> Value {
    let at = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map_or_else(|| seconds.into(), |at| at.to_string().into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_header_is_told_with_all_that_is_in_it() {
        let mut death = FieldTable::default();
        death.insert("time".into(), AMQPValue::Timestamp(1_700_000_000));
        death.insert(
            "routing-keys".into(),
            AMQPValue::FieldArray(vec![AMQPValue::LongString("a.b".into())].into()),
        );
        let mut table = FieldTable::default();
        let deaths = vec![AMQPValue::FieldTable(death)];
        table.insert("x-death".into(), AMQPValue::FieldArray(deaths.into()));
        table.insert("flag".into(), AMQPValue::Boolean(true));
        table.insert("far".into(), AMQPValue::Timestamp(u64::MAX));
        assert_eq!(
            Value::from(plain_table(&table)),
            json!({
                "flag": true,
                "far": u64::MAX,
                "x-death": [{"time": "2023-11-14T22:13:20Z", "routing-keys": ["a.b"]}],
            })
        );
    }
}
