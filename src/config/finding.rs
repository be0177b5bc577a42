//! What is wrong with a configuration: one line a finding, all of them at once. Never a secret.

use std::fmt;

use super::layers;
use crate::telemetry::foreign;

/// Longer names that resemble no key are not shown.
const NAME_BYTES_MAX: usize = 15;
/// Less similar names are not worth a question.
const SIMILARITY_MIN: f64 = 0.5;

/// One thing an operator has to change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Dotted path of the key; empty when a whole file is meant.
    pub key: String,
    /// What is wrong and what to do about it.
    pub problem: String,
    /// File and line, environment variable or flag the value came from.
    pub origin: Option<String>,
}

impl Finding {
    /// A finding at a key, its origin not yet known.
    #[must_use]
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
            origin: None,
        }
    }

    /// The same with the place its value came from.
    #[must_use]
    pub fn at(self, origin: Option<&str>) -> Self {
        Self {
            origin: origin.map(str::to_owned),
            ..self
        }
    }

    /// A key that no section knows, with the nearest of those it could have been. What does not
    /// look like a key is not shown: a secret may stand there for want of a `=`.
    pub(super) fn unknown_key(key: &str, known: &[&str], origin: Option<&str>) -> Self {
        let name = key.rsplit('.').next().unwrap_or(key);
        let parent = &key[..key.len() - name.len()];
        let (similarity, nearest) = nearest(name, known);
        let is_similar = similarity >= SIMILARITY_MIN;
        let begun = known.iter().find(|known| is_run_together(name, known));
        let shown = match begun {
            Some(known) => format!("{known}…"),
            None if looks_like_a_key(name, is_similar) => name.to_owned(),
            None => "…".to_owned(),
        };
        let advice = match begun {
            Some(known) => format!("did you mean `{parent}{known}`, and a `=` is missing?"),
            None if is_similar => format!("did you mean `{parent}{nearest}`?"),
            None => format!("the nearest is `{parent}{nearest}` of {}", known.join(", ")),
        };
        let shown = format!("{parent}{shown}");
        let origin = origin.map(|origin| layers::origin_of(&shown, origin));
        Self::new(shown, format!("unknown key; {advice}")).at(origin.as_deref())
    }

    /// Whether one of the two keys contains the other, so that one is the cause of the other.
    pub(super) fn touches(&self, other: &Self) -> bool {
        let (own, other) = (standing_for(&self.key), standing_for(&other.key));
        contains(own, other) || contains(other, own)
    }
}

/// One line, whatever stands in the configuration.
impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, problem) = (foreign::line(&self.key), foreign::line(&self.problem));
        let origin = self.origin.as_deref().map(foreign::line);
        match (self.key.is_empty(), origin) {
            (true, None) => formatter.write_str(&problem),
            (true, Some(origin)) => write!(formatter, "{origin}: {problem}"),
            (false, None) => write!(formatter, "{key}: {problem}"),
            (false, Some(origin)) => write!(formatter, "{key}: {problem} ({origin})"),
        }
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of their keys.
    pub findings: Vec<Finding>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{finding}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The key whose value a file gives.
fn standing_for(key: &str) -> &str {
    match key {
        "rabbitmq.url_file" => "rabbitmq.urls",
        "rabbitmq.management_url_file" => "rabbitmq.management_url",
        key => key,
    }
}

fn contains(outer: &str, inner: &str) -> bool {
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A name of letters only: keys have nothing else, and few secrets are so.
fn looks_like_a_key(name: &str, is_similar: bool) -> bool {
    let is_plain = |c: char| c.is_ascii_alphabetic() || "_-".contains(c);
    name.chars().all(is_plain)
        && (name.len() <= NAME_BYTES_MAX || (is_similar && name.len() <= 2 * NAME_BYTES_MAX))
}

/// Whether a known name has something behind it that is no word of a key.
fn is_run_together(name: &str, known: &str) -> bool {
    let behind = name.get(known.len()..).filter(|_| name.starts_with(known));
    behind.is_some_and(|behind| behind.len() > 1 && !looks_like_a_key(behind, false))
}

/// The most similar of the known names and how similar it is, from 0 to 1.
fn nearest<'a>(name: &str, known: &[&'a str]) -> (f64, &'a str) {
    known
        .iter()
        .map(|candidate| (similarity(name, candidate), *candidate))
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .unwrap_or_default()
}

/// Spelt alike, or made of the same words in another order.
fn similarity(left: &str, right: &str) -> f64 {
    let in_order = |name: &str| {
        let mut words: Vec<&str> = name.split(['_', '-']).collect();
        words.sort_unstable();
        words.join("_")
    };
    let spelling = strsim::normalized_damerau_levenshtein(left, right);
    let words = strsim::normalized_damerau_levenshtein(&in_order(left), &in_order(right));
    spelling
        .max(words)
        .max(strsim::jaro_winkler(left, right) - 0.2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named_or_else_all_of_them() {
        let known = ["listen", "body_bytes_max", "sessions_max"];
        let problem = |key| Finding::unknown_key(key, &known, None).problem;
        assert_eq!(
            problem("http.listn"),
            "unknown key; did you mean `http.listen`?"
        );
        assert_eq!(
            problem("http.max_sessions"),
            "unknown key; did you mean `http.sessions_max`?"
        );
        assert_eq!(
            problem("http.tls"),
            "unknown key; the nearest is `http.listen` of listen, body_bytes_max, sessions_max"
        );
        assert_eq!(
            Finding::unknown_key("htp", &["http", "admin"], None).problem,
            "unknown key; did you mean `http`?"
        );
    }

    #[test]
    fn what_does_not_look_like_a_key_is_not_shown() {
        let known = ["secrets", "secret_files", "signature"];
        for (key, origin, expected) in [
            (
                "sources.x.secretshunter2hunter2",
                "--set sources.x.secretshunter2hunter2",
                "sources.x.secrets…: unknown key; did you mean `sources.x.secrets`, and a `=` is missing? (--set sources.x.secrets…)",
            ),
            (
                "sources.x.hunter2",
                "DESKBRIDGE__SOURCES__X__HUNTER2",
                "sources.x.…: unknown key; ",
            ),
            (
                "sources.x.secret",
                "a.toml:4",
                "sources.x.secret: unknown key; did you mean `sources.x.secrets`? (a.toml:4)",
            ),
        ] {
            let shown = Finding::unknown_key(key, &known, Some(origin)).to_string();
            assert!(shown.starts_with(expected), "{shown}");
            assert!(!shown.to_lowercase().contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn a_finding_is_one_line_whatever_stands_in_the_file() {
        let finding = Finding::new("a\nb", "\u{1b}[2Jof \r\n ä").at(Some("x\n:1"));
        assert_eq!(finding.to_string(), r"a\nb: \u{1b}[2Jof \r\n ä (x\n:1)");
    }

    #[test]
    fn findings_touch_when_one_key_contains_the_other() {
        let check = |left: &str, right: &str, expected| {
            assert_eq!(
                Finding::new(left, "").touches(&Finding::new(right, "")),
                expected,
                "{left} {right}"
            );
        };
        check("sources.a", "sources.a.secret", true);
        check("sources.a.secrets[0]", "sources.a.secrets", true);
        check("sources.a", "sources.ab", false);
        check("http.listen", "http.listen", true);
    }
}
