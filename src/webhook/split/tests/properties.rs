//! Properties that hold for every body, tested with random ones.

use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;

fn space() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,3}"
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,20})([.][0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
        Just("-0".into())
    ]
}

/// A string as it may occur in JSON: plain characters and escapes, including lone surrogates.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[^\"\\\\\u{0}-\u{1f}]{1,4}",
        1 => r#"\\["\\/bfnrt]"#,
        1 => r"\\u[0-9a-fA-F]{4}",
        1 => r"\\u[dD][89abcdefABCDEF][0-9a-fA-F]{2}",
    ];
    vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn key() -> impl Strategy<Value = String> {
    let known = [
        "id",
        "status",
        "type",
        "pastStatus",
        "creator",
        "company",
        "\\u0069d",
    ];
    prop_oneof![
        3 => prop::sample::select(known.to_vec()).prop_map(|name| format!("\"{name}\"")),
        1 => string(),
    ]
}

fn spaced(text: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (space(), text, space()).prop_map(|(before, text, after)| format!("{before}{text}{after}"))
}

/// Any JSON text, without space around it.
fn json() -> impl Strategy<Value = String> {
    let word = prop::sample::select(&["null", "true", "false"][..]).prop_map(String::from);
    let leaf = prop_oneof![word, number(), string()];
    leaf.prop_recursive(5, 40, 6, |value| {
        let array = vec(spaced(value.clone()), 0..5)
            .prop_map(|elements| format!("[{}]", elements.join(",")));
        let member =
            (spaced(key()), spaced(value)).prop_map(|(key, value)| format!("{key}:{value}"));
        let object = vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(",")));
        prop_oneof![array, object]
    })
}

/// A session with random other members, which the strategy above rarely generates.
fn session() -> impl Strategy<Value = String> {
    let members = vec((key(), json()), 0..4);
    (
        "[a-z0-9-]{1,12}",
        "[a-z]{0,9}",
        members,
        any::<prop::sample::Index>(),
    )
        .prop_map(|(id, status, members, index)| {
            let mut members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{key}:{value}"))
                .collect();
            members.insert(index.index(members.len() + 1), format!("\"id\":\"{id}\""));
            members.push(format!("\"status\" : \"{status}\""));
            format!("{{{}}}", members.join(", "))
        })
}

/// Bytes that are almost JSON: a text with a few bytes changed, removed or inserted.
fn almost_json() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        prop::sample::select(&b"[]{}\",:\\ue0-. \n"[..]),
        any::<u8>()
    ];
    let change = (any::<prop::sample::Index>(), 0..3_u8, byte);
    (json(), vec(change, 0..4)).prop_map(|(text, changes)| {
        let mut bytes = format!("[{text}]").into_bytes();
        for (index, change, byte) in changes {
            let at = index.index(bytes.len());
            match change {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ if bytes.len() > 1 => _ = bytes.remove(at),
                _ => {}
            }
        }
        bytes
    })
}

/// `id` and `status` as `Value` reads them; `None` if it cannot represent this text.
fn by_value(element: &str) -> Option<(String, String)> {
    let value: Value = serde_json::from_str(element).ok()?;
    let text = |name: &str| value.get(name)?.as_str().map(String::from);
    Some((text("id")?, text("status")?))
}

proptest! {
    #[test]
    fn every_element_is_one_unchanged_event(
        elements in vec(prop_oneof![json(), session()], 0..8),
        spaces in vec((space(), space()), 8),
        has_mark in any::<bool>(),
        after in space(),
    ) {
        let spaced: Vec<_> = elements
            .iter()
            .zip(&spaces)
            .map(|(element, (before, after))| format!("{before}{element}{after}"))
            .collect();
        let mark = if has_mark { "\u{feff}" } else { "" };
        let body = format!("{mark}{after}[{}]{after}", spaced.join(","));
        let webhook = samples::webhook(body);
        prop_assert!(webhook.malformed().is_none());
        prop_assert_eq!(webhook.events.len(), elements.len());
        for ((index, element), event) in (0..).zip(&elements).zip(&webhook.events) {
            prop_assert_eq!(event.index, index);
            prop_assert_eq!(&*event.body, element.as_bytes());
            prop_assert!(crate::webhook::identity::is_intact(event));
        }
    }

    /// `Value` accepts fewer texts: it refuses numbers beyond `f64` and lone surrogates, and uses
    /// the last of two members. If both accept an element, they agree.
    #[test]
    fn parsed_session_agrees_with_serde_json(element in prop_oneof![json(), session()]) {
        let [verdict] = <[_; 1]>::try_from(verdicts(format!("[{element}]"))).unwrap();
        match (verdict, by_value(&element)) {
            (Ok(fields), Some((id, status))) => {
                prop_assert_eq!(&*fields.session, id);
                prop_assert_eq!(fields.status, status);
            }
            (Ok(_), None) => {
                prop_assert!(serde_json::from_str::<Value>(&element).is_err(), "{}", element);
            }
            (Err(detail), Some((id, _))) => {
                prop_assert!(id.is_empty() || detail.starts_with("duplicate"), "{}", detail);
            }
            (Err(_), None) => {}
        }
    }

    #[test]
    fn only_invalid_json_is_malformed(body in almost_json()) {
        let is_json = std::str::from_utf8(&body).is_ok()
            && serde_json::from_slice::<IgnoredAny>(&body).is_ok();
        let is_body = is_json && matches!(body.trim_ascii_start()[0], b'[' | b'{');
        let webhook = samples::webhook(body.clone());
        prop_assert_eq!(webhook.malformed().is_none(), is_body);
        if !is_body {
            prop_assert_eq!(&*webhook.events[0].body, &*body);
        }
    }

    #[test]
    fn any_json_value_is_a_well_formed_body(body in almost_json()) {
        if let Ok(Value::Array(_) | Value::Object(_)) = serde_json::from_slice(&body) {
            prop_assert!(samples::webhook(body).malformed().is_none());
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(body in vec(any::<u8>(), 0..200)) {
        let webhook = samples::webhook(body.clone());
        if webhook.malformed().is_some() {
            prop_assert_eq!(&*webhook.events[0].body, &*body);
        }
    }
}
