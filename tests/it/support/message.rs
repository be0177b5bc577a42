//! A message as a subscriber receives it, in plain types.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

/// A received message.
#[expect(clippy::struct_field_names, reason = "`message_id` is AMQP's name")]
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub exchange: String,
    pub routing_key: String,
    pub redelivered: bool,
    pub body: Vec<u8>,
    pub delivery_mode: Option<u8>,
    pub content_type: Option<String>,
    pub message_id: Option<String>,
    pub correlation_id: Option<String>,
    pub kind: Option<String>,
    pub app_id: Option<String>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    pub headers: BTreeMap<String, Value>,
}

impl Message {
    /// The value of a header; panics with the names of those present if it is missing.
    #[track_caller]
    pub fn header(&self, name: &str) -> &Value {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no header `{name}` among {:?}", self.headers))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics if it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// The `message_id`; panics if there is none.
    #[track_caller]
    pub fn id(&self) -> &str {
        self.message_id.as_deref().expect("a message_id")
    }
}

impl From<Delivery> for Message {
    fn from(delivery: Delivery) -> Self {
        let properties: &BasicProperties = &delivery.properties;
        let text =
            |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
        Self {
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            redelivered: delivery.redelivered,
            delivery_mode: *properties.delivery_mode(),
            content_type: text(properties.content_type()),
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            kind: text(properties.kind()),
            app_id: text(properties.app_id()),
            timestamp: *properties.timestamp(),
            headers: properties
                .headers()
                .as_ref()
                .map(plain_table)
                .unwrap_or_default(),
            body: delivery.data,
        }
    }
}

fn plain_table(table: &FieldTable) -> BTreeMap<String, Value> {
    table
        .into_iter()
        .map(|(name, value)| (name.to_string(), plain(value)))
        .collect()
}

fn plain(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => json!(value),
        AMQPValue::ShortShortInt(value) => json!(value),
        AMQPValue::ShortShortUInt(value) => json!(value),
        AMQPValue::ShortInt(value) => json!(value),
        AMQPValue::ShortUInt(value) => json!(value),
        AMQPValue::LongInt(value) => json!(value),
        AMQPValue::LongUInt(value) => json!(value),
        AMQPValue::LongLongInt(value) => json!(value),
        AMQPValue::Timestamp(value) => json!(value),
        AMQPValue::Float(value) => json!(value),
        AMQPValue::Double(value) => json!(value),
        AMQPValue::ShortString(value) => json!(value.to_string()),
        AMQPValue::LongString(value) => json!(value.to_string()),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(plain).collect(),
        AMQPValue::FieldTable(table) => json!(plain_table(table)),
        other => json!(format!("{other:?}")),
    }
}

/// Arguments of a queue or exchange: `json!({"x-max-length": 2})`.
pub fn arguments(value: &Value) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in value.as_object().into_iter().flatten() {
        if !value.is_null() {
            table.insert(name.as_str().into(), argument(value));
        }
    }
    table
}

fn argument(value: &Value) -> AMQPValue {
    match value {
        Value::Bool(value) => AMQPValue::Boolean(*value),
        Value::Number(value) => AMQPValue::LongLongInt(value.as_i64().expect("an integer")),
        Value::String(value) => AMQPValue::LongString(value.as_str().into()),
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(argument).collect();
            AMQPValue::FieldArray(values.into())
        }
        Value::Object(_) => AMQPValue::FieldTable(arguments(value)),
        Value::Null => panic!("no argument is nothing"),
    }
}
