//! A JSON string without its escapes. An escape may represent half of a surrogate pair, which no
//! UTF-8 text can contain. `serde_json` returns such a string only as bytes, with the half as three
//! bytes of which the first is `ED`.

use std::fmt;

use serde::de::{Deserializer as _, Error, Visitor};
use serde_json::Deserializer;

/// The bytes that a valid JSON text represents. `None` if it is not a string.
pub fn unescaped(json: &str) -> Option<Vec<u8>> {
    Deserializer::from_str(json).deserialize_bytes(Bytes).ok()
}

/// The text of unescaped bytes, with U+FFFD for every half of a surrogate pair.
pub fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| replace_halves(error.as_bytes()))
}

fn replace_halves(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        // The two bytes after `ED` are separate invalid chunks.
        if chunk.invalid().first() == Some(&0xED) {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    text
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}
