//! A JSON string without its escapes. An escape may stand for half of a surrogate pair, which no
//! text can hold; `serde_json` hands such a string over if it is asked for bytes, with the half as
//! three bytes of which the first is `ED`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// The bytes a JSON string stands for.
pub struct Unescaped(Vec<u8>);

impl Unescaped {
    /// Unescapes a valid JSON text. `None` if it is not a string.
    pub fn of(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is this text.
    pub fn is(&self, text: &str) -> bool {
        self.0 == text.as_bytes()
    }

    /// The text, if no half of a surrogate pair is in it.
    pub fn exact(self) -> Option<String> {
        String::from_utf8(self.0).ok()
    }

    /// The text, with U+FFFD for every half of a surrogate pair.
    pub fn lossy(self) -> String {
        String::from_utf8(self.0).unwrap_or_else(|error| replace_halves(error.as_bytes()))
    }
}

fn replace_halves(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        // The two bytes behind `ED` are invalid chunks of their own.
        if chunk.invalid().first() == Some(&0xED) {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

impl<'de> Deserialize<'de> for Unescaped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(UnescapedVisitor)
    }
}

struct UnescapedVisitor;

impl Visitor<'_> for UnescapedVisitor {
    type Value = Unescaped;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Unescaped, E> {
        Ok(Unescaped(bytes.to_vec()))
    }
}
