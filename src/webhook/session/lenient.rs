//! A field that may be absent, or of another shape than the interface defines.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde::ser::{Serialize, Serializer};
use serde_json::value::RawValue;

/// A field as the sender wrote it. Accepts every JSON value; cannot be read from other formats.
#[derive(Debug, Clone, Default)]
pub enum Lenient<T> {
    /// Missing, or `null`.
    #[default]
    Absent,
    /// As the interface defines it.
    Is(T),
    /// Of another shape; kept as its text.
    Unexpected(Box<RawValue>),
}

impl<T> Lenient<T> {
    /// The value, if it is present and as the interface defines it.
    #[must_use]
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Unexpected(_) => None,
        }
    }

    /// Whether the field is absent, so that it is not written.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T> From<T> for Lenient<T> {
    fn from(value: T) -> Self {
        Self::Is(value)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        if text.get() == "null" {
            return Ok(Self::Absent);
        }
        let mut json = serde_json::Deserializer::from_str(text.get());
        Ok(T::deserialize(StructsAreObjects(&mut json)).map_or(Self::Unexpected(text), Self::Is))
    }
}

impl<T: Serialize> Serialize for Lenient<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent => serializer.serialize_unit(),
            Self::Is(value) => value.serialize(serializer),
            Self::Unexpected(text) => text.serialize(serializer),
        }
    }
}

/// The schema accepts the shape that the interface defines, or anything else.
impl<T: JsonSchema> JsonSchema for Lenient<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let shapes = [
            generator.subschema_for::<T>(),
            generator.subschema_for::<OtherShape>(),
        ];
        json_schema!({ "anyOf": shapes })
    }
}

/// Stands for any JSON value in the schema.
struct OtherShape;

impl JsonSchema for OtherShape {
    fn schema_name() -> Cow<'static, str> {
        "OtherShape".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`null`, or a value of another shape than the interface defines. The \
                bridge passes it on as received: consumers must expect it.",
        })
    }
}

/// Reads structs from objects only: a derived struct would also accept an array, with its fields in
/// order.
struct StructsAreObjects<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for StructsAreObjects<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
