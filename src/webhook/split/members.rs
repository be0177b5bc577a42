//! Looks up members of a JSON object, and the last element of an array, without decoding
//! anything but keys. Values are slices of the text, so no number, escape or shape in them can
//! fail, and a million keys cost a million comparisons. The text is known to be valid.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What an object has under one name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Member<'a> {
    /// The value's text; of several the last one.
    pub value: Option<&'a str>,
    /// Whether there are several.
    pub is_repeated: bool,
}

/// The members of these names, compared after unescaping. `None` if this is not an object.
pub fn members<'a, const N: usize>(text: &'a str, names: [&str; N]) -> Option<[Member<'a>; N]> {
    serde_json::Deserializer::from_str(text)
        .deserialize_map(Members(names))
        .ok()
}

/// The text of the last element, if this is an array that has one.
pub fn last_element(text: &str) -> Option<&str> {
    serde_json::Deserializer::from_str(text)
        .deserialize_seq(LastElement)
        .ok()
        .flatten()
}

struct Members<'n, const N: usize>([&'n str; N]);

impl<'a, const N: usize> Visitor<'a> for Members<'_, N> {
    type Value = [Member<'a>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = [Member::default(); N];
        while let Some(found) = object.next_key_seed(Name(&self.0))? {
            let Some(index) = found else {
                object.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = object.next_value::<&RawValue>()?.get();
            let is_repeated = members[index].value.is_some();
            members[index] = Member {
                value: Some(value),
                is_repeated,
            };
        }
        Ok(members)
    }
}

/// Finds a key among names. Asks for bytes: as text, half of a surrogate pair would be an error.
struct Name<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_bytes<E: Error>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|name| name.as_bytes() == key))
    }
}

struct LastElement;

impl<'a> Visitor<'a> for LastElement {
    type Value = Option<&'a str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut last = None;
        while let Some(element) = array.next_element::<&RawValue>()? {
            last = Some(element.get());
        }
        Ok(last)
    }
}
