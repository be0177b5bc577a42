//! Environment variables: those that set a key, and those that look like a misspelt key.

use std::ffi::OsString;
use std::sync::LazyLock;

use config::ValueKind;

use super::Config;
use super::assignment::Assignment;
use super::finding::ConfigFinding;
use super::layers::{ENVIRONMENT_PREFIX, walk};
use super::queues::QueueConfig;
use super::routing::StatusRouting;
use super::sources::SourceConfig;

/// The prefix without its underscores.
const LEAD: &str = "DESKBRIDGE";
/// The sections of the configuration: the first part of every key.
pub(super) static SECTIONS: LazyLock<Vec<String>> = LazyLock::new(sections);
/// The variables of all keys.
static KNOWN: LazyLock<Vec<String>> = LazyLock::new(known_variables);
/// Stands for a name or an index that the operator chooses.
const NAME: &str = "<NAME>";
/// From this similarity on, the start of a name counts as a misspelt prefix.
const SIMILARITY_MIN: f64 = 0.8;

/// The variables that set a key, and findings for those that look like a misspelt key.
pub(super) fn assignments(
    variables: &[(OsString, OsString)],
) -> (Vec<Assignment<'_>>, Vec<ConfigFinding>) {
    let mut assignments = Vec::new();
    let mut findings = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        if let Some(finding) = near_miss(name) {
            findings.push(finding);
            continue;
        }
        let Some(key) = without_prefix(name) else {
            continue;
        };
        match value.to_str() {
            Some(text) => assignments.push(Assignment {
                lead: &name[..ENVIRONMENT_PREFIX.len()],
                parts: key.split("__").map(str::to_owned).collect(),
                is_variable: true,
                text,
            }),
            None => findings.push(ConfigFinding::new("", "the value is not UTF-8").at(Some(name))),
        }
    }
    assignments.sort_unstable_by_key(|assignment| assignment.origin(usize::MAX));
    (assignments, findings)
}

/// The part of a name after the prefix, which is matched without regard to case.
pub(super) fn without_prefix(name: &str) -> Option<&str> {
    let (prefix, key) = name.split_at_checked(ENVIRONMENT_PREFIX.len())?;
    prefix
        .eq_ignore_ascii_case(ENVIRONMENT_PREFIX)
        .then_some(key)
}

/// A finding for a variable that looks like one of ours and sets nothing. Kubernetes derives
/// variables such as `DESKBRIDGE_HTTP_PORT` from service names, so a name with single underscores
/// counts only if its words are those of a key.
fn near_miss(name: &str) -> Option<ConfigFinding> {
    let upper = name.to_ascii_uppercase();
    let key = without_prefix(&upper);
    let is_section = |word: &str| SECTIONS.contains(&word.to_ascii_lowercase());
    if key.is_some_and(|key| is_section(key.split("__").next().unwrap_or(key))) {
        return None;
    }
    let in_words = words(&upper);
    if let Some(meant) = KNOWN.iter().find(|known| is_meant(known, &in_words)) {
        let problem =
            format!("is unknown: the parts of a key are separated by two underscores, `{meant}`");
        return Some(ConfigFinding::new("", problem).at(Some(name)));
    }
    let (lead, _) = upper.split_once("__").filter(|_| key.is_none())?;
    let is_misspelt = strsim::normalized_damerau_levenshtein(lead, LEAD) >= SIMILARITY_MIN;
    let is_joined = lead
        .strip_prefix(LEAD)
        .is_some_and(|section| is_section(section.trim_start_matches('_')));
    (is_misspelt || is_joined).then(|| {
        let problem =
            format!("is unknown: configuration variables begin with `{ENVIRONMENT_PREFIX}`");
        // The rest of the name is not shown: it could contain a secret.
        ConfigFinding::new("", problem).at(Some(&format!("{}__…", &name[..lead.len()])))
    })
}

/// Whether the words of a variable are those of this known one.
fn is_meant(known: &str, in_words: &str) -> bool {
    let Some((table, field)) = known.split_once(NAME) else {
        return words(known) == in_words;
    };
    let rest = in_words.strip_prefix(&words(table));
    let name = rest.and_then(|rest| rest.strip_suffix(&format!("_{}", words(field))));
    name.is_some_and(|name| name.len() > 1)
}

/// The words of a name, joined by single underscores.
fn words(name: &str) -> String {
    let words: Vec<_> = name.split('_').filter(|word| !word.is_empty()).collect();
    words.join("_")
}

/// The variable that sets a key.
pub(super) fn variable(key: &str) -> String {
    let name = key.to_uppercase().replace('.', "__");
    format!("{ENVIRONMENT_PREFIX}{name}")
}

fn known_variables() -> Vec<String> {
    let mut complete = Config::default();
    complete
        .sources
        .insert(NAME.into(), SourceConfig::default());
    let status = StatusRouting::default();
    complete.routing.statuses.insert(NAME.into(), status);
    complete.queues.push(QueueConfig::default());
    let tree = serde_json::to_value(complete).and_then(serde_json::from_value);
    let mut names = Vec::new();
    walk("", &tree.unwrap_or_default(), &mut |key, value| {
        if !matches!(value.kind, ValueKind::Table(_)) {
            names.push(variable(&key.replace("[0]", &format!(".{NAME}"))));
        }
    });
    names.sort();
    names
}

fn sections() -> Vec<String> {
    let section = |name: &String| Some(name.split("__").nth(1)?.to_lowercase());
    let mut sections: Vec<_> = KNOWN.iter().filter_map(section).collect();
    sections.dedup();
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(name: &str) -> Option<String> {
        near_miss(name).map(|finding| finding.to_string())
    }

    #[test]
    fn misspelled_names_are_found_with_a_suggestion() {
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
    fn foreign_variables_are_ignored() {
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
