//! JSON Schema of a configuration file, derived from the configuration structs. This module adds
//! only what the structs cannot express. It accesses no files.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::Config;
use super::units::{DURATION_PATTERN, SIZE_PATTERN, Size, Span};

const DESCRIPTION: &str = "A configuration file of deskbridge (TOML). Every key is optional. Later \
    files, DESKBRIDGE__… variables and --set override it. `deskbridge check` also validates how \
    values relate.";

/// The JSON Schema (draft 2020-12) of a whole configuration file.
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

/// Removes null from types and defaults: TOML has none, an optional key is left out.
fn without_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
}

/// Keeps defaults of single keys only: removes those of whole sections and of required keys.
fn with_defaults_at_keys(schema: &mut Schema) {
    if schema.get("$ref").is_some() && schema.get("default").is_some_and(Value::is_object) {
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

/// Replaces integer formats such as `uint32`, which validators do not know, by a `maximum`.
fn with_plain_numbers(schema: &mut Schema) {
    match schema.get("format").and_then(Value::as_str) {
        Some("uint32") => schema.insert("maximum".into(), json!(u32::MAX)),
        Some("uint" | "uint64") => None,
        _ => return,
    };
    schema.remove("format");
}
