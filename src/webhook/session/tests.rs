use serde_json::{Value, json};

use super::*;
use crate::webhook::samples;

/// A session with every field of the interface.
const FULL: &str = r#"{
    "id": "1-1", "name": "Chat Request", "type": "push", "status": "callback",
    "pastStatus": ["created", "missed"],
    "report": {
        "creatorWaited": 12.5, "handledDateTime": "2018-06-28T05:18:26.9468948Z", "chatDuration": 300
    },
    "reference": {"type": "ticket", "id": "12345"},
    "creator": {
        "entityId": 1, "name": "Ann", "userId": "acme~c~1",
        "company": {"entityId": 2, "name": "Acme", "identifier": "acme"}
    },
    "callback": {
        "type": "phone", "phone": "+64 9 000 0000", "note": "after lunch",
        "preferredTime": [{"start": "a", "end": "b"}, {}]
    },
    "targetUsers": [{"name": "Ann", "company": {"name": "Acme"}}],
    "closeRecord": {
        "user": {"entityId": 1, "name": "Ann", "userId": "acme~m~1", "company": {}},
        "note": "done", "lastModifiedDateTime": "2018-06-28T05:18:26Z"
    },
    "closedDateTime": "2018-06-28T05:18:26Z", "users": [{"entityId": 1}, {"name": "Ann"}],
    "participants": [], "lastMessageId": "1530163058374-5E-acme~c~1",
    "createdDateTime": "2018-06-28T05:15:45.7824134Z",
    "lastModifiedDateTime": "2018-06-29T06:07:27.3929346Z"
}"#;

/// Path and value of every field, and of the fields of every object in it.
fn fields() -> Vec<(Vec<String>, Value)> {
    fn walk(object: &Value, path: &[String], found: &mut Vec<(Vec<String>, Value)>) {
        for (name, value) in object.as_object().into_iter().flatten() {
            let path = [path, std::slice::from_ref(name)].concat();
            walk(value, &path, found);
            found.push((path, value.clone()));
        }
    }
    let mut found = Vec::new();
    walk(&serde_json::from_str(FULL).unwrap(), &[], &mut found);
    assert_eq!(found.len(), 40);
    found
}

/// `{"a":{"b":value}}` for `a`, `b`.
fn nest(path: &[String], value: &Value) -> Value {
    path.iter()
        .rev()
        .fold(value.clone(), |inner, name| json!({ name: inner }))
}

