//! Reads the merged layers into a type through serde, and finds everything that is wrong at once:
//! serde stops at the first wrong value, so that one is noted, taken out, and the rest read again.
//! Text-only layers (environment, flags) may spell numbers, booleans and lists as text.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;

use config::{Value, ValueKind};
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use super::finding::Finding;
use super::layers::is_text_only;

/// Wrong values looked for before giving up; nobody fixes more in one go.
const FINDINGS_MAX: usize = 100;

/// Reads a `T` and every finding; what was wrong stands at its default.
pub(super) fn read<T: for<'de> Deserialize<'de> + Default>(mut root: Value) -> (T, Vec<Finding>) {
    let mut findings = Vec::new();
    while findings.len() < FINDINGS_MAX {
        let unknown = RefCell::default();
        match T::deserialize(Node {
            value: &root,
            path: Vec::new(),
            unknown: &unknown,
        }) {
            Ok(read) => {
                findings.extend(unknown.into_inner());
                return (read, findings);
            }
            Err(error) => {
                let was_there = take_out(&mut root, &error.path);
                findings.push(
                    Finding::new(dotted(&error.path), error.problem).at(error.origin.as_deref()),
                );
                if !was_there {
                    break;
                }
            }
        }
    }
    (T::default(), findings)
}

/// One step down the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// The path as findings show it: `queues[0].name`.
pub(super) fn dotted(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.extend([".", key]),
            Step::Index(index) => text.extend(["[", &index.to_string(), "]"]),
        }
    }
    text
}

/// Makes the value at a path absent without moving its neighbours.
fn take_out(root: &mut Value, path: &[Step]) -> bool {
    let mut value = root;
    for step in path {
        let below = match (step, &mut value.kind) {
            (Step::Key(key), ValueKind::Table(table)) => table.get_mut(key),
            (Step::Index(index), ValueKind::Array(array)) => array.get_mut(*index),
            _ => None,
        };
        let Some(below) = below else { return false };
        value = below;
    }
    let was_there = !matches!(value.kind, ValueKind::Nil);
    value.kind = ValueKind::Nil;
    was_there
}

/// Why a value could not be read, and where it stands. Never shows the value.
#[derive(Debug)]
struct ReadError {
    problem: String,
    path: Vec<Step>,
    origin: Option<String>,
    is_located: bool,
}

impl ReadError {
    fn at(self, path: Vec<Step>, origin: Option<&str>) -> Self {
        if self.is_located {
            return self;
        }
        Self {
            path,
            origin: origin.map(str::to_owned),
            is_located: true,
            ..self
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problem)
    }
}

impl std::error::Error for ReadError {}

impl serde::de::Error for ReadError {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self {
            problem: problem.to_string(),
            path: Vec::new(),
            origin: None,
            is_located: false,
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!(
            "expected {}, found {}",
            in_words(expected),
            kind_of(found)
        ))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Unsigned(_) => Self::custom("the number is too large"),
            found => Self::invalid_type(found, expected),
        }
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        let expected: Vec<_> = expected.iter().map(|name| format!("\"{name}\"")).collect();
        Self::custom(format_args!("expected {}", expected.join(" or ")))
    }
}

fn in_words(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => "a whole number".into(),
        "a sequence" => "a list".into(),
        "a map" => "a table".into(),
        structure if structure.starts_with("struct ") => "a table".into(),
        other => other.into(),
    }
}

fn kind_of(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Signed(number) if number < 0 => "a negative number",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Str(_) => "a string",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        _ => "something else",
    }
}

/// A value of the tree and where it stands.
struct Node<'a> {
    value: &'a Value,
    path: Vec<Step>,
    unknown: &'a RefCell<Vec<Finding>>,
}

