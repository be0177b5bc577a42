//! Deserializes the merged layers with serde and reports all findings at once. Serde stops at the
//! first invalid value, so the reader records that value, removes it and deserializes the rest
//! again. Values from the environment and from flags are text: numbers, booleans and lists are
//! parsed from it.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use config::{Value, ValueKind};
use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, Deserializer, Error, Expected, IntoDeserializer, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_path_to_error::{Segment, Segments};

use super::finding::ConfigFinding;
use super::layers::{append, is_text_only};

/// Maximum number of findings. The reader stops there: a longer list helps no operator.
const FINDINGS_MAX: usize = 100;

/// Deserializes a `T` and returns all findings; an invalid value is replaced by its default.
pub(super) fn read<T: DeserializeOwned + Default>(mut tree: Value) -> (T, Vec<ConfigFinding>) {
    let mut findings = Vec::new();
    while findings.len() < FINDINGS_MAX {
        match serde_path_to_error::deserialize(Node(&tree)) {
            Ok(read) => return (read, findings),
            Err(error) => {
                let mut key = String::new();
                let origin = take_out(&mut tree, error.path().iter(), &mut key);
                let origin = origin.as_deref();
                findings.push(match error.into_inner() {
                    Problem::UnknownKey(known) => ConfigFinding::unknown_key(&key, known, origin),
                    Problem::Value(problem) => ConfigFinding::new(key, problem).at(origin),
                });
            }
        }
    }
    (T::default(), findings)
}

/// Sets the value at a path to nil, so that the indices of lists stay. Returns its origin, and its
/// key in `key`. An element of a list that was given as text stands for the list.
fn take_out(value: &mut Value, mut path: Segments<'_>, key: &mut String) -> Option<String> {
    match (path.next(), &mut value.kind) {
        (Some(Segment::Map { key: name }), ValueKind::Table(table)) => {
            if let Some(below) = table.get_mut(name) {
                append(key, name);
                return take_out(below, path, key);
            }
        }
        (Some(Segment::Seq { index }), ValueKind::Array(elements)) => {
            let mut present = elements
                .iter_mut()
                .enumerate()
                .filter(|(_, element)| is_present(element));
            if let Some((index, below)) = present.nth(*index) {
                let _ = write!(key, "[{index}]");
                return take_out(below, path, key);
            }
        }
        _ => {}
    }
    value.kind = ValueKind::Nil;
    value.origin().map(str::to_owned)
}

fn is_present(value: &Value) -> bool {
    !matches!(value.kind, ValueKind::Nil)
}

/// Why a value could not be deserialized. Never quotes the value.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Value(String),
    /// The known keys of the table.
    #[error("unknown key")]
    UnknownKey(&'static [&'static str]),
}

impl Error for Problem {
    fn custom<T: Display>(problem: T) -> Self {
        Self::Value(problem.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = match expected.to_string() {
            number if ["u32", "u64", "usize"].contains(&&*number) => "a whole number".into(),
            list if list == "a sequence" => "a list".into(),
            table if table == "a map" || table.starts_with("struct ") => "a table".into(),
            other => other,
        };
        let found = match found {
            Unexpected::Bool(_) => "a boolean",
            Unexpected::Signed(..0) => "a negative number",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
            Unexpected::Float(_) => "a number with a fraction",
            Unexpected::Str(_) => "a string",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a table",
            _ => "something else",
        };
        Self::Value(format!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Unsigned(_) | Unexpected::Signed(0..) => Self::custom(TOO_LARGE),
            found => Self::invalid_type(found, expected),
        }
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Value(format!("expected \"{}\"", expected.join("\" or \"")))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::UnknownKey(expected)
    }
}

const TOO_LARGE: &str = "the number is too large";

/// A value of the tree.
struct Node<'a>(&'a Value);

impl<'a> Node<'a> {
    /// The text of a value from a layer that has only text (environment, flags).
    fn text_only(&self) -> Option<&'a str> {
        match &self.0.kind {
            ValueKind::String(text) if self.0.origin().is_some_and(is_text_only) => Some(text),
            _ => None,
        }
    }
}

impl IntoDeserializer<'_, Problem> for Node<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.0.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(value) => visitor.visit_bool(*value),
            ValueKind::I64(value) => visitor.visit_i64(*value),
            // No layer contains another number that fits into 64 bits.
            ValueKind::U64(_) | ValueKind::I128(_) | ValueKind::U128(_) => {
                Err(Problem::custom(TOO_LARGE))
            }
            ValueKind::Float(value) => visitor.visit_f64(*value),
            ValueKind::String(value) => visitor.visit_str(value),
            ValueKind::Table(table) => {
                let present = table.iter().filter(|(_, value)| is_present(value));
                let sorted: BTreeMap<_, _> = present
                    .map(|(key, value)| (key.as_str(), Node(value)))
                    .collect();
                visitor.visit_map(MapDeserializer::new(sorted.into_iter()))
            }
            ValueKind::Array(elements) => {
                let present = elements.iter().filter(|element| is_present(element));
                visitor.visit_seq(SeqDeserializer::new(present.map(Node)))
            }
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.text_only().map(|text| text.trim().parse()) {
            Some(Ok(number)) => visitor.visit_i64(number),
            Some(Err(_)) => Err(Problem::custom("expected a whole number")),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.text_only().map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "1") => visitor.visit_bool(true),
            Some("false" | "0") => visitor.visit_bool(false),
            Some(_) => Err(Problem::custom("expected true or false")),
            None => self.deserialize_any(visitor),
        }
    }

    /// A list that is given as text is split at commas; parts are trimmed, empty ones dropped.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let Some(text) = self.text_only() else {
            return self.deserialize_any(visitor);
        };
        let origin = self.0.origin().map(str::to_owned);
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let list: Vec<_> = parts
            .map(|part| Value::new(origin.as_ref(), part))
            .collect();
        Node(&list.into()).deserialize_any(visitor)
    }

    /// A list is refused: serde would take its elements for the fields.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match &self.0.kind {
            ValueKind::Array(_) => Err(Problem::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.text_only() {
            Some("") => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        match &self.0.kind {
            ValueKind::String(name) => visitor.visit_enum(StrDeserializer::<Problem>::new(name)),
            _ => Err(Problem::unknown_variant("", variants)),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct map identifier ignored_any
    }
}
