//! Templates of routing keys: text with placeholders for an event's fields.

use std::sync::Arc;

use crate::webhook::attributes::ATTRIBUTES;
use crate::webhook::{Fields, cut};

/// Maximum length of a routing key, in bytes: that of an AMQP short string.
const KEY_BYTES_MAX: usize = 255;

/// Replaces a placeholder whose value is absent.
const ABSENT: &str = "none";

/// Maximum length of an unknown placeholder's name that is repeated in an error, in bytes.
const NAME_BYTES_MAX: usize = 20;

/// A template of the configuration that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}`: {problem}")]
pub struct TemplateError {
    /// The template's dotted key in the configuration.
    pub name: String,
    /// What is wrong with it.
    pub problem: TemplateProblem,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateProblem {
    /// A placeholder with an unknown name.
    #[error("unknown placeholder{}; use one of {list}", quoted(.0), list = placeholders())]
    UnknownPlaceholder(String),
    /// A `{` that is not closed, or a `}` that was not opened.
    #[error("unbalanced brace; placeholders are written as {list}", list = placeholders())]
    UnbalancedBrace,
}

/// Text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(Vec<TemplatePart>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(String),
    /// The name of a placeholder, and what it stands for.
    Value(&'static str, Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Status,
    Source,
    /// Its position in [`ATTRIBUTES`].
    Attribute(usize),
}

impl Placeholder {
    fn all() -> impl Iterator<Item = (&'static str, Self)> {
        let attributes = ATTRIBUTES.iter().enumerate();
        [("status", Self::Status), ("source", Self::Source)]
            .into_iter()
            .chain(attributes.map(|(position, one)| (one.placeholder, Self::Attribute(position))))
    }
}

impl Template {
    /// Parses a template: every pair of braces contains the name of a placeholder.
    ///
    /// # Errors
    /// The first problem in the template.
    pub fn parse(template: &str) -> Result<Self, TemplateProblem> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(brace) = rest.find(['{', '}']) {
            let (text, from_brace) = rest.split_at(brace);
            parts.push(TemplatePart::Text(text.into()));
            let (name, after) = from_brace
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .filter(|(name, _)| !name.contains('{'))
                .ok_or(TemplateProblem::UnbalancedBrace)?;
            let (name, placeholder) = Placeholder::all()
                .find(|(known, _)| *known == name)
                .ok_or_else(|| TemplateProblem::UnknownPlaceholder(name.into()))?;
            parts.push(TemplatePart::Value(name, placeholder));
            rest = after;
        }
        parts.push(TemplatePart::Text(rest.into()));
        Ok(Self(parts))
    }

    /// The template with the status filled in.
    pub fn with_status(mut self, status: &str) -> Self {
        for part in &mut self.0 {
            if matches!(part, TemplatePart::Value(_, Placeholder::Status)) {
                *part = TemplatePart::Text(status.chars().map(key_char).collect());
            }
        }
        self
    }

    /// The key of all events, if no placeholder is left.
    pub fn fixed(&self) -> Option<Arc<str>> {
        let is_text = |part: &TemplatePart| matches!(part, TemplatePart::Text(_));
        let is_fixed = self.0.iter().all(is_text);
        is_fixed.then(|| self.fill("", &Fields::default()))
    }

    /// The template as text, with the placeholders that are left in braces.
    pub fn address(&self) -> String {
        let shown = |part: &TemplatePart| match part {
            TemplatePart::Text(text) => text.clone(),
            TemplatePart::Value(name, _) => format!("{{{name}}}"),
        };
        self.0.iter().map(shown).collect()
    }

    /// The key of one event of a template with its status, at most 255 bytes.
    pub fn fill(&self, source: &str, fields: &Fields) -> Arc<str> {
        let mut key = String::new();
        for part in &self.0 {
            let value = match part {
                TemplatePart::Text(text) => {
                    key.push_str(text);
                    continue;
                }
                TemplatePart::Value(_, Placeholder::Status) => None,
                TemplatePart::Value(_, Placeholder::Source) => Some(source),
                TemplatePart::Value(_, Placeholder::Attribute(position)) => {
                    fields.attributes[*position].as_deref()
                }
            };
            let value = value.unwrap_or(ABSENT);
            // Each character becomes one of the key, so no more than the key can hold are read.
            key.extend(value.chars().take(KEY_BYTES_MAX).map(key_char));
        }
        cut(&key, KEY_BYTES_MAX).into()
    }
}

/// Replaces dots, wildcards and every other character that may have a meaning in a key.
fn key_char(char: char) -> char {
    if char.is_ascii_alphanumeric() || matches!(char, '-' | '_') {
        char
    } else {
        '_'
    }
}

/// A name, if it looks like that of a placeholder. Any other text is left out: it could be a
/// secret.
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
fn placeholders() -> String {
    let names = Placeholder::all().map(|(name, _)| format!("`{{{name}}}`"));
    names.collect::<Vec<_>>().join(" ")
}
