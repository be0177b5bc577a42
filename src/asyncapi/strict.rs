//! The document for code generators: one type of session, without alternatives that generators turn
//! into `unknown` or `any`.

use serde_json::{Map, Value, json};

use super::messages::{self, DEAD_LETTER};
use crate::webhook::session::strict::definitions;

/// Gives every message of a session the same strict body, and dead letters none.
#[must_use]
pub fn strict(mut document: Value) -> Value {
    let messages = document["components"]["messages"].as_object_mut();
    for (name, message) in messages.into_iter().flatten() {
        message["payload"] = json!({ "$ref": "#/components/schemas/ChatSession" });
        // What need not be JSON has no type.
        if let Some(message) = message.as_object_mut().filter(|_| name == DEAD_LETTER) {
            message.remove("payload");
        }
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.retain(|name, _| name.ends_with("Headers"));
        schemas.extend(schemas_of_session());
    }
    document
}

fn schemas_of_session() -> Map<String, Value> {
    let mut schemas = definitions(messages::settings());
    let objects = schemas.values_mut();
    let fields = objects.filter_map(|object| object["properties"].as_object_mut());
    for field in fields.flat_map(Map::values_mut) {
        // Modelina turns an object or `null` into `dynamic` (C#) or an empty interface (Java), and
        // does not expect `null` where it serialises arrays (TypeScript).
        let object = field["anyOf"][0]["$ref"].as_str();
        if let Some(object) = object.map(str::to_owned) {
            *field = json!({ "$ref": object });
        } else if field["items"].is_object() {
            field["type"] = "array".into();
        }
    }
    schemas
}
