//! Templates of routing keys: text with placeholders for an event's fields.

use std::fmt;
use std::sync::Arc;

use crate::webhook::{Fields, cut};

/// Bytes of an AMQP short string.
const KEY_BYTES_MAX: usize = 255;

/// What a placeholder of a value that is not there becomes.
const ABSENT: &str = "none";

/// Names of placeholders are shorter.
const NAME_BYTES_MAX: usize = 20;

/// A template of the configuration that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}`: {problem}")]
pub struct TemplateError {
    /// Where it stands, as a dotted key.
    pub name: String,
    /// What is wrong with it.
    pub problem: TemplateProblem,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateProblem {
    /// A placeholder nobody fills.
    #[error("unknown placeholder{}, there are {list}", quoted(.0), list = Placeholders)]
    UnknownPlaceholder(String),
    /// A `{` that is not closed, or a `}` that was not opened.
    #[error("a brace that is not one of a pair, as in {list}", list = Placeholders)]
    UnbalancedBrace,
}

/// Text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Status,
    Type,
    Source,
    PreviousStatus,
    Company,
}

const PLACEHOLDERS: [(&str, Placeholder); 5] = [
    ("status", Placeholder::Status),
    ("type", Placeholder::Type),
    ("source", Placeholder::Source),
    ("previous_status", Placeholder::PreviousStatus),
    ("company", Placeholder::Company),
];

impl Template {
    /// Reads a template: every pair of braces holds the name of a placeholder.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(template: &str) -> Result<Self, TemplateProblem> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(brace) = rest.find(['{', '}']) {
            let (text, from_brace) = rest.split_at(brace);
            parts.push(Part::Text(text.into()));
            let (name, after) = from_brace
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .filter(|(name, _)| !name.contains('{'))
                .ok_or(TemplateProblem::UnbalancedBrace)?;
            parts.push(Part::Value(placeholder(name)?));
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        Ok(Self(parts))
    }

    /// The key of all events of a status, if no other field is asked for.
    pub fn fixed(&self, status: &str) -> Option<Arc<str>> {
        let is_fixed = self
            .0
            .iter()
            .all(|part| matches!(part, Part::Text(_) | Part::Value(Placeholder::Status)));
        is_fixed.then(|| self.fill(status, "", &Fields::default()))
    }

    /// The template with the status filled in; the other placeholders stay in their braces.
    pub fn address(&self, status: &str) -> String {
        let mut address = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => address.push_str(text),
                Part::Value(Placeholder::Status) => address.extend(status.chars().map(key_char)),
                Part::Value(placeholder) => {
                    let named = PLACEHOLDERS.iter().find(|(_, known)| known == placeholder);
                    address.extend(named.map(|(name, _)| format!("{{{name}}}")));
                }
            }
        }
        address
    }

    /// The key of one event, at most 255 bytes.
    pub fn fill(&self, status: &str, source: &str, fields: &Fields) -> Arc<str> {
        let mut key = String::new();
        for part in &self.0 {
            let value = match part {
                Part::Text(text) => {
                    key.push_str(text);
                    continue;
                }
                Part::Value(Placeholder::Status) => Some(status),
                Part::Value(Placeholder::Source) => Some(source),
                Part::Value(Placeholder::Type) => fields.session_type.as_deref(),
                Part::Value(Placeholder::PreviousStatus) => fields.previous_status.as_deref(),
                Part::Value(Placeholder::Company) => fields.company.as_deref(),
            };
            let value = value.unwrap_or(ABSENT);
            // One character of the key each: more than the key can hold is not looked at.
            key.extend(value.chars().take(KEY_BYTES_MAX).map(key_char));
        }
        cut(&key, KEY_BYTES_MAX).into()
    }
}

fn placeholder(name: &str) -> Result<Placeholder, TemplateProblem> {
    PLACEHOLDERS
        .into_iter()
        .find_map(|(known, placeholder)| (known == name).then_some(placeholder))
        .ok_or_else(|| TemplateProblem::UnknownPlaceholder(name.into()))
}

/// Keeps dots, wildcards and everything else that means something in a key out of it.
fn key_char(char: char) -> char {
    if char.is_ascii_alphanumeric() || matches!(char, '-' | '_') {
        char
    } else {
        '_'
    }
}

/// A name, unless it looks like anything but the name of a placeholder: it could be a secret.
fn quoted(name: &str) -> String {
    let is_name =
        name.len() <= NAME_BYTES_MAX && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    if is_name {
        format!(" `{{{name}}}`")
    } else {
        String::new()
    }
}

/// The names of all placeholders, as an operator writes them.
struct Placeholders;

impl fmt::Display for Placeholders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = PLACEHOLDERS.into_iter().map(|(name, _)| name);
        write!(formatter, "`{{{}}}`", names.next().unwrap_or_default())?;
        names.try_for_each(|name| write!(formatter, " `{{{name}}}`"))
    }
}
