mod corpus;
mod properties;

use super::*;
use crate::webhook::{Fields, samples};

/// The result for each element: its fields, or why it is a reject.
fn verdicts(body: impl Into<Bytes>) -> Vec<Result<Fields, String>> {
    let verdict = |event: Arc<Event>| match Arc::unwrap_or_clone(event).content {
        Content::Session(fields) => Ok(fields),
        Content::Reject(reject) => Err(reject.detail),
    };
    samples::webhook(body)
        .events
        .into_iter()
        .map(verdict)
        .collect()
}

fn bodies(body: impl Into<Bytes>) -> Vec<Bytes> {
    samples::webhook(body)
        .events
        .into_iter()
        .map(|event| event.body.clone())
        .collect()
}

fn fields(members: &str) -> Fields {
    let [verdict] = <[_; 1]>::try_from(verdicts(format!("[{members}]"))).expect("one element");
    verdict.unwrap_or_else(|detail| panic!("{detail}: {members}"))
}

#[track_caller]
fn check_invalid(element: &str, expected: &str) {
    let webhook = samples::webhook(format!(r#"[{{"id":"a","status":"b"}}, {element} ,null]"#));
    assert_eq!(webhook.events.len(), 3);
    assert!(webhook.malformed().is_none());
    assert_eq!(webhook.events[0].session(), Some("a"));
    assert_eq!(webhook.events[1].body, element.as_bytes());
    let reject = Reject {
        reason: DeadLetterReason::Invalid,
        detail: expected.into(),
    };
    assert_eq!(webhook.events[1].content, Content::Reject(reject));
}

#[track_caller]
fn check_malformed(body: &[u8], expected: &str) {
    let webhook = samples::webhook(body.to_vec());
    assert_eq!(
        webhook.malformed().map(|reject| reject.detail.as_str()),
        Some(expected)
    );
    assert_eq!(webhook.events.len(), 1);
    assert_eq!(
        (webhook.events[0].index, &*webhook.events[0].body),
        (0, body)
    );
    assert_eq!(webhook.events[0].session(), None);
}

#[test]
fn elements_keep_position_and_bytes() {
    let elements = [
        r#"{"id":"a","status":"b"}"#,
        "null",
        "{ \"status\" : \"\\u0062\" ,\r\n\"id\":\"a\" }",
        "1e999",
    ];
    let webhook = samples::webhook(format!(
        " [\t{}\n,{},{} ,\r{}]\n ",
        elements[0], elements[1], elements[2], elements[3]
    ));
    for ((index, element), event) in (0..).zip(elements).zip(&webhook.events) {
        assert_eq!((event.index, &*event.body), (index, element.as_bytes()));
        assert!(Arc::ptr_eq(&event.envelope, &webhook.envelope));
    }
    assert_eq!(webhook.events.len(), elements.len());
}

#[test]
fn empty_array_and_single_object_are_accepted() {
    assert!(samples::webhook("[]").events.is_empty());
    assert!(samples::webhook(" \n[ ]\t").events.is_empty());
    assert_eq!(bodies(" \n{\"id\":1} "), ["{\"id\":1}"]);
    assert_eq!(verdicts("{}"), [Err("missing field `id`".into())]);
}

#[test]
fn byte_order_mark_is_skipped_only_at_the_start() {
    let example = [b"\xef\xbb\xbf", samples::COMPLETED].concat();
    assert_eq!(samples::event(example), samples::event(samples::COMPLETED));
    assert_eq!(bodies("\u{feff}{}"), ["{}"]);
    assert!(samples::webhook("\u{feff}[]").events.is_empty());
    check_malformed(
        "\u{feff}\u{feff}[]".as_bytes(),
        "expected value at line 1 column 1",
    );
    check_malformed(
        " \u{feff}[]".as_bytes(),
        "expected value at line 1 column 2",
    );
    check_malformed(
        "\u{feff}".as_bytes(),
        "EOF while parsing a value at line 1 column 0",
    );
}

#[test]
fn malformed_body_states_the_position() {
    check_malformed(b"", "EOF while parsing a value at line 1 column 0");
    check_malformed(b"hello", "expected value at line 1 column 1");
    check_malformed(
        b"[\n  {},\n  {]\n]",
        "key must be a string at line 3 column 4",
    );
    check_malformed(b"[{}] []", "trailing characters at line 1 column 6");
    check_malformed(b"{} {}", "trailing characters at line 1 column 4");
    check_malformed(b"[{},]", "trailing comma at line 1 column 5");
    check_malformed(b"[{}", "EOF while parsing a list at line 1 column 3");
    check_malformed(b"[\"\n\xc3\x28\"]", "invalid UTF-8 at line 2 column 1");
    check_malformed(b"\xef\xbb\xbf[\xff]", "invalid UTF-8 at line 1 column 2");
    check_malformed(b"[] \xf0\x9f", "invalid UTF-8 at line 1 column 4");
}

#[test]
fn other_json_values_are_malformed() {
    let text = |kind: &str| format!("neither an array nor an object but {kind}");
    check_malformed(b"null", &text("null at line 1 column 1"));
    check_malformed(b" \n  true ", &text("a boolean at line 2 column 3"));
    check_malformed(b"\xef\xbb\xbf-0.5", &text("a number at line 1 column 1"));
    check_malformed(b"\"[]\"", &text("a string at line 1 column 1"));
}

#[test]
fn element_needs_an_id_and_a_status() {
    check_invalid("{}", "missing field `id`");
    check_invalid(r#"{"status":"b"}"#, "missing field `id`");
    check_invalid(r#"{"ID":"a","status":"b"}"#, "missing field `id`");
    check_invalid(r#"{"id":"a"}"#, "missing field `status`");
    check_invalid(r#"{"id":"","status":"b"}"#, "`id` is empty");
}

#[test]
fn duplicate_id_or_status_is_invalid() {
    check_invalid(
        r#"{"id":"a","status":"b","id":"a"}"#,
        "duplicate field `id`",
    );
    check_invalid(
        r#"{"id":"a","status":"b","\u0069\u0064":null}"#,
        "duplicate field `id`",
    );
    check_invalid(
        r#"{"id":null,"status":"b","id":"a"}"#,
        "duplicate field `id`",
    );
    check_invalid(
        r#"{"id":"a","status":"b","status":"b"}"#,
        "duplicate field `status`",
    );
    check_invalid(
        r#"{"id":"a","status":"b","\u0073tatus":[]}"#,
        "duplicate field `status`",
    );
    assert_eq!(
        fields(r#"{"id":"a","status":"b","x":{"id":1,"status":2},"i\u0064x":3}"#)
            .session
            .as_ref(),
        "a"
    );
    assert_eq!(fields(r#"{"\u0069d":"a","st\u0061tus":"b"}"#).status, "b");
}

#[test]
fn id_has_1_to_255_bytes_after_unescaping() {
    let element = |id: &str| format!(r#"{{"id":"{id}","status":"b"}}"#);
    let too_long = "`id` is longer than 255 bytes";
    assert_eq!(
        *fields(&element(&"x".repeat(255))).session,
        *"x".repeat(255)
    );
    assert_eq!(
        *fields(&element(&"\\u0078".repeat(255))).session,
        *"x".repeat(255)
    );
    assert_eq!(&*fields(&element("\\u0000")).session, "\0");
    assert_eq!(&*fields(&element("\\ud83d\\ude00é\\n")).session, "😀é\n");
    check_invalid(&element(&"x".repeat(256)), too_long);
    check_invalid(&element(&"\\u0078".repeat(256)), too_long);
    check_invalid(&element(&"é".repeat(128)), too_long);
    check_invalid(&element(&"x".repeat(1_000_000)), too_long);
}

#[test]
fn lone_surrogate_is_invalid_only_in_the_id() {
    let detail = "`id` contains a lone surrogate, which is not a character";
    for half in [
        "\\ud800",
        "\\udfff",
        "x\\udc00x",
        "\\ud83d\\ud83d\\ude00",
        "\\ud800\\n",
    ] {
        check_invalid(&format!(r#"{{"id":"{half}","status":"b"}}"#), detail);
    }
    for (written, read) in [
        ("\\ud800", "\u{fffd}"),
        ("\\uDFFF", "\u{fffd}"),
        ("\\udc00\\ud800", "\u{fffd}\u{fffd}"),
        ("a\\ud800\\nb", "a\u{fffd}\nb"),
        ("\\ud83d\\ud83d\\ude00\\ude00", "\u{fffd}😀\u{fffd}"),
        ("\\ud83d\\ude00", "😀"),
        ("í\\ud800\u{d7ff}", "í\u{fffd}\u{d7ff}"),
    ] {
        let read_fields = fields(&format!(
            r#"{{"id":"a","status":"{written}","type":"{written}","pastStatus":["{written}"],
                "creator":{{"company":{{"identifier":"{written}"}}}},"\udead":"\udead"}}"#
        ));
        assert_eq!(read_fields.status, read);
        for value in read_fields.attributes {
            assert_eq!(value.as_deref(), Some(read));
        }
    }
}

#[test]
fn last_of_duplicate_routing_fields_applies() {
    let derived = |members: &str| {
        let fields = fields(&format!(r#"{{"id":"a","status":"b",{members}}}"#));
        fields.attributes.map(Option::unwrap_or_default)
    };
    for (members, expected) in [
        (r#""x":1"#, ["", "", ""]),
        (r#""type":"push""#, ["push", "", ""]),
        (r#""type":["push"]"#, ["", "", ""]),
        (r#""type":[112]"#, ["", "", ""]),
        (r#""type":{},"type":"push""#, ["push", "", ""]),
        (r#""type":"push","type":null"#, ["", "", ""]),
        (r#""pastStatus":["c","d"]"#, ["", "d", ""]),
        (r#""pastStatus":["c",1]"#, ["", "", ""]),
        (r#""pastStatus":[1,"c"]"#, ["", "c", ""]),
        (r#""pastStatus":[]"#, ["", "", ""]),
        (r#""pastStatus":"c""#, ["", "", ""]),
        (r#""pastStatus":{"c":"d"}"#, ["", "", ""]),
        (
            r#""pastStatus":["c"],"past\u0053tatus":["d"]"#,
            ["", "d", ""],
        ),
        (r#""creator":{"company":{"identifier":"e"}}"#, ["", "", "e"]),
        (r#""creator":{"company":{"identifier":7}}"#, ["", "", ""]),
        (r#""creator":{"company":{"name":"e"}}"#, ["", "", ""]),
        (r#""creator":{"company":["e"]}"#, ["", "", ""]),
        (
            r#""creator":{"company":null,"\u0063ompany":{"identifier":"e"}}"#,
            ["", "", "e"],
        ),
        (r#""creator":{"name":"n"}"#, ["", "", ""]),
        (r#""creator":null"#, ["", "", ""]),
        (
            r#""creator":[{"company":{"identifier":"e"}}]"#,
            ["", "", ""],
        ),
        (
            r#""creator":{"company":{"identifier":"e","identifier":"f"}}"#,
            ["", "", "f"],
        ),
        (
            r#""creator":{"company":{"identifier":"e"}},"creator":1"#,
            ["", "", ""],
        ),
    ] {
        assert_eq!(derived(members), expected, "{members}");
    }
}

#[test]
fn element_has_at_most_128_levels() {
    let nested = |open: &str, close: &str, levels: usize| {
        let inner = format!("{}{}", open.repeat(levels - 1), close.repeat(levels - 1));
        format!(r#"{{"x":"[{{\"[[","id":"a","status":"b","y":{inner}}}"#)
    };
    let brackets_in_strings = format!(
        r#"{{"id":"a","status":"b","x":"\\\"{}"}}"#,
        "[{".repeat(200)
    );
    let side_by_side = format!(
        r#"{{"id":"a","status":"b","x":[{}{{}}]}}"#,
        "[],{},".repeat(500)
    );
    for element in [&nested("[", "]", 128), &brackets_in_strings, &side_by_side] {
        assert_eq!(&*fields(element).session, "a");
        assert_eq!(verdicts(element.clone()).len(), 1);
    }
    for levels in [129, 500, 100_000] {
        check_invalid(&nested("[", "]", levels), "nested deeper than 128 levels");
    }
    let objects = format!("{}1{}", r#"{"x":"#.repeat(129), "}".repeat(129));
    check_invalid(&objects, "nested deeper than 128 levels");
    assert!(verdicts(objects)[0].is_err());
}

#[test]
fn excess_elements_are_refused_whatever_follows() {
    let split = |body: &str, sessions_max| {
        split(
            samples::verified(body.to_owned()),
            samples::envelope(),
            sessions_max,
        )
    };
    let too_many = |sessions_max| Some(TooManySessions { sessions_max });
    assert_eq!(split("[1,2,3]", 3).unwrap().events.len(), 3);
    assert_eq!(split("[1,2,3]", 2).err(), too_many(2));
    assert_eq!(split("[1,2,3", 2).err(), too_many(2));
    assert_eq!(split("[1,2,3,", 3).unwrap().events.len(), 1);
    assert_eq!(split("[1]", 0).err(), too_many(0));
    assert_eq!(split("{}", 0).err(), too_many(0));
    assert_eq!(split("{}", 1).unwrap().events.len(), 1);
    assert_eq!(
        split(&format!("[1{}]", ",1".repeat(3_000_000)), 10_000).err(),
        too_many(10_000)
    );
}

#[test]
fn small_element_does_not_keep_a_large_body() {
    let small = r#"{"id":"a","status":"b"}"#;
    let padded =
        |element: &str, padding: usize| Bytes::from(format!("[{element}{}]", " ".repeat(padding)));
    let shares = |body: Bytes| {
        let event = samples::event(body.clone());
        body.as_ptr_range().contains(&event.body.as_ptr())
    };
    assert!(shares(padded(small, 0)));
    assert!(shares(padded(small, SHARED_BYTES_MAX - small.len() - 2)));
    assert!(!shares(padded(small, SHARED_BYTES_MAX - small.len() - 1)));
    let large = format!(r#"{{"id":"a","status":"b","x":"{}"}}"#, "x".repeat(100_000));
    assert!(shares(padded(&large, 90_000)));
    assert!(!shares(padded(&large, 110_000)));
}

/// Events of such a webhook are not kept in memory, so copies would save nothing.
#[test]
fn large_elements_share_the_body() {
    let element = format!(r#"{{"id":"a","status":"b","x":"{}"}}"#, "x".repeat(1000));
    let elements = |count| vec![element.as_str(); count].join(",");
    let shares = |body: String| {
        let body = Bytes::from(body);
        let webhook = samples::webhook(body.clone());
        let is_inside = |event: &Arc<Event>| body.as_ptr_range().contains(&event.body.as_ptr());
        webhook.events.iter().all(is_inside)
    };
    let fitting = SHARED_BYTES_MIN / element.len();
    assert!(shares(format!("[{}]", elements(fitting + 1))));
    assert!(!shares(format!("[{}]", elements(fitting - 10))));
    let padding = " ".repeat(SHARED_BYTES_MIN);
    assert!(!shares(format!("[{}{padding}]", elements(fitting / 2))));
}

#[test]
fn deep_nesting_and_many_keys_take_linear_time() {
    const MANY: usize = 1_000_000;
    let nested = format!("{}{}", "[".repeat(MANY), "]".repeat(MANY));
    check_invalid(&nested, "not an object but an array");
    assert_eq!(verdicts(nested), [Err("not an object but an array".into())]);
    assert!(samples::webhook("[".repeat(MANY)).malformed().is_some());
    assert!(
        samples::webhook("{\"x\":".repeat(MANY))
            .malformed()
            .is_some()
    );
    let nested = format!(r#"{{"creator":{}{}}}"#, "[".repeat(MANY), "]".repeat(MANY));
    check_invalid(&nested, "nested deeper than 128 levels");

    let keys: Vec<_> = (0..MANY).map(|key| format!(r#""k{key}":{key},"#)).collect();
    let flood = format!(r#"{{{}"id":"a","status":"b"}}"#, keys.concat());
    assert_eq!(&*fields(&flood).session, "a");
    let again = format!(
        r#"{{"id":"a","status":"b"{}}}"#,
        r#","type":"c""#.repeat(MANY)
    );
    assert_eq!(fields(&again).attributes[0].as_deref(), Some("c"));
}
