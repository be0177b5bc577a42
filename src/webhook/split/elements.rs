//! Finds where the elements of a body begin and end. One pass over the bytes for UTF-8 and one for
//! JSON, whatever the bytes are; nothing is decoded.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::kind::kind;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Why a body has no elements.
pub enum NoElements {
    /// It has more than are allowed.
    TooMany,
    /// It is not JSON, or neither array nor object; with a description for people.
    Malformed(String),
}

/// The text of every element, exactly as in the body.
///
/// # Errors
/// [`NoElements`]. Too many elements take precedence over an error after them.
pub fn elements(body: &[u8], sessions_max: usize) -> Result<Vec<&str>, NoElements> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|error| {
        let position = position_after(&body[..error.valid_up_to()]);
        NoElements::Malformed(format!("invalid UTF-8 at {position}"))
    })?;
    let start = text.len() - text.trim_ascii_start().len();
    if text[start..].starts_with('[') {
        return array(text, sessions_max);
    }
    let value: &RawValue = serde_json::from_str(text).map_err(|error| syntax(&error))?;
    let value = value.get();
    if !value.starts_with('{') {
        let (kind, position) = (kind(value), position_after(&body[..start]));
        let detail = format!("neither an array nor an object but {kind} at {position}");
        return Err(NoElements::Malformed(detail));
    }
    if sessions_max == 0 {
        return Err(NoElements::TooMany);
    }
    Ok(vec![value])
}

fn array(text: &str, sessions_max: usize) -> Result<Vec<&str>, NoElements> {
    let mut elements = Elements {
        texts: Vec::new(),
        sessions_max,
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let result = deserializer
        .deserialize_seq(&mut elements)
        .and_then(|()| deserializer.end());
    match result {
        _ if elements.texts.len() > sessions_max => Err(NoElements::TooMany),
        Ok(()) => Ok(elements.texts),
        Err(error) => Err(syntax(&error)),
    }
}

/// Collects element texts, at most one more than allowed.
struct Elements<'a> {
    texts: Vec<&'a str>,
    sessions_max: usize,
}

impl<'a> Visitor<'a> for &mut Elements<'a> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element::<&RawValue>()? {
            self.texts.push(element.get());
            if self.texts.len() > self.sessions_max {
                return Err(A::Error::custom("too many elements"));
            }
        }
        Ok(())
    }
}

fn syntax(error: &serde_json::Error) -> NoElements {
    NoElements::Malformed(error.to_string())
}

/// The position after these bytes, as `serde_json` writes it: columns are bytes, from 1.
fn position_after(bytes: &[u8]) -> String {
    let line_start = memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1);
    let line = memchr::memchr_iter(b'\n', bytes).count() + 1;
    format!("line {line} column {}", bytes.len() - line_start + 1)
}
