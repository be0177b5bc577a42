//! Tables of headers and arguments: copied in part, from and to JSON, and as texts and integers.

use std::collections::BTreeMap;

use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Map, Number, Value};

use crate::webhook::message::Header;

/// A copy of a table with the entries whose names are kept.
pub(super) fn filtered(table: &FieldTable, is_kept: impl Fn(&str) -> bool) -> FieldTable {
    let kept = table.into_iter().filter(|(name, _)| is_kept(name.as_str()));
    let kept = kept.map(|(name, value)| (name.clone(), value.clone()));
    FieldTable::from(kept.collect::<BTreeMap<_, _>>())
}

/// Converts a string, an integer or a boolean to AMQP.
pub(super) fn amqp(value: &Value) -> AMQPValue {
    match value {
        Value::String(text) => AMQPValue::LongString(text.as_str().into()),
        Value::Bool(flag) => AMQPValue::Boolean(*flag),
        value => AMQPValue::LongLongInt(value.as_i64().unwrap_or_default()),
    }
}

/// Converts a table to JSON.
pub(super) fn plain_table(table: &FieldTable) -> Map<String, Value> {
    table
        .into_iter()
        .map(|(name, value)| (name.to_string(), plain(value)))
        .collect()
}

/// Converts an AMQP value to JSON. Timestamps become RFC 3339 (those out of range stay numbers),
/// byte arrays and decimals their debug output. In texts, invalid UTF-8 is replaced.
pub(super) fn plain(value: &AMQPValue) -> Value {
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

/// Converts a header to text or an integer: other values, and small integers, to text.
pub(super) fn flat((name, value): (&ShortString, &AMQPValue)) -> (String, Header) {
    let value = match value {
        AMQPValue::LongString(text) => Header::Text(text.to_string()),
        AMQPValue::ShortString(text) => Header::Text(text.to_string()),
        AMQPValue::LongLongInt(number) => Header::Integer(*number),
        AMQPValue::LongInt(number) => Header::Integer((*number).into()),
        AMQPValue::LongUInt(number) => Header::Integer((*number).into()),
        AMQPValue::ShortInt(number) => Header::Integer((*number).into()),
        AMQPValue::Boolean(flag) => Header::Text(flag.to_string()),
        other => Header::Text(format!("{other:?}")),
    };
    (name.to_string(), value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_header_is_shown_completely() {
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
