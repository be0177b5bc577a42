//! Escaping of foreign text before people see it. Characters that a terminal would interpret or
//! hide are made visible: those of the Unicode categories Cc, Cf, Zl and Zp, which are control
//! characters, bidirectional and zero-width characters, and line and paragraph separators.

use std::borrow::Cow;
use std::fmt::Write;

use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;

/// Escapes text for a single line: `a\nb\u{202e}`.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_unsafe, |out, c| out.extend(c.escape_default()))
}

/// Escapes text for several lines: like [`line`], but line breaks and tabs are kept.
#[must_use]
pub fn block(text: &str) -> Cow<'_, str> {
    let is_escaped = |c| is_unsafe(c) && !matches!(c, '\n' | '\t');
    escaped(text, is_escaped, |out, c| out.extend(c.escape_default()))
}

/// Escapes these characters in valid JSON as `\u202e`. The JSON value does not change.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    // Of the characters below the space, valid JSON contains only line breaks and tabs, and these
    // only between tokens.
    let is_escaped = |c| c > ' ' && is_unsafe(c);
    escaped(text, is_escaped, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn is_unsafe(c: char) -> bool {
    if matches!(c, ' '..='~') {
        return false;
    }
    matches!(
        CodePointMapData::<GeneralCategory>::new().get(c),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    )
}

fn escaped(
    text: &str,
    is_escaped: impl Fn(char) -> bool,
    escape: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    let Some(first) = text.find(&is_escaped) else {
        return text.into();
    };
    let mut out = text[..first].to_owned();
    for c in text[first..].chars() {
        if is_escaped(c) {
            escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// One of each kind: C0, DEL, C1, soft hyphen, bidirectional, zero-width, separators, a tag.
    const UNSAFE: [char; 12] = [
        '\u{1b}',
        '\r',
        '\u{7f}',
        '\u{9b}',
        '\u{ad}',
        '\u{200b}',
        '\u{202e}',
        '\u{2028}',
        '\u{2029}',
        '\u{2066}',
        '\u{feff}',
        '\u{e0041}',
    ];

    #[test]
    fn unsafe_characters_are_escaped_visibly() {
        for c in UNSAFE {
            let text = format!("é{c}日本 👍🏽");
            for shown in [line(&text), block(&text)] {
                let expected = format!("é{}日本 👍🏽", c.escape_default());
                assert_eq!(shown, expected);
            }
        }
        assert_eq!(line("a\nb\tc\u{202e}"), "a\\nb\\tc\\u{202e}");
        assert_eq!(block("a\nb\tc\u{9b}"), "a\nb\tc\\u{9b}");
        assert!(matches!(line("plain, näive, 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_keeps_its_layout() {
        let text = "{\n\t\"a\u{202e}\": \"\u{e0041}\u{7f}\"\r\n}";
        let expected = "{\n\t\"a\\u202e\": \"\\udb40\\udc41\\u007f\"\r\n}";
        assert_eq!(json(text), expected);
    }

    proptest! {
        #[test]
        fn json_is_equal_and_safe(
            text in proptest::collection::vec(prop_oneof![
                any::<char>(),
                proptest::sample::select(UNSAFE.to_vec()),
            ], 0..40),
        ) {
            let value = Value::from(text.into_iter().collect::<String>());
            let shown = value.to_string();
            let shown = json(&shown);
            prop_assert!(!shown.contains(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), value);
        }

        #[test]
        fn no_unsafe_character_is_left(text in any::<String>()) {
            prop_assert!(!line(&text).contains(is_unsafe));
        }
    }
}
