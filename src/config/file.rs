//! One TOML file: its values, each with file and line, or its syntax errors as findings.

use std::fs;
use std::ops::Range;
use std::path::Path;

use config::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::environment::SECTIONS;
use super::finding::ConfigFinding;
use super::paths;

/// Every key of the configuration is shorter, so a longer name could be a secret.
const KEY_BYTES_MAX: usize = 32;

const QUOTED_PATH: &str = "a key in quotes that contains `.` or `[`; \
    write the section as `[http]` or `[[queues]]` and its keys below it";

/// Reads a file and parses it as TOML.
pub(super) fn read(path: &Path) -> Result<Value, Vec<ConfigFinding>> {
    let name = path.display().to_string();
    let text = paths::reading(path, || fs::read_to_string(path)).map_err(|error| {
        vec![ConfigFinding::new("", format!("cannot read the file: {error}")).at(Some(&name))]
    })?;
    parse(&name, &text)
}

/// Parses the text of a file; `name` is used in origins.
pub(super) fn parse(name: &str, text: &str) -> Result<Value, Vec<ConfigFinding>> {
    let (table, mut errors) = DeTable::parse_recoverable(text);
    let place =
        |span: Option<Range<usize>>| line_and_column(text, span.map_or(0, |span| span.start));
    // A later error on the same line is a consequence of the first.
    errors.dedup_by_key(|error| place(error.span()).0);
    if errors.is_empty() {
        let origin = |span| format!("{name}:{}", place(Some(span)).0);
        let keys = table.get_ref().keys();
        // Merging would read such a key as a path: `"queues[9]"` as an element of a list.
        let paths = keys.filter(|key| key.get_ref().contains(['.', '[', ']']));
        let findings: Vec<_> = paths
            .map(|key| ConfigFinding::new("", QUOTED_PATH).at(Some(&origin(key.span()))))
            .collect();
        return match &*findings {
            [] => Ok(value(None, DeValue::Table(table.into_inner()), &origin)),
            _ => Err(findings),
        };
    }
    let finding = |error: &toml::de::Error| {
        let (line, column) = place(error.span());
        let problem = format!(
            "{}: {}",
            error.message().replace('\n', ", "),
            shown_line(text, line)
        );
        ConfigFinding::new("", problem).at(Some(&format!("{name}:{line}:{column}")))
    };
    Err(errors.iter().map(finding).collect())
}

/// A value with its origin. A number that is too large stays one, which the reader refuses.
fn value(
    origin: Option<&String>,
    value: DeValue<'_>,
    origin_of: &impl Fn(Range<usize>) -> String,
) -> Value {
    match value {
        DeValue::String(text) => Value::new(origin, text.into_owned()),
        DeValue::Boolean(value) => Value::new(origin, value),
        DeValue::Datetime(value) => Value::new(origin, value.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::new(origin, number),
            Err(_) => Value::new(origin, u128::MAX),
        },
        DeValue::Float(number) => Value::new(origin, number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Table(table) => {
            let entries = table.into_iter().map(|(key, below)| {
                let origin = origin_of(key.span());
                let below = self::value(Some(&origin), below.into_inner(), origin_of);
                (key.into_inner().into_owned(), below)
            });
            Value::new(origin, entries.collect::<Map<_, _>>())
        }
        DeValue::Array(array) => {
            let elements = array.into_iter().map(|element| {
                let origin = origin_of(element.span());
                self::value(Some(&origin), element.into_inner(), origin_of)
            });
            Value::new(origin, elements.collect::<Vec<_>>())
        }
    }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// The part of a line that is certainly not a value: the name of a section or of a key.
fn shown_line(text: &str, number: usize) -> String {
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    match line.split_once('=') {
        _ if is_header(line) => format!("`{line}`"),
        Some((name, _)) if is_key(name.trim()) => format!("`{} = …`", name.trim()),
        _ => "the line is not shown, because it could contain a secret".into(),
    }
}

fn is_header(line: &str) -> bool {
    let name = line.trim_start_matches('[');
    let section = name.split(['.', ']']).next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.]".contains(c);
    name != line && name.chars().all(is_plain) && SECTIONS.iter().any(|known| known == section)
}

/// Lower-case letters, `_` and `.` only: a line of a multi-line secret has other characters too.
fn is_key(name: &str) -> bool {
    name.len() <= KEY_BYTES_MAX
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || "_.".contains(c))
}
