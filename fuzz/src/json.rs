//! An independent JSON reader, written from RFC 8259 without code of the bridge's parser: where
//! values end, how deep they are, which members an object has.

use std::ops::Range;

/// How the bridge must split a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Expected {
    /// Not JSON, or neither an array nor an object.
    Malformed,
    /// The array has more elements than allowed.
    TooMany,
    /// The byte ranges of the elements.
    Elements(Vec<Range<usize>>),
}

/// Computes how the bridge must split a body.
#[must_use]
pub fn expected(body: &[u8], sessions_max: usize) -> Expected {
    let mark = if body.starts_with(b"\xef\xbb\xbf") {
        3
    } else {
        0
    };
    if std::str::from_utf8(body).is_err() {
        return Expected::Malformed;
    }
    let start = space(body, mark);
    if body.get(start) == Some(&b'[') {
        return elements(body, start + 1, sessions_max);
    }
    match value_end(body, start) {
        Some(end) if space(body, end) == body.len() && body[start] == b'{' => match sessions_max {
            0 => Expected::TooMany,
            _ => Expected::Elements(std::iter::once(start..end).collect()),
        },
        _ => Expected::Malformed,
    }
}

fn elements(body: &[u8], at: usize, sessions_max: usize) -> Expected {
    let mut found = Vec::new();
    let mut at = space(body, at);
    if body.get(at) == Some(&b']') {
        at += 1;
    } else {
        loop {
            let start = space(body, at);
            let Some(end) = value_end(body, start) else {
                return Expected::Malformed;
            };
            found.push(start..end);
            if found.len() > sessions_max {
                return Expected::TooMany;
            }
            at = space(body, end);
            match body.get(at) {
                Some(b',') => at += 1,
                Some(b']') => break at += 1,
                _ => return Expected::Malformed,
            }
        }
    }
    if space(body, at) == body.len() {
        Expected::Elements(found)
    } else {
        Expected::Malformed
    }
}

/// The position after white space.
fn space(text: &[u8], at: usize) -> usize {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let length = text[at..].iter().take_while(|byte| is_space(byte)).count();
    at + length
}

/// The position after the value that begins at `at`; `None` if it is not valid JSON.
#[must_use]
pub fn value_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut open = Vec::new();
    loop {
        match text.get(at)? {
            bracket @ (b'[' | b'{') => {
                let close = if *bracket == b'[' { b']' } else { b'}' };
                at = space(text, at + 1);
                if *text.get(at)? == close {
                    at += 1;
                } else {
                    open.push(close);
                    if close == b'}' {
                        at = member_value(text, at)?;
                    }
                    continue;
                }
            }
            b'"' => at = string_end(text, at)?,
            b'-' | b'0'..=b'9' => at = number_end(text, at)?,
            _ => {
                let words: [&[u8]; 3] = [b"null", b"true", b"false"];
                let word = words.iter().find(|word| text[at..].starts_with(word))?;
                at += word.len();
            }
        }
        loop {
            let Some(close) = open.last() else {
                return Some(at);
            };
            at = space(text, at);
            match text.get(at)? {
                b',' => {
                    at = space(text, at + 1);
                    if *close == b'}' {
                        at = member_value(text, at)?;
                    }
                    break;
                }
                byte if byte == close => at += 1,
                _ => return None,
            }
            open.pop();
        }
    }
}

/// The position of the value of the member whose key begins at `at`.
fn member_value(text: &[u8], at: usize) -> Option<usize> {
    let colon = space(text, string_end(text, at)?);
    (*text.get(colon)? == b':').then(|| space(text, colon + 1))
}

fn string_end(text: &[u8], at: usize) -> Option<usize> {
    if *text.get(at)? != b'"' {
        return None;
    }
    let mut at = at + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            0..=0x1f => return None,
            b'\\' => match text.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => at += 2,
                b'u' => {
                    let digits = text.get(at + 2..at + 6)?;
                    if !digits.iter().all(u8::is_ascii_hexdigit) {
                        return None;
                    }
                    at += 6;
                }
                _ => return None,
            },
            _ => at += 1,
        }
    }
}

fn number_end(text: &[u8], mut at: usize) -> Option<usize> {
    let digits = |at: usize| {
        let length = text[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        (length > 0).then_some(at + length)
    };
    if text[at] == b'-' {
        at += 1;
    }
    at = match text.get(at)? {
        b'0' if text.get(at + 1).is_some_and(u8::is_ascii_digit) => return None,
        b'0' => at + 1,
        _ => digits(at)?,
    };
    if text.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        at += 1;
        if matches!(text.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        at = digits(at)?;
    }
    Some(at)
}

/// Nesting depth of a valid value; 0 for a scalar.
#[must_use]
pub fn depth(text: &[u8]) -> usize {
    let (mut level, mut deepest, mut at) = (0_usize, 0, 0);
    while at < text.len() {
        match text[at] {
            b'[' | b'{' => level += 1,
            b']' | b'}' => level -= 1,
            b'"' => {
                at = string_end(text, at).expect("a valid text");
                continue;
            }
            _ => {}
        }
        deepest = deepest.max(level);
        at += 1;
    }
    deepest
}

/// The members of a valid object, keys unescaped; `None` for any other value.
#[must_use]
pub fn members(text: &[u8]) -> Option<Vec<(Vec<u16>, &[u8])>> {
    if text.first() != Some(&b'{') {
        return None;
    }
    let mut found = Vec::new();
    let mut at = space(text, 1);
    while text[at] != b'}' {
        let key_end = string_end(text, at).expect("a valid text");
        let value = member_value(text, at).expect("a valid text");
        let end = value_end(text, value).expect("a valid text");
        found.push((string(&text[at..key_end])?, &text[value..end]));
        at = space(text, end);
        if text[at] == b',' {
            at = space(text, at + 1);
        }
    }
    Some(found)
}

/// The last element of a valid array that has one.
#[must_use]
pub fn last_element(text: &[u8]) -> Option<&[u8]> {
    if text.first() != Some(&b'[') {
        return None;
    }
    match elements(text, 1, usize::MAX) {
        Expected::Elements(all) => all.last().map(|range| &text[range.clone()]),
        _ => unreachable!("a valid text"),
    }
}

/// The UTF-16 code units of a valid string, possibly with lone surrogates; `None` for other values.
#[must_use]
pub fn string(text: &[u8]) -> Option<Vec<u16>> {
    let inside = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut chars = std::str::from_utf8(inside).ok()?.chars();
    let mut units = Vec::new();
    while let Some(char) = chars.next() {
        if char != '\\' {
            units.extend_from_slice(char.encode_utf16(&mut [0; 2]));
            continue;
        }
        units.push(match chars.next()? {
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'u' => {
                let digits: String = chars.by_ref().take(4).collect();
                u16::from_str_radix(&digits, 16).ok()?
            }
            itself => u16::try_from(u32::from(itself)).ok()?,
        });
    }
    Some(units)
}