fn read(value: &Value) -> ChatSession {
    let text = value.to_string();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn write(session: &impl Serialize) -> Value {
    serde_json::to_value(session).unwrap()
}

#[test]
fn published_example_round_trips() {
    let [session]: [ChatSession; 1] = serde_json::from_slice(samples::COMPLETED).unwrap();
    let [value]: [Value; 1] = serde_json::from_slice(samples::COMPLETED).unwrap();
    assert_eq!(write(&session), value);
    assert!(!format!("{session:?}").contains("Unexpected"));

    assert_eq!(session.status.get(), Some(&SessionStatus::Completed));
    assert_eq!(session.session_type.get(), Some(&SessionType::Request));
    assert_eq!(session.report.get().map(write), Some(json!({})));
    assert_eq!(session.participants.get().map(Vec::len), Some(3));
    let closed_by = session
        .close_record
        .get()
        .and_then(|record| record.user.get())
        .unwrap();
    let id = UserId("nzlancomdev~m~268".into());
    assert_eq!(closed_by.user_id.get(), Some(&id));
    assert!(closed_by.company.is_absent());
}

#[test]
fn every_documented_field_is_parsed() {
    for (path, value) in fields() {
        let session = read(&nest(&path, &value));
        assert!(
            !format!("{session:?}").contains("Unexpected"),
            "{path:?}: {session:?}"
        );
        assert_eq!(write(&session), nest(&path, &value), "{path:?}");
    }
}

#[test]
fn every_field_may_be_null() {
    for (path, _) in fields() {
        let session = read(&nest(&path, &Value::Null));
        let (_, parents) = path.split_last().unwrap();
        let expected = if parents.is_empty() {
            json!({})
        } else {
            nest(parents, &json!({}))
        };
        assert_eq!(write(&session), expected, "{path:?}");
    }
}

#[test]
fn other_shapes_of_fields_are_kept() {
    let shapes = [
        json!(true),
        json!(-1.5),
        json!("text"),
        json!([1]),
        json!({"x": [null]}),
    ];
    for (path, value) in fields() {
        let others = shapes
            .iter()
            .filter(|shape| std::mem::discriminant(*shape) != std::mem::discriminant(&value));
        for shape in others {
            let session = read(&nest(&path, shape));
            assert_eq!(write(&session), nest(&path, shape), "{path:?}");
            assert!(
                format!("{session:?}").contains("Unexpected"),
                "{path:?}: {session:?}"
            );
        }
    }
}

#[test]
fn empty_session_and_unknown_fields_are_accepted() {
    for session in [json!({}), json!({"mood": {"of": ["the", 1]}})] {
        assert_eq!(write(&read(&session)), json!({}));
    }
}

#[test]
fn undocumented_words_are_kept() {
    let session = json!({
        "status": "archived", "type": "Request", "pastStatus": ["Created", 7, "created"],
        "callback": {"type": "fax"}, "reference": {"type": "project"},
    });
    let read = read(&session);
    assert_eq!(
        read.status.get(),
        Some(&SessionStatus::Other("archived".into()))
    );
    assert_eq!(
        read.session_type.get(),
        Some(&SessionType::Other("Request".into()))
    );
    let past = read.past_status.get().unwrap();
    assert_eq!(past[0].get(), Some(&SessionStatus::Other("Created".into())));
    assert_eq!(past[1].get(), None);
    assert_eq!(past[2].get(), Some(&SessionStatus::Created));
    assert_eq!(write(&read), session);
}

#[test]
fn one_invalid_user_does_not_hide_the_others() {
    let session = read(&json!({"users": [{"name": "Ann"}, "Bob", {"name": 3}]}));
    let names: Vec<_> = session
        .users
        .get()
        .unwrap()
        .iter()
        .map(Lenient::get)
        .collect();
    assert_eq!(
        names[0].and_then(|user| user.name.get()),
        Some(&"Ann".to_owned())
    );
    assert!(names[1].is_none());
    assert!(names[2].is_some_and(|user| user.name.get().is_none()));
}

#[test]
fn invalid_element_is_kept_as_text() {
    let texts = [
        "[]",
        "7",
        r#"["1-1"]"#,
        r#"{"id":"a","id":"b"}"#,
        r#"{"\ud800":1}"#,
    ];
    let webhook = format!(r#"[{},{{"id":"a"}}]"#, texts.join(","));
    let sessions: Vec<Lenient<ChatSession>> = serde_json::from_str(&webhook).unwrap();
    let (session, odd) = sessions.split_last().unwrap();
    assert!(
        session
            .get()
            .is_some_and(|session| session.id.get().is_some())
    );
    assert_eq!(odd.len(), texts.len());
    assert!(
        odd.iter()
            .all(|element| matches!(element, Lenient::Unexpected(_))),
        "{odd:?}"
    );
    assert_eq!(serde_json::to_string(&sessions).unwrap(), webhook);
}

#[test]
fn unrepresentable_values_are_kept_as_text() {
    let text = r#"{"name":"\ud800","report":{"creatorWaited":1e999},"creator":{"userId":"me"}}"#;
    let session: ChatSession = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&session).unwrap(), text);
}

#[test]
fn statuses_and_types_are_shown_as_written() {
    for status in [
        "created",
        "handled",
        "missed",
        "completed",
        "callback",
        "Archived",
    ] {
        let read: SessionStatus = serde_json::from_value(json!(status)).unwrap();
        assert_eq!(read.to_string(), status);
        assert_eq!(
            matches!(read, SessionStatus::Other(_)),
            status == "Archived"
        );
    }
    for session_type in ["request", "push", "pull"] {
        let read: SessionType = serde_json::from_value(json!(session_type)).unwrap();
        assert_eq!(read.to_string(), session_type);
        assert_eq!(
            matches!(read, SessionType::Other(_)),
            session_type == "pull"
        );
    }
}
