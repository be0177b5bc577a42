//! The messages: one for each routed status, and dead letters.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{BINDING_VERSION, headers, key};
use crate::webhook::routing::{Routing, UNKNOWN};
use crate::webhook::session::ChatSession;

/// Path of the schemas in the document, for references.
const SCHEMAS: &str = "/components/schemas";

/// Key of the messages that the bridge dead-letters.
pub(super) const DEAD_LETTER: &str = "dead-letter";

/// Key of the messages that the broker dead-letters from a consumer's queue.
pub(super) const GIVEN_UP: &str = "given-up";

/// Every message, by key.
pub(super) fn all(routing: &Routing) -> Value {
    let mut messages = json!({
        DEAD_LETTER: {
            "name": DEAD_LETTER,
            "title": "Dead letter",
            "summary": "A message that could not be published, and why; `dead-letters replay` publishes it again.",
            "contentType": "application/json",
            "headers": { "$ref": "#/components/schemas/DeadLetterHeaders" },
            "payload": {
                "description": "The bytes as received, whether JSON or not; empty with the reason `too-large`.",
            },
        },
        GIVEN_UP: {
            "name": GIVEN_UP,
            "title": "Message dead-lettered from a consumer's queue",
            "summary": "Rejected too often, expired or dropped from a full queue; with its body, its headers and RabbitMQ's history.",
            "contentType": "application/json",
            "correlationId": { "$ref": "#/components/correlationIds/session" },
            "headers": { "$ref": "#/components/schemas/GivenUpHeaders" },
            "payload": { "$ref": "#/components/schemas/ChatSession" },
        },
    });
    let known: Vec<&str> = routing.statuses().map(AsRef::as_ref).collect();
    for status in &known {
        let summary = format!("A session whose status is now `{status}`.");
        messages[key(status)] = session(status, &summary, &json!({ "const": status }));
    }
    let summary = "A session with a status that has no route of its own.";
    messages[UNKNOWN] = session(UNKNOWN, summary, &json!({ "not": { "enum": known } }));
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
        "bindings": { "amqp": { "messageType": message_type, "bindingVersion": BINDING_VERSION } },
    })
}

/// Settings for schemas of the document: draft 7, which AsyncAPI's own schemas extend.
pub(super) fn settings() -> SchemaSettings {
    SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    })
}

/// The schemas that messages refer to.
pub(super) fn schemas() -> Map<String, Value> {
    let mut generator = settings().into_generator();
    generator.subschema_for::<ChatSession>();
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Headers".into(), headers::session());
    schemas.insert("DeadLetterHeaders".into(), headers::dead_letter());
    schemas.insert("GivenUpHeaders".into(), headers::given_up());
    schemas
}
