//! The messages: one for each status that is routed, and dead letters.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{BINDING_VERSION, headers, key};
use crate::webhook::routing::{Routing, UNKNOWN};
use crate::webhook::session::schema::schema;

/// Where references find the schemas.
const SCHEMAS: &str = "/components/schemas";

/// A letter of the bridge's.
pub(super) const DEAD_LETTER: &str = "dead-letter";

/// A letter of the broker's, out of a consumer's queue.
pub(super) const GIVEN_UP: &str = "given-up";

/// Every message, by key.
pub(super) fn all(routing: &Routing) -> Map<String, Value> {
    let known: Vec<&str> = routing.statuses().map(AsRef::as_ref).collect();
    let of_known = known.iter().map(|status| {
        let summary = format!("A session whose status is now `{status}`.");
        (
            key(status),
            session(status, &summary, &json!({ "const": status })),
        )
    });
    let other = json!({ "not": { "enum": known } });
    let unknown = session(
        UNKNOWN,
        "A session with a status that has no route of its own.",
        &other,
    );
    let mut messages: Map<_, _> = of_known.collect();
    messages.insert(UNKNOWN.into(), unknown);
    messages.insert(DEAD_LETTER.into(), json!({
        "name": DEAD_LETTER,
        "title": "Dead letter",
        "summary": "What could not be published, and why; `dead-letters replay` publishes it again.",
        "contentType": "application/json",
        "headers": { "$ref": "#/components/schemas/DeadLetterHeaders" },
        "payload": {
            "description": "The bytes as they were received, whether JSON or not; nothing with the reason `too-large`.",
        },
    }));
    messages.insert(GIVEN_UP.into(), json!({
        "name": GIVEN_UP,
        "title": "Message that a consumer's queue gave up",
        "summary": "Rejected too often, expired or too many; body and headers as they were, and RabbitMQ's history.",
        "contentType": "application/json",
        "correlationId": { "$ref": "#/components/correlationIds/session" },
        "headers": { "$ref": "#/components/schemas/GivenUpHeaders" },
        "payload": { "$ref": "#/components/schemas/ChatSession" },
    }));
    messages
}

fn session(status: &str, summary: &str, status_schema: &Value) -> Value {
    let message_type = format!("chat-session.{status}");
    json!({
        "name": message_type,
        "title": format!("Chat session, {status}"),
        "summary": summary,
        "contentType": "application/json",
        "correlationId": { "$ref": "#/components/correlationIds/session" },
        "headers": { "$ref": "#/components/schemas/Headers" },
        "payload": { "allOf": [
            { "$ref": "#/components/schemas/ChatSession" },
            { "properties": { "status": status_schema } },
        ] },
        "bindings": { "amqp": {
            "messageType": message_type,
            "bindingVersion": BINDING_VERSION,
        } },
    })
}

/// The schemas that messages refer to. Draft 7, which AsyncAPI's own schemas extend.
pub(super) fn schemas() -> Map<String, Value> {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    let mut session = schema(settings).to_value();
    let definitions = session.pointer_mut(SCHEMAS).map(Value::take);
    let mut schemas = match definitions {
        Some(Value::Object(schemas)) => schemas,
        _ => Map::new(),
    };
    if let Value::Object(session) = &mut session {
        session.remove("components");
    }
    schemas.insert("ChatSession".into(), session);
    schemas.insert("Headers".into(), headers::session());
    schemas.insert("DeadLetterHeaders".into(), headers::dead_letter());
    schemas.insert("GivenUpHeaders".into(), headers::given_up());
    schemas
}
