//! Finds all strings of a JSON text, at any depth. The text is known to be valid; an invalid text
//! would yield wrong strings, but cause no other harm.

use std::borrow::Cow;

use super::text::{lossy, unescaped};
use super::walk::Walk;

/// Calls `take` with the key that was read last and each string value, unescaped. The key is that
/// of the value's member, or of the array that contains the value.
pub fn each_value<'a>(text: &'a str, mut take: impl FnMut(&'a str, Cow<'a, str>)) {
    let mut walk = Walk::through(text);
    let mut key = "";
    while let Some(string) = walk.string() {
        let inside = string.get(1..string.len() - 1).unwrap_or_default();
        if walk.steps_over(b':') {
            key = inside;
        } else if inside.contains('\\') {
            let unescaped = unescaped(string).map(lossy);
            take(key, unescaped.unwrap_or_default().into());
        } else {
            take(key, inside.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[(&str, &str)]) {
        let mut found = Vec::new();
        each_value(text, |key, value| {
            found.push((key.to_owned(), value.into_owned()));
        });
        let found: Vec<_> = found
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn every_string_value_is_found_with_its_key() {
        check("{}", &[]);
        check("7", &[]);
        check(r#""alone""#, &[("", "alone")]);
        check(
            r#"{"a" : "x", "b": [1, "y", {"c":"z"}], "d":{"e":null}, "f":""}"#,
            &[("a", "x"), ("b", "y"), ("c", "z"), ("f", "")],
        );
        check(r#"{"a":"\"q\" \u00e9\ud800"}"#, &[("a", "\"q\" é\u{fffd}")]);
    }

    #[test]
    fn invalid_json_is_tolerated() {
        check(r#"{"a":"x"#, &[("a", "")]);
        check(r#"{"a":"x\"#, &[("a", "x")]);
        check("\"", &[("", "")]);
    }
}
