//! Variables of the environment: which are configuration, and which were meant to be.

use std::ffi::OsString;

use super::finding::Finding;
use super::layers::{ENVIRONMENT_PREFIX, SECTIONS};
use super::merging::Assignment;
use super::{Config, queues::Queue, routing::Status, sources::Source};

/// What the prefix is made of.
const LEAD: &str = "DESKBRIDGE";
/// A lead that is as similar is a misspelt one.
const SIMILARITY_MIN: f64 = 0.8;

/// The variables that set a key, and findings about those that nearly do.
pub(super) fn assignments(
    variables: &[(OsString, OsString)],
) -> (Vec<Assignment<'_>>, Vec<Finding>) {
    let mut assignments = Vec::new();
    let mut findings = Vec::new();
    let known = known_names();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        if let Some(finding) = near_miss(name, &known) {
            findings.push(finding);
            continue;
        }
        let Some(key) = without_prefix(name) else {
            continue;
        };
        match value.to_str() {
            Some(text) => assignments.push(Assignment {
                lead: &name[..ENVIRONMENT_PREFIX.len()],
                parts: key.split("__").collect(),
                is_variable: true,
                text,
            }),
            None => findings.push(Finding::new("", "the value is not UTF-8").at(Some(name))),
        }
    }
    assignments.sort_unstable_by_key(|assignment| assignment.origin(usize::MAX));
    (assignments, findings)
}

/// What stands behind the prefix, which may be written in either case.
pub(super) fn without_prefix(name: &str) -> Option<&str> {
    let (prefix, key) = name.split_at_checked(ENVIRONMENT_PREFIX.len())?;
    prefix
        .eq_ignore_ascii_case(ENVIRONMENT_PREFIX)
        .then_some(key)
}

/// A variable that looks like one of ours and is none. Kubernetes makes variables such as
/// `DESKBRIDGE_HTTP_PORT` of the names of services: one underscore alone says nothing.
fn near_miss(name: &str, known: &[String]) -> Option<Finding> {
    let upper = name.to_ascii_uppercase();
    let key = without_prefix(&upper);
    let is_section = |word: &str| SECTIONS.contains(&word.to_ascii_lowercase().as_str());
    if key.is_some_and(|key| is_section(key.split("__").next().unwrap_or(key))) {
        return None;
    }
    let in_words = words(&upper);
    if let Some(meant) = known.iter().find(|known| words(known) == in_words) {
        let problem =
            format!("is not read: two underscores stand between the parts of a key, `{meant}`");
        return Some(Finding::new("", problem).at(Some(name)));
    }
    if let Some((start, end)) = meant_for_a_table(&in_words) {
        let problem = format!(
            "is not read: two underscores stand between the parts of a key, `{start}__<NAME>__{end}`"
        );
        return Some(Finding::new("", problem).at(Some(name)));
    }
    let (lead, _) = upper.split_once("__").filter(|_| key.is_none())?;
    let is_misspelt = strsim::normalized_damerau_levenshtein(lead, LEAD) >= SIMILARITY_MIN;
    let is_joined = lead
        .strip_prefix(LEAD)
        .is_some_and(|section| is_section(section.trim_start_matches('_')));
    (is_misspelt || is_joined).then(|| {
        let problem = format!(
            "is not read: variables of the configuration begin with `{ENVIRONMENT_PREFIX}`"
        );
        // What is behind may be anything.
        Finding::new("", problem).at(Some(&format!("{}__…", &name[..lead.len()])))
    })
}

/// The key of a section whose name lies in between.
fn meant_for_a_table(in_words: &str) -> Option<(&'static str, String)> {
    let tables = [
        ("DESKBRIDGE__SOURCES", fields(&Source::default())),
        ("DESKBRIDGE__ROUTING__STATUSES", fields(&Status::default())),
        ("DESKBRIDGE__QUEUES", fields(&Queue::default())),
    ];
    tables.into_iter().find_map(|(start, fields)| {
        let rest = in_words.strip_prefix(&words(start))?;
        let is_end =
            |field: &String| rest.len() > field.len() + 2 && rest.ends_with(&format!("_{field}"));
        fields.into_iter().find(is_end).map(|field| (start, field))
    })
}

