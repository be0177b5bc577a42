//! Guesses from the first element why no element of a webhook is a valid session, for people who
//! must find out what a sender has changed. Repeats plain names of members, but no values.

use super::kind::kind;
use super::members::members;
use super::text::unescaped;
use super::walk::Walk;
use crate::webhook::{Content, DeadLetterReason, Webhook};

/// Maximum length of a member's name that is repeated in a message, in bytes.
const NAME_BYTES_MAX: usize = 40;

/// Maximum number of members of an element that are examined.
const MEMBERS_MAX: usize = 1000;

/// The probable mistake in a webhook; `None` if its first element is valid or it has no element.
#[must_use]
pub fn likeliest(webhook: &Webhook) -> Option<String> {
    let event = webhook.events.first()?;
    let Content::Reject(reject) = &event.content else {
        return None;
    };
    let guess = match reject.reason {
        DeadLetterReason::Malformed => body(&event.body),
        _ => std::str::from_utf8(&event.body).ok().and_then(element),
    };
    let detail = &reject.detail;
    Some(guess.map_or_else(|| detail.clone(), |guess| format!("{guess} ({detail})")))
}

fn body(bytes: &[u8]) -> Option<String> {
    let known = match bytes {
        [0x1f, 0x8b, ..] => "the body looks like gzip; send it uncompressed",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'[' | b'{', 0, ..] | [0, b'[' | b'{', ..] => {
            "the body looks like UTF-16; send UTF-8"
        }
        _ => match bytes.trim_ascii_start() {
            [b'<', ..] => "the body looks like XML or HTML; send JSON",
            [b'"', ..] => "the body is a string; is the JSON encoded twice?",
            text if is_form(text) => "the body looks like a form; send JSON",
            _ => return None,
        },
    };
    Some(known.to_owned())
}

/// `name=…`, as browsers send forms.
fn is_form(text: &[u8]) -> bool {
    let end = text.iter().position(|byte| *byte == b'=');
    end.is_some_and(|end| {
        (1..=NAME_BYTES_MAX).contains(&end)
            && text[..end]
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-[]%".contains(byte))
    })
}

/// Guesses the mistake in an element, whose text is known to be valid JSON.
fn element(text: &str) -> Option<String> {
    match text.as_bytes().first()? {
        b'"' => Some("the elements are strings; are they JSON encoded twice?".into()),
        b'[' => Some("the elements are arrays; is there one array too many?".into()),
        b'{' => object(text),
        _ => None,
    }
}

fn object(text: &str) -> Option<String> {
    let [id, status] = members(text, ["id", "status"])?.members;
    let mut missing = vec![("id", id), ("status", status)];
    missing.retain(|(_, member)| member.value.is_none());
    if missing.is_empty() {
        return None;
    }
    let found = names_and_values(text);
    let named = |is_similar: fn(&str, &str) -> bool| {
        missing.iter().find_map(|(name, _)| {
            let (found, _) = found.iter().find(|(found, _)| is_similar(found, name))?;
            Some(format!("`{found}` instead of `{name}`"))
        })
    };
    let wrapped = || {
        let (name, value) = found.iter().find(|(_, value)| holds_sessions(value))?;
        let kind = kind(value);
        Some(format!(
            "the sessions are wrapped in {kind} under `{name}`; send the array of sessions alone"
        ))
    };
    named(str::eq_ignore_ascii_case)
        .or_else(wrapped)
        .or_else(|| named(|found, name| found.to_ascii_lowercase().ends_with(name)))
}

/// Whether a value is a session, or an array that begins with one.
fn holds_sessions(value: &str) -> bool {
    let mut walk = Walk::through(value);
    let is_array = walk.steps_over(b'[');
    let first = if is_array { walk.value() } else { Some(value) };
    let found = first.and_then(|first| members(first, ["id", "status"]));
    found.is_some_and(|found| found.members.iter().all(|member| member.value.is_some()))
}

/// The members of an object whose names can be repeated in a log.
fn names_and_values(text: &str) -> Vec<(String, &str)> {
    let mut walk = Walk::through(text);
    walk.steps_over(b'{');
    let members = std::iter::from_fn(|| walk.member()).take(MEMBERS_MAX);
    members
        .filter_map(|(name, value)| Some((plain(name)?, value)))
        .collect()
}

fn plain(name: &str) -> Option<String> {
    if name.len() > NAME_BYTES_MAX + 2 {
        return None;
    }
    let name = String::from_utf8(unescaped(name)?).ok()?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (!name.is_empty() && name.bytes().all(is_plain)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::samples;

    fn check(body: &[u8], expected: &str) {
        let webhook = samples::webhook(body.to_vec());
        let said = likeliest(&webhook).unwrap_or_default();
        assert!(said.contains(expected), "{said}, not {expected}");
    }

    #[test]
    fn member_in_another_case_is_named() {
        check(
            br#"[{"Id":"1","Status":"created"}]"#,
            "`Id` instead of `id`",
        );
        check(
            br#"[{"id":"1","STATUS":"created"}]"#,
            "`STATUS` instead of `status`",
        );
        check(br#"[{"\u0049d":"1","status":"x"}]"#, "`Id` instead of `id`");
    }

    #[test]
    fn sessions_in_a_wrapper_are_found() {
        let session = r#"{"id":"1","status":"created"}"#;
        let wrapped = format!(r#"{{"count":1,"sessions":[{session}]}}"#);
        check(wrapped.as_bytes(), "wrapped in an array under `sessions`");
        let wrapped = format!(r#"[{{"data":{session}}}]"#);
        check(wrapped.as_bytes(), "wrapped in an object under `data`");
    }

    #[test]
    fn member_with_a_similar_name_is_named() {
        check(
            br#"[{"sessionId":"1","status":"x"}]"#,
            "`sessionId` instead of `id`",
        );
        check(
            br#"[{"id":"1","chatStatus":"x"}]"#,
            "`chatStatus` instead of `status`",
        );
    }

    #[test]
    fn other_formats_are_recognised() {
        check(b"\x1f\x8b\x08\0", "gzip");
        check(b"\xff\xfe[\0]\0", "UTF-16");
        check(b"[\0]\0", "UTF-16");
        check(b" <html>", "XML or HTML");
        check(b"payload=%5B%5D", "a form");
        check(br#""[{\"id\":1}]""#, "encoded twice");
        check(br#"["{\"id\":1}"]"#, "encoded twice");
        check(br#"[[{"id":"1","status":"x"}]]"#, "one array too many");
    }

    #[test]
    fn without_a_guess_the_error_is_stated() {
        check(
            br#"[{"id":7,"status":"x"}]"#,
            "`id` is not a string but a number",
        );
        check(b"[{}]", "missing field `id`");
        check(b"[7]", "not an object but a number");
        check(b"[", "line 1");
        let nothing = samples::webhook("[]");
        assert_eq!(likeliest(&nothing), None);
    }

    #[test]
    fn session_text_is_not_repeated() {
        for name in [
            "what he said",
            "Id\u{202e}",
            "\u{1b}[31mid",
            &"id".repeat(99),
        ] {
            let body = serde_json::json!([{ name: "secret words" }]).to_string();
            let said = likeliest(&samples::webhook(body)).unwrap();
            assert_eq!(said, "missing field `id`");
        }
    }
}
