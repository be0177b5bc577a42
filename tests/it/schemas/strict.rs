//! `schema --strict` and `asyncapi --strict`: the interface that DeskDirector publishes, without
//! anything that code generators turn into `unknown` or `any`.

use std::collections::BTreeSet;

use deskbridge::webhook::session::ChatSession;
use serde_json::{Value, json};

use super::session::{paths, shapes, with};
use super::{document, sent_sessions};
use crate::support::validator::{asyncapi, json_schema};

/// Whether a session has every field as the interface defines it.
fn is_defined(session: &Value) -> bool {
    let session: ChatSession = serde_json::from_str(&session.to_string()).unwrap();
    !format!("{session:?}").contains("Unexpected")
}

fn all_paths(schema: &Value) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    paths(schema, schema, &[], &mut found);
    found
}

/// Panics at a schema that does not name one type, or one type and `null`.
fn is_typed(schema: &Value) {
    if let Some(alternatives) = schema["anyOf"].as_array() {
        let [object, null] = alternatives.as_slice() else {
            panic!("{schema}");
        };
        assert!(object["$ref"].is_string(), "{schema}");
        assert_eq!(*null, json!({ "type": "null" }));
    } else if !schema["$ref"].is_string() {
        let of_null = schema["type"].as_array();
        let name = of_null.map_or(&schema["type"], |types| {
            assert_eq!(types[1..], ["null"], "{schema}");
            &types[0]
        });
        assert!(name.is_string(), "{schema}");
        if name == "array" {
            is_typed(&schema["items"]);
        }
    }
    for field in schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(|all| all.values())
    {
        is_typed(field);
    }
}

#[test]
fn strict_schema_accepts_what_is_sent() {
    let sessions = sent_sessions();
    let statuses: BTreeSet<&str> = sessions
        .iter()
        .filter_map(|one| one["status"].as_str())
        .collect();
    assert_eq!(sessions.len(), 301);
    assert_eq!(statuses.len(), 5, "{statuses:?}");
    let wrong = json_schema(&document(&["schema", "--strict"]), &sessions);
    assert_eq!(wrong, vec![Vec::<String>::new(); 301]);
}

#[test]
fn strict_schema_has_the_fields_of_the_tolerant_one() {
    let (tolerant, strict) = (document(&["schema"]), document(&["schema", "--strict"]));
    assert_eq!(all_paths(&strict), all_paths(&tolerant));
    assert_eq!(strict["required"], tolerant["required"]);
    let definitions = strict["definitions"].as_object().unwrap();
    for (name, definition) in definitions {
        assert_eq!(definition["title"], **name);
    }
    for object in definitions.values().chain([&strict]) {
        is_typed(object);
        for field in object["properties"].as_object().into_iter().flatten() {
            assert!(field.1["description"].is_string(), "{field:?}");
        }
    }
}

#[test]
fn strict_schema_accepts_only_defined_types() {
    let schema = document(&["schema", "--strict"]);
    let mut sessions = Vec::new();
    for path in all_paths(&schema)
        .iter()
        .filter(|path| *path != &["id"] && *path != &["status"])
    {
        sessions.extend(
            shapes()
                .iter()
                .map(|shape| (path.clone(), with(path, shape))),
        );
    }
    let instances: Vec<Value> = sessions
        .iter()
        .map(|(_, session)| session.clone())
        .collect();
    let mut accepted = 0;
    for ((path, session), wrong) in sessions.iter().zip(json_schema(&schema, &instances)) {
        let is_fraction =
            path.last().unwrap() == "entityId" && session.to_string().contains("-1.5");
        let expected = is_defined(session) && !is_fraction;
        assert_eq!(wrong.is_empty(), expected, "{session}: {wrong:?}");
        accepted += usize::from(wrong.is_empty());
    }
    assert!(
        accepted > 70 && sessions.len() - accepted > 150,
        "{accepted}"
    );
    let required = [
        json!({"status": "missed"}),
        json!({"id": "1-1"}),
        json!({"id": 1, "status": "missed"}),
        json!({"id": "1-1", "status": null}),
    ];
    assert!(
        json_schema(&schema, &required)
            .iter()
            .all(|wrong| wrong.len() == 1)
    );
    let open =
        json!({"id": "1-1", "status": "a new one", "type": "pull", "mood": {"of": ["the", 1]}});
    assert_eq!(json_schema(&schema, &[open]), [Vec::<String>::new()]);
}

#[test]
fn times_and_ids_have_their_formats() {
    let text = document(&["schema", "--strict"]).to_string();
    // Three of a session, and those of its report, its close record and a period.
    assert_eq!(text.matches("\"date-time\"").count(), 7);
    assert_eq!(text.matches("\"integer\"").count(), 2);
}

#[test]
fn strict_document_has_one_typed_session() {
    let document = document(&["asyncapi", "--strict"]);
    assert_eq!(
        asyncapi(std::slice::from_ref(&document)),
        [Vec::<String>::new()]
    );
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        let payload =
            (name != "dead-letter").then(|| json!({ "$ref": "#/components/schemas/ChatSession" }));
        assert_eq!(message.get("payload"), payload.as_ref(), "{name}");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let is_object = |name: &&String| !name.ends_with("Headers");
    assert_eq!(schemas.keys().filter(is_object).count(), 8);
    schemas.values().for_each(is_typed);
    let mut schema = document.clone();
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["allOf"] = json!([{ "$ref": "#/components/schemas/ChatSession" }]);
    let wrong = json_schema(&schema, &sent_sessions());
    assert!(wrong.iter().all(Vec::is_empty), "{wrong:?}");
}
