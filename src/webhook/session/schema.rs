//! JSON Schema of a chat session, as tolerant as the sender is: only what routing needs is
//! required, and every other field may be of another shape.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::ChatSession;

/// The schema of one session. In draft 2020-12 and by itself, unless the settings say otherwise.
#[must_use]
pub fn schema(settings: SchemaSettings) -> Schema {
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<ChatSession>();
    schema.insert("title".into(), "Chat session".into());
    schema
}

/// What the bridge asks of an element before it is an event; anything less is a dead letter.
pub(super) fn routable(schema: &mut Schema) {
    schema.insert("required".into(), json!(["id", "status"]));
    for (name, shape) in [
        (
            "id",
            json!({ "type": "string", "minLength": 1, "maxLength": 255 }),
        ),
        ("status", json!({ "type": "string" })),
    ] {
        let pointer = format!("/properties/{name}");
        let field = schema.pointer_mut(&pointer).and_then(Value::as_object_mut);
        let field = field.expect("the session has the field");
        let any_shape = field.remove("anyOf");
        let known = any_shape.as_ref().and_then(|shapes| shapes.get(0));
        let own = [Some(&shape), known].into_iter().flatten();
        let own = own.filter_map(Value::as_object).flatten();
        field.extend(own.map(|(key, value)| (key.clone(), value.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every object schema below a value.
    fn properties<'v>(value: &'v Value, found: &mut Vec<(&'v String, &'v Value)>) {
        if let Some(Value::Object(fields)) = value.get("properties") {
            found.extend(fields);
        }
        let below: Vec<&Value> = match value {
            Value::Object(object) => object.values().collect(),
            Value::Array(values) => values.iter().collect(),
            _ => Vec::new(),
        };
        for value in below {
            properties(value, found);
        }
    }

    #[test]
    fn every_field_is_documented_and_only_what_routing_needs_is_required() {
        let schema = schema(SchemaSettings::draft2020_12()).to_value();
        let mut found = Vec::new();
        properties(&schema, &mut found);
        assert_eq!(found.len(), 38, "{found:#?}");
        for (name, field) in found {
            let description = field["description"].as_str();
            assert!(
                description.is_some_and(|text| text.len() > 8),
                "{name}: {field}"
            );
        }
        assert_eq!(schema["required"], json!(["id", "status"]));
        assert_eq!(schema.to_string().matches("\"required\"").count(), 1);
        assert!(!schema.to_string().contains("additionalProperties"));
    }
}