impl<'a> Node<'a> {
    /// Lets serde read this value; an error that has no place yet happened here.
    fn read<'de, T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ReadError> {
        let (path, origin) = (self.path.clone(), self.value.origin());
        seed.deserialize(self)
            .map_err(|error| error.at(path, origin))
    }

    fn below(&self, step: Step, value: &'a Value) -> Self {
        let mut path = self.path.clone();
        path.push(step);
        Self {
            value,
            path,
            unknown: self.unknown,
        }
    }

    /// The text of a value that could only be given as text.
    fn text_only(&self) -> Option<&'a str> {
        match &self.value.kind {
            ValueKind::String(text) if self.value.origin().is_some_and(is_text_only) => Some(text),
            _ => None,
        }
    }

    fn entries(&self) -> Option<Vec<(&'a str, &'a Value)>> {
        let ValueKind::Table(table) = &self.value.kind else {
            return None;
        };
        let mut entries: Vec<_> = table
            .iter()
            .filter(|(_, value)| !matches!(value.kind, ValueKind::Nil))
            .map(|(key, value)| (key.as_str(), value))
            .collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        Some(entries)
    }

    fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.value.kind {
            ValueKind::Nil => visitor.visit_unit(),
            ValueKind::Boolean(value) => visitor.visit_bool(*value),
            ValueKind::I64(value) => match u64::try_from(*value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => visitor.visit_i64(*value),
            },
            ValueKind::U64(value) => visitor.visit_u64(*value),
            ValueKind::I128(_) | ValueKind::U128(_) => {
                Err(ReadError::custom("the number is too large"))
            }
            ValueKind::Float(value) => visitor.visit_f64(*value),
            ValueKind::String(value) => visitor.visit_str(value),
            ValueKind::Table(_) => self.visit_entries(self.entries().unwrap_or_default(), visitor),
            ValueKind::Array(values) => {
                let elements = values.iter().enumerate();
                let elements = elements.filter(|(_, value)| !matches!(value.kind, ValueKind::Nil));
                let nodes = elements
                    .map(|(index, value)| self.below(Step::Index(index), value))
                    .collect();
                visitor.visit_seq(Nodes(nodes))
            }
        }
    }

    fn visit_entries<'de, V: Visitor<'de>>(
        &self,
        entries: Vec<(&'a str, &'a Value)>,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let nodes = entries
            .into_iter()
            .map(|(key, value)| (key, self.below(Step::Key(key.to_owned()), value)))
            .rev()
            .collect();
        visitor.visit_map(Entries {
            left: nodes,
            value: None,
        })
    }

    /// A list given as text: its parts between commas, blanks around them and empty ones dropped.
    fn visit_list<'de, V: Visitor<'de>>(
        &self,
        text: &str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let parts: Vec<Value> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| Value::new(self.value.origin().map(str::to_owned).as_ref(), part))
            .collect();
        let nodes = parts
            .iter()
            .map(|part| Node {
                value: part,
                path: self.path.clone(),
                ..*self
            })
            .collect();
        visitor.visit_seq(Nodes(nodes))
    }

    fn note_unknown(&self, key: &str, value: &Value, fields: &[&str]) {
        let mut path = self.path.clone();
        path.push(Step::Key(key.to_owned()));
        let finding = Finding::unknown_key(&dotted(&path), fields, value.origin());
        self.unknown.borrow_mut().push(finding);
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
            match self.text_only().map(|text| text.trim().parse::<i64>()) {
                Some(Ok(number)) => visitor.visit_i64(number),
                Some(Err(_)) => Err(ReadError::custom("expected a whole number")),
                None => self.visit(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.visit(visitor)
    }

    numbers!(deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_i8
        deserialize_i16 deserialize_i32 deserialize_i64);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.text_only().map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "1") => visitor.visit_bool(true),
            Some("false" | "0") => visitor.visit_bool(false),
            Some(_) => Err(ReadError::custom("expected true or false")),
            None => self.visit(visitor),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.text_only() {
            Some(text) => self.visit_list(text, visitor),
            None => self.visit(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        if self.text_only().is_some_and(str::is_empty) {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let Some(entries) = self.entries() else {
            return self.deserialize_any(visitor);
        };
        let (known, unknown): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|(key, _)| fields.contains(key));
        for (key, value) in unknown {
            self.note_unknown(key, value, fields);
        }
        self.visit_entries(known, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.value.kind {
            ValueKind::String(name) => visitor.visit_enum(Name(name)),
            _ => self.visit(visitor),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct map
        identifier ignored_any
    }
}

/// Elements of a list, in order.
struct Nodes<'a>(VecDeque<Node<'a>>);

impl<'de> SeqAccess<'de> for Nodes<'_> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        self.0
            .pop_front()
            .map(|node| seed.deserialize(node))
            .transpose()
    }
}

/// Entries of a table, the next one last.
struct Entries<'a> {
    left: Vec<(&'a str, Node<'a>)>,
    value: Option<Node<'a>>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        let Some((key, node)) = self.left.pop() else {
            return Ok(None);
        };
        self.value = Some(node);
        let key: StrDeserializer<'_, ReadError> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        self.value
            .take()
            .expect("a value is asked for after its key")
            .read(seed)
    }
}

/// The name of a unit variant.
struct Name<'a>(&'a str);

impl<'de> EnumAccess<'de> for Name<'_> {
    type Error = ReadError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ReadError> {
        let name: StrDeserializer<'_, ReadError> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Name<'_> {
    type Error = ReadError;

    fn unit_variant(self) -> Result<(), ReadError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, ReadError> {
        Err(ReadError::custom("expected a name"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, ReadError> {
        Err(ReadError::custom("expected a name"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ReadError> {
        Err(ReadError::custom("expected a name"))
    }
}
