//! Findings: what is wrong with a configuration, one line each, never with a secret.

use std::fmt;

use super::layers;
use crate::foreign;

/// A longer name that resembles no key is not shown: it could be a secret.
const NAME_BYTES_MAX: usize = 15;
/// Minimum similarity (0 to 1) for suggesting a key.
const SIMILARITY_MIN: f64 = 0.5;

/// One problem that the operator has to fix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigFinding {
    /// Dotted path of the key; empty if the finding is about a file or a variable.
    pub key: String,
    /// What is wrong and how to fix it.
    pub problem: String,
    /// Where the value came from: file and line, environment variable or flag.
    pub origin: Option<String>,
}

impl ConfigFinding {
    /// A finding for a key, without an origin.
    #[must_use]
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
            origin: None,
        }
    }

    /// The same finding with the origin of its value.
    #[must_use]
    pub fn at(self, origin: Option<&str>) -> Self {
        Self {
            origin: origin.map(str::to_owned),
            ..self
        }
    }

    /// A finding for an unknown key, with the most similar known key. A name that does not look
    /// like a key is not shown: if a `=` is missing, it may contain a secret.
    pub(super) fn unknown_key(key: &str, known: &[&str], origin: Option<&str>) -> Self {
        let name = key.rsplit('.').next().unwrap_or(key);
        let parent = &key[..key.len() - name.len()];
        let (similarity, nearest) = nearest(name, known);
        let is_similar = similarity >= SIMILARITY_MIN;
        let begun = known.iter().find(|known| is_run_together(name, known));
        let shown = match begun {
            Some(known) => format!("{parent}{known}…"),
            None if looks_like_a_key(name, is_similar) => key.to_owned(),
            None => format!("{parent}…"),
        };
        let advice = match begun {
            Some(known) => format!("did you mean `{parent}{known} = …`? a `=` is missing"),
            None if is_similar => format!("did you mean `{parent}{nearest}`?"),
            None => {
                let known = known.join(", ");
                format!("the most similar is `{parent}{nearest}`; known are {known}")
            }
        };
        let origin = origin.map(|origin| layers::origin_of(&shown, origin));
        Self::new(shown, format!("unknown key; {advice}")).at(origin.as_deref())
    }

    /// Whether one of the two keys contains the other; then one finding may cause the other.
    pub(super) fn touches(&self, other: &Self) -> bool {
        let (own, other) = (standing_for(&self.key), standing_for(&other.key));
        contains(own, other) || contains(other, own)
    }
}

/// Always one line: control characters from the configuration are escaped.
impl fmt::Display for ConfigFinding {
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

/// All findings of a configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Sorted by key, never empty.
    pub findings: Vec<ConfigFinding>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.findings.iter().map(ToString::to_string).collect();
        formatter.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// For a `…_file` key of `[rabbitmq]`, the key whose value the file contains.
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

/// Whether a name consists of letters, `_` and `-`, like a key; few secrets do.
fn looks_like_a_key(name: &str, is_similar: bool) -> bool {
    let is_plain = |c: char| c.is_ascii_alphabetic() || "_-".contains(c);
    name.chars().all(is_plain)
        && (name.len() <= NAME_BYTES_MAX || (is_similar && name.len() <= 2 * NAME_BYTES_MAX))
}

/// Whether `name` is the known key directly followed by text that does not look like a key.
fn is_run_together(name: &str, known: &str) -> bool {
    let behind = name.get(known.len()..).filter(|_| name.starts_with(known));
    behind.is_some_and(|behind| behind.len() > 1 && !looks_like_a_key(behind, false))
}

/// The most similar known name and its similarity, from 0 to 1.
fn nearest<'a>(name: &str, known: &[&'a str]) -> (f64, &'a str) {
    let all = known
        .iter()
        .map(|candidate| (similarity(name, candidate), *candidate));
    let nearest = all.max_by(|(left, _), (right, _)| left.total_cmp(right));
    nearest.unwrap_or_default()
}

/// Similarity of spelling, or of the same words in another order; at most 1.
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
    fn nearest_key_or_all_keys_are_named() {
        let known = ["listen", "body_bytes_max", "sessions_max"];
        let problem = |key| ConfigFinding::unknown_key(key, &known, None).problem;
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
            "unknown key; the most similar is `http.listen`; known are listen, body_bytes_max, sessions_max"
        );
        assert_eq!(
            ConfigFinding::unknown_key("htp", &["http", "admin"], None).problem,
            "unknown key; did you mean `http`?"
        );
    }

    #[test]
    fn text_unlike_a_key_is_not_shown() {
        let known = ["secrets", "secret_files", "signature"];
        for (key, origin, expected) in [
            (
                "sources.x.secretshunter2hunter2",
                "--set sources.x.secretshunter2hunter2",
                "sources.x.secrets…: unknown key; did you mean `sources.x.secrets = …`? a `=` is missing (--set sources.x.secrets…)",
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
            let shown = ConfigFinding::unknown_key(key, &known, Some(origin)).to_string();
            assert!(shown.starts_with(expected), "{shown}");
            assert!(!shown.to_lowercase().contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn finding_is_one_line_whatever_the_input() {
        let finding = ConfigFinding::new("a\nb", "\u{1b}[2Jof \r\n ä").at(Some("x\n:1"));
        assert_eq!(finding.to_string(), r"a\nb: \u{1b}[2Jof \r\n ä (x\n:1)");
    }

    #[test]
    fn findings_overlap_if_one_key_contains_the_other() {
        let check = |left: &str, right: &str, expected| {
            assert_eq!(
                ConfigFinding::new(left, "").touches(&ConfigFinding::new(right, "")),
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
