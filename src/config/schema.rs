//! JSON Schema of a configuration file. Made of the structs that the reader fills, so that a key
//! has to be told once; only what the structs cannot say is added here. Looks at no file.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::Config;
use super::units::{DURATION_PATTERN, SIZE_PATTERN, Size, Span};

const DESCRIPTION: &str = "A configuration file of deskbridge (TOML). Every key may be left out; \
    later files, DESKBRIDGE__… variables and --set are stronger. What goes together is looked at by \
    `deskbridge check`.";

/// The schema (draft 2020-12) of a whole file.
#[must_use]
pub fn schema() -> Schema {
    let settings = SchemaSettings::draft2020_12()
        .with_transform(RecursiveTransform(without_null))
        .with_transform(RecursiveTransform(with_defaults_at_keys))
        .with_transform(RecursiveTransform(with_plain_numbers));
    let mut schema = settings.into_generator().into_root_schema_for::<Config>();
    schema.insert("title".into(), "deskbridge configuration".into());
    schema.insert("description".into(), DESCRIPTION.into());
    schema
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration: whole numbers with the units ms, s, m, h, d, w.",
            "examples": ["200ms", "10s", "1h30m", "7d"],
            "anyOf": [{ "type": "string", "pattern": DURATION_PATTERN }, { "const": 0 }],
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A size: a whole number with one of the units B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, or of bytes.",
            "examples": ["64MiB", "16MB", 1_048_576],
            "anyOf": [
                { "type": "string", "pattern": SIZE_PATTERN },
                { "type": "integer", "minimum": 0 },
            ],
        })
    }
}

/// TOML has no null: a key that may be absent is just left out.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| *choice != json!({ "type": "null" }));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            let object = schema.ensure_object();
            only.into_iter().for_each(|(key, value)| {
                object.entry(key).or_insert(value);
            });
        }
    }
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
}

/// Defaults stand at the keys: neither at whole sections nor at what has to be given.
fn with_defaults_at_keys(schema: &mut Schema) {
    let is_section =
        schema.get("$ref").is_some() && schema.get("default").is_some_and(Value::is_object);
    if is_section {
        schema.remove("default");
    }
    let required = schema.get("required").and_then(Value::as_array).cloned();
    for name in required.iter().flatten().filter_map(Value::as_str) {
        let key = schema.pointer_mut(&format!("/properties/{name}"));
        if let Some(Value::Object(key)) = key {
            key.remove("default");
        }
    }
}

/// Formats that no validator knows become limits, which all of them know.
fn with_plain_numbers(schema: &mut Schema) {
    let format = schema.get("format").and_then(Value::as_str);
    let maximum = match format {
        Some("uint32") => Some(json!(u32::MAX)),
        Some("uint" | "uint64") => None,
        _ => return,
    };
    schema.remove("format");
    if let Some(maximum) = maximum {
        schema.insert("maximum".into(), maximum);
    }
}
