//! The JSON Schema of a session for code generators: the tolerant one without the alternatives that
//! they turn into `unknown` or `any`. What remains is the interface that DeskDirector publishes, in
//! which every field but `id` and `status` may be absent or `null`, and enumerations are open.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{ChatSession, TIME};

/// The schema of a session, in draft 7, which more generators read than later drafts.
#[must_use]
pub fn schema() -> Value {
    let mut definitions = definitions(SchemaSettings::draft07());
    let mut session = definitions.remove("ChatSession").unwrap_or_default();
    session["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    session["definitions"] = definitions.into();
    session
}

/// The schemas of a session and of the objects in it, by name.
pub(crate) fn definitions(settings: SchemaSettings) -> Map<String, Value> {
    let mut generator = settings.into_generator();
    generator.subschema_for::<ChatSession>();
    let tolerant = generator.take_definitions(true);
    let is_object = |(_, schema): &(&String, &Value)| schema["type"] == "object";
    let objects = tolerant.iter().filter(is_object);
    let strict = objects.map(|(name, schema)| (name.clone(), object(&tolerant, name, schema)));
    strict.collect()
}

/// The title becomes the name of the generated type.
fn object(tolerant: &Map<String, Value>, title: &str, schema: &Value) -> Value {
    let mut object = schema.clone();
    object["title"] = title.into();
    for (name, field) in object["properties"].as_object_mut().into_iter().flatten() {
        let is_required = schema["required"].as_array();
        let is_required = is_required.is_some_and(|names| names.contains(&json!(name)));
        *field = strict_field(tolerant, name, field, is_required);
    }
    object
}

fn strict_field(
    tolerant: &Map<String, Value>,
    name: &str,
    field: &Value,
    is_required: bool,
) -> Value {
    let mut strict = shape(tolerant, field);
    if name == "entityId" {
        strict["type"] = "integer".into();
    }
    if field["examples"] == json!([TIME]) {
        strict["format"] = "date-time".into();
        strict["examples"] = field["examples"].clone();
    }
    let words = strict["description"]
        .as_str()
        .map(|words| format!(" {words}"));
    let description = field["description"].as_str().unwrap_or_default();
    let description = format!("{description}{}", words.unwrap_or_default());
    if !is_required {
        strict = nullable(strict);
    }
    strict["description"] = description.into();
    strict
}

/// The shape that the interface defines, of a field or an element of an array. Only objects remain
/// references; generators wrap a reference to a string in a type of its own.
fn shape(tolerant: &Map<String, Value>, schema: &Value) -> Value {
    let of_reference = |schema: &Value| {
        let name = schema["$ref"].as_str()?.rsplit('/').next()?;
        Some(name.to_owned())
    };
    // In draft 7 a reference that has a description is in `allOf`.
    let alternatives = schema["anyOf"].as_array().or(schema["allOf"].as_array());
    let defined = alternatives.into_iter().flatten();
    let defined = defined
        .into_iter()
        .find(|one| of_reference(one).is_none_or(|name| name != "OtherShape"))
        .unwrap_or(schema);
    let referred = of_reference(defined).and_then(|name| tolerant.get(&name));
    match referred {
        Some(object) if object["type"] == "object" => json!({ "$ref": defined["$ref"] }),
        Some(text) => words(text),
        None if defined["type"] == "array" => {
            json!({ "type": "array", "items": shape(tolerant, &defined["items"]) })
        }
        None => json!({ "type": defined["type"] }),
    }
}

/// A string; what is known of an open enumeration becomes its description and its examples.
fn words(text: &Value) -> Value {
    let alternatives = text["anyOf"].as_array().into_iter().flatten();
    let known: Vec<&Value> = alternatives
        .filter(|one| one["const"].is_string())
        .collect();
    if known.is_empty() {
        return json!({ "type": "string", "examples": text["examples"] });
    }
    let word = |one: &&Value| {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        format!("`{}`: {}", text("const"), text("description"))
    };
    let described: Vec<String> = known.iter().map(word).collect();
    let examples: Vec<&Value> = known.iter().map(|one| &one["const"]).collect();
    let described = format!("{} There may be others.", described.join(" "));
    json!({ "type": "string", "description": described, "examples": examples })
}

fn nullable(schema: Value) -> Value {
    if schema["$ref"].is_string() {
        return json!({ "anyOf": [schema, { "type": "null" }] });
    }
    let mut nullable = schema;
    nullable["type"] = json!([nullable["type"], "null"]);
    nullable
}
