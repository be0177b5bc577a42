//! Texts that a JSON parser must accept, and texts it must reject, at six places of a webhook.

use super::*;

/// Valid JSON texts. The first column is the name of the kind, which determines whether the text
/// can be a body, an element, an id or a status.
const VALID: &[(&str, &str)] = &[
    ("null", "null"),
    ("a boolean", "true"),
    ("a boolean", "false"),
    ("a number", "0"),
    ("a number", "-0"),
    ("a number", "-0.0e-0"),
    ("a number", "1e999"),
    ("a number", "-1E+9999"),
    ("a number", "123.456e78"),
    ("a number", "10000000000000000999"),
    ("a number", "1.000000000000000005"),
    (
        "a number",
        "0.1000000000000000055511151231257827021181583404541015625",
    ),
    ("an array", "[]"),
    ("an array", "[ \t\r\n]"),
    ("an array", "[[[[]]],[null]]"),
    ("an array", "[1 , 2]"),
    ("an object", "{}"),
    ("an object", "{ }"),
    ("an object", r#"{"":0}"#),
    ("an object", r#"{"a":1,"a":2}"#),
    ("an object", r#"{"\ud800":"\udfff"}"#),
    ("an object", r#"{"$serde_json::private::RawValue":"[]"}"#),
    ("an object", r#"{"$serde_json::private::Number":"1"}"#),
    ("a string", r#""plain""#),
    ("a string", r#""\u0000""#),
    ("a string", r#""\"\\\/\b\f\n\r\t""#),
    ("a string", r#""\uD83D\uDE00 \u00e9""#),
    (
        "a string",
        "\"\u{7f}\u{2028}\u{2029}\u{feff}\u{ffff}\u{10ffff}\"",
    ),
    ("a string", r#""[{]}\"[""#),
    ("a string", "\"\u{ce} AMQP\\u0000\""),
];

/// Texts that are not JSON at any place of a webhook.
const INVALID: &[&[u8]] = &[
    b"nul",
    b"NULL",
    b"nan",
    b"Infinity",
    b"-Infinity",
    b"undefined",
    b"truefalse",
    b"01",
    b"-",
    b"-01",
    b"+1",
    b".5",
    b"1.",
    b"1e",
    b"1e+",
    b"0x10",
    b"1_000",
    b"--1",
    b"[",
    b"[1",
    b"[1,",
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b"[1}",
    b"{",
    b"{\"a\"",
    b"{\"a\":",
    b"{\"a\":1",
    b"{\"a\":1,}",
    b"{\"a\" 1}",
    b"{\"a\":1 \"b\":2}",
    b"{a:1}",
    b"{'a':1}",
    b"{1:1}",
    b"{null:1}",
    b"{\"a\":}",
    b"{\"a\":1]",
    b"{\"a\":1,,\"b\":2}",
    b"'a'",
    b"\"",
    b"\"a",
    b"\"\\\"",
    b"\"\\x41\"",
    b"\"\\u12\"",
    b"\"\\u12g4\"",
    b"\"\\U0041\"",
    b"\"\t\"",
    b"\"\n\"",
    b"\"\x00\"",
    b"\"\x1f\"",
    b"/* comment */ 1",
    b"1 // comment",
    b"\x0c1",
    b"\xc2\xa01",
    b"\xef\xbb\xbf1",
    b"\x00",
    b"\"\xff\"",
    b"\"\xc0\xaf\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xf4\x90\x80\x80\"",
    b"\"\xe6\x97\"",
    b"\x801",
    b"[\0n\0u\0l\0l\0]\0",
];

const GOOD: &str = r#"{"id":"a","status":"b"}"#;

/// An element whose member `name` has this text as its value.
fn as_member(name: &str, text: &[u8]) -> Vec<u8> {
    let others = match name {
        "id" => r#""status":"b""#,
        "status" => r#""id":"a""#,
        _ => r#""id":"a","status":"b""#,
    };
    [
        b"{",
        others.as_bytes(),
        b", \"",
        name.as_bytes(),
        b"\" : ",
        text,
        b" }",
    ]
    .concat()
}

fn second_of_three(text: &[u8]) -> Vec<u8> {
    [
        b"[",
        GOOD.as_bytes(),
        b", ",
        text,
        b" ,",
        GOOD.as_bytes(),
        b"]",
    ]
    .concat()
}

fn is_malformed(body: Vec<u8>) -> bool {
    let body = Bytes::from(body);
    let webhook = samples::webhook(body.clone());
    let is_malformed = webhook.malformed().is_some();
    assert!(!is_malformed || (webhook.events.len() == 1 && webhook.events[0].body == body));
    is_malformed
}

#[test]
fn valid_arrays_and_objects_are_bodies() {
    for (kind, text) in VALID {
        let is_body = ["an array", "an object"].contains(kind);
        assert_eq!(is_malformed(text.as_bytes().to_vec()), !is_body, "{text}");
    }
}

#[test]
fn valid_text_is_one_element_anywhere() {
    for (kind, text) in VALID {
        let detail = match *kind {
            "an object" => "missing field `id`".into(),
            kind => format!("not an object but {kind}"),
        };
        assert_eq!(bodies(format!("[{text}]")), [text]);
        assert_eq!(
            verdicts(format!("[ {text} ]")),
            [Err(detail.clone())],
            "{text}"
        );
        let body = second_of_three(text.as_bytes());
        assert_eq!(bodies(body.clone()), [GOOD, text, GOOD]);
        let verdicts = verdicts(body);
        assert_eq!(verdicts[1], Err(detail), "{text}");
        assert!(verdicts[0].is_ok() && verdicts[2].is_ok(), "{text}");
    }
}

#[test]
fn other_fields_accept_any_valid_value() {
    for (_, text) in VALID {
        for name in ["note", "type", "pastStatus", "creator", "report"] {
            let element = as_member(name, text.as_bytes());
            let events = samples::webhook(second_of_three(&element)).events;
            assert_eq!(events[1].body, element);
            assert_eq!(events[1].session(), Some("a"), "{name} {text}");
        }
    }
}

#[test]
fn id_and_status_accept_only_strings() {
    for (kind, text) in VALID {
        for name in ["id", "status"] {
            let element = as_member(name, text.as_bytes());
            let [verdict] = <[_; 1]>::try_from(verdicts(element)).unwrap();
            match (*kind, verdict) {
                ("a string", Ok(fields)) => {
                    let read: String = serde_json::from_str(text).unwrap();
                    let value = if name == "id" {
                        fields.session.to_string()
                    } else {
                        fields.status
                    };
                    assert_eq!(value, read);
                }
                (kind, verdict) => {
                    let detail = format!("`{name}` is not a string but {kind}");
                    assert_eq!(verdict, Err(detail), "{text}");
                }
            }
        }
    }
}

#[test]
fn invalid_text_anywhere_makes_the_body_malformed() {
    for text in INVALID {
        let shown = String::from_utf8_lossy(text);
        assert!(
            is_malformed([b"[", *text, b"]"].concat()),
            "only element: {shown}"
        );
        assert!(
            is_malformed(second_of_three(text)),
            "second of three: {shown}"
        );
        assert!(
            is_malformed([*text, b"[]"].concat()),
            "before an array: {shown}"
        );
        for name in ["note", "id", "status", "creator"] {
            assert!(is_malformed(as_member(name, text)), "{name}: {shown}");
            let element = as_member(name, text);
            assert!(
                is_malformed(second_of_three(&element)),
                "{name}, second: {shown}"
            );
        }
        // A byte order mark may precede a body; what follows decides.
        assert!(is_malformed(text.to_vec()), "body: {shown}");
    }
}

#[test]
fn trailing_text_makes_the_body_malformed() {
    for garbage in [
        "[]", "{}", ",", "]", "}", "0", "null", "\0", "x", "//", "\u{feff}", "\u{a0}",
    ] {
        assert!(
            is_malformed(format!("[{GOOD}]{garbage}").into_bytes()),
            "{garbage:?}"
        );
        assert!(
            is_malformed(format!("{GOOD} {garbage}").into_bytes()),
            "{garbage:?}"
        );
    }
    for space in [" ", "\t", "\r\n", "\n\n \n"] {
        assert_eq!(bodies(format!("[{GOOD}]{space}")), [GOOD]);
    }
}

#[test]
fn utf_16_and_utf_32_are_malformed() {
    let utf_16: Vec<u16> = format!("[{GOOD}]").encode_utf16().collect();
    let little: Vec<u8> = utf_16.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = utf_16.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    assert!(is_malformed([b"\xff\xfe", &*little].concat()));
    assert!(is_malformed([b"\xfe\xff", &*big].concat()));
    assert!(is_malformed(little));
    assert!(is_malformed(big));
    let utf_32: Vec<u8> = GOOD
        .chars()
        .flat_map(|char| u32::from(char).to_le_bytes())
        .collect();
    assert!(is_malformed(utf_32));
}

#[test]
fn body_cut_anywhere_is_malformed() {
    let body = samples::COMPLETED;
    assert!(!is_malformed(body.to_vec()));
    for end in 0..body.len() {
        let is_only_trailing_space = body[end..].trim_ascii().is_empty();
        assert_eq!(
            is_malformed(body[..end].to_vec()),
            !is_only_trailing_space,
            "{end}"
        );
    }
}
