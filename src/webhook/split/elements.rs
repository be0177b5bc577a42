//! Where the elements of a body begin and end. One pass over the bytes for UTF-8 and one for
//! JSON, whatever they are; nothing is decoded.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::kind::kind;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Why a body has no elements.
pub enum Refusal {
    /// It has more than are allowed.
    TooMany,
    /// It is not JSON, or neither array nor object; for people.
    Malformed(String),
}

/// The text of every element, as it stands in the body.
///
/// # Errors
/// Too many elements win over what is wrong behind them.
pub fn elements(body: &[u8], sessions_max: usize) -> Result<Vec<&str>, Refusal> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|error| {
        let position = Position::after(&body[..error.valid_up_to()]);
        Refusal::Malformed(format!("invalid UTF-8 at {position}"))
    })?;
    let start = text.trim_ascii_start();
    if start.starts_with('[') {
        array(text, sessions_max)
    } else {
        let value: &RawValue = serde_json::from_str(text).map_err(|error| syntax(&error))?;
        let position = Position::after(&body[..text.len() - start.len()]);
        object(value.get(), &position, sessions_max)
    }
}

fn array(text: &str, sessions_max: usize) -> Result<Vec<&str>, Refusal> {
    let mut elements = Elements {
        texts: Vec::new(),
        sessions_max,
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let result = deserializer
        .deserialize_seq(&mut elements)
        .and_then(|()| deserializer.end());
    match result {
        _ if elements.texts.len() > sessions_max => Err(Refusal::TooMany),
        Ok(()) => Ok(elements.texts),
        Err(error) => Err(syntax(&error)),
    }
}

/// A bare object is its own only element.
fn object<'a>(
    text: &'a str,
    position: &Position,
    sessions_max: usize,
) -> Result<Vec<&'a str>, Refusal> {
    if !text.starts_with('{') {
        let kind = kind(text);
        let detail = format!("neither an array nor an object but {kind} at {position}");
        return Err(Refusal::Malformed(detail));
    }
    if sessions_max == 0 {
        return Err(Refusal::TooMany);
    }
    Ok(vec![text])
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

fn syntax(error: &serde_json::Error) -> Refusal {
    Refusal::Malformed(error.to_string())
}

/// Where something stands in a body, written as `serde_json` writes it.
struct Position {
    line: usize,
    /// In bytes, from 1.
    column: usize,
}

impl Position {
    fn after(bytes: &[u8]) -> Self {
        let line_start = memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1);
        let line = memchr::memchr_iter(b'\n', bytes).count() + 1;
        Self {
            line,
            column: bytes.len() - line_start + 1,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {} column {}", self.line, self.column)
    }
}