fn fields(of: &impl serde::Serialize) -> Vec<String> {
    match serde_json::to_value(of) {
        Ok(serde_json::Value::Object(fields)) => {
            fields.keys().map(|key| key.to_uppercase()).collect()
        }
        _ => Vec::new(),
    }
}

/// A name with single underscores.
fn words(name: &str) -> String {
    let words: Vec<_> = name.split('_').filter(|word| !word.is_empty()).collect();
    words.join("_")
}

/// The variable of every key that has no name of the operator's in it.
fn known_names() -> Vec<String> {
    fn collect(name: &str, value: &serde_json::Value, names: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    collect(&format!("{name}__{}", key.to_uppercase()), value, names);
                }
            }
            _ => names.push(name.to_owned()),
        }
    }
    let mut names = Vec::new();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    collect(LEAD, &defaults, &mut names);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(name: &str) -> Option<String> {
        near_miss(name, &known_names()).map(|finding| finding.to_string())
    }

    #[test]
    fn near_misses_are_found_and_say_what_was_meant() {
        for (name, meant) in [
            ("DESKBRIDGE_HTTP__LISTEN", "`DESKBRIDGE__HTTP__LISTEN`"),
            ("DESKBRIDGE_HTTP_LISTEN", "`DESKBRIDGE__HTTP__LISTEN`"),
            ("deskbridge__http_listen", "`DESKBRIDGE__HTTP__LISTEN`"),
            ("DESKBRIDGE___HTTP__LISTEN", "`DESKBRIDGE__HTTP__LISTEN`"),
            (
                "DESKBRIDGE_RABBITMQ_TLS_CA_FILE",
                "`DESKBRIDGE__RABBITMQ__TLS__CA_FILE`",
            ),
            (
                "DESKBRIDGE_RABBITMQ_URL_FILE",
                "`DESKBRIDGE__RABBITMQ__URL_FILE`",
            ),
            (
                "DESKBRIDGE_SOURCES_DD_SECRETS",
                "`DESKBRIDGE__SOURCES__<NAME>__SECRETS`",
            ),
            (
                "DESKBRIDGE_QUEUES__0__NAME",
                "`DESKBRIDGE__QUEUES__<NAME>__NAME`",
            ),
            ("DESKBRIGE__HTTP__LISTEN", "begin with `DESKBRIDGE__`"),
            ("DESKBRIDGE_HTTP__LISTNE", "begin with `DESKBRIDGE__`"),
        ] {
            let found = missed(name).unwrap_or_default();
            assert!(found.contains(meant), "{name}: {found}");
        }
        assert!(
            !missed("DESKBRIDGE_HTTP__hunter2")
                .unwrap()
                .contains("hunter2")
        );
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for name in [
            "PATH",
            "DESKBRIDGE_CONFIG",
            "DESKBRIDGE_FAILPOINT",
            "DESKBRIDGE_DOMAIN",
            "DESKBRIDGE_OTHER",
            "DESKBRIDGE_SERVICE_HOST",
            "DESKBRIDGE_PORT_8080_TCP_ADDR",
            "DESKBRIDGE_HTTP_PORT",
            "DESKBRIDGE_HTTP_SERVICE_PORT_HTTP",
            "DESKBRIDGE_QUEUES_PORT",
            "DESKBRIDGE__HTTP__LISTEN",
            "deskbridge__sources__dd__secrets",
            "DESKBRIDGE__HTPP__LISTEN",
            "OTHER__HTTP__LISTEN",
        ] {
            assert_eq!(missed(name), None, "{name}");
        }
    }
}
