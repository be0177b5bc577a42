//! `schema`: accepts exactly the sessions that the bridge accepts.

use bytes::Bytes;
use deskbridge::webhook::signature::Keys;
use deskbridge::webhook::split::split;
use deskbridge::webhook::{Content, Envelope};
use serde_json::{Value, json};

use super::{COMPLETED, document};
use crate::support::validator::json_schema;

/// Values of every type.
pub(super) fn shapes() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(-1.5),
        json!(""),
        json!("text"),
        json!([]),
        json!([null, 1, "created", {"name": 7}]),
        json!({}),
        json!({"entityId": "x", "userId": "nobody", "company": [], "start": 1, "user": "Ann"}),
    ]
}

/// Whether the bridge would publish the element as a session.
fn is_routed(element: &Value) -> bool {
    let keys = Keys::Unsigned;
    let signature = keys.read::<&[u8]>([]).unwrap();
    let body = Bytes::from(json!([element]).to_string());
    let envelope = Envelope {
        webhook_id: uuid::Uuid::from_u128(7),
        source: "acme".into(),
        received_at: jiff::Timestamp::UNIX_EPOCH,
        traceparent: None,
        tracestate: None,
    };
    let webhook = split(keys.verify(&signature, body).unwrap(), envelope, 10).unwrap();
    matches!(webhook.events[0].content, Content::Session(_))
}

/// `{"a":{"b":value}}` for `a`, `b`, together with the required fields of a session.
pub(super) fn with(path: &[String], value: &Value) -> Value {
    let nested = path
        .iter()
        .rev()
        .fold(value.clone(), |inner, name| json!({ name: inner }));
    let mut session = json!({"id": "1-1", "status": "created"});
    for (name, value) in nested.as_object().into_iter().flatten() {
        session[name] = value.clone();
    }
    session
}

/// Collects the paths of all fields, each kind of object once.
pub(super) fn paths(schema: &Value, object: &Value, path: &[String], found: &mut Vec<Vec<String>>) {
    for (name, field) in object["properties"].as_object().into_iter().flatten() {
        let path = [path, std::slice::from_ref(name)].concat();
        let shapes = field["anyOf"].as_array().cloned().unwrap_or_default();
        for shape in shapes {
            let target = shape["$ref"]
                .as_str()
                .and_then(|target| schema.pointer(&target[1..]));
            paths(schema, target.unwrap_or(&Value::Null), &path, found);
        }
        found.push(path);
    }
}

#[test]
fn session_schema_accepts_what_the_bridge_routes() {
    let schema = document(&["schema"]);
    let mut fields = Vec::new();
    paths(&schema, &schema, &[], &mut fields);
    assert!(fields.len() > 35, "{fields:?}");
    let mut sessions: Vec<Value> = serde_json::from_str(COMPLETED).unwrap();
    sessions.extend(shapes());
    for path in &fields {
        sessions.extend(shapes().iter().map(|shape| with(path, shape)));
    }
    for id in shapes()
        .iter()
        .chain([&json!("x".repeat(255)), &json!("x".repeat(256))])
    {
        sessions.push(json!({"id": id, "status": "missed"}));
    }
    sessions.extend([
        json!({"status": "missed"}),
        json!({"id": "1-1"}),
        json!({"id": "1-1", "status": "a new one", "mood": {"of": ["the", 1]}}),
    ]);
    let verdicts = json_schema(&schema, &sessions);
    let mut routed = 0;
    for (session, wrong) in sessions.iter().zip(verdicts) {
        assert_eq!(wrong.is_empty(), is_routed(session), "{session}: {wrong:?}");
        routed += usize::from(wrong.is_empty());
    }
    assert!(routed > 300 && sessions.len() - routed > 15, "{routed}");
}
