//! One TOML file: its values, each with file and line, or what is wrong with its syntax.

use std::fs;
use std::ops::Range;
use std::path::Path;

use config::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::finding::Finding;
use super::layers::{Layer, SECTIONS};

/// Keys are shorter.
const KEY_BYTES_MAX: usize = 32;

/// Reads and parses a file.
pub(super) fn read(path: &Path) -> Result<Layer, Vec<Finding>> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| {
        vec![Finding::new("", format!("cannot read the file: {error}")).at(Some(&name))]
    })?;
    parse(&name, &text)
}

/// Parses the text of a file of that name.
pub(super) fn parse(name: &str, text: &str) -> Result<Layer, Vec<Finding>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut findings: Vec<_> = errors
            .iter()
            .map(|error| syntax_finding(name, text, error))
            .collect();
        // What goes wrong later on the same line is a consequence.
        findings.dedup_by(|later, first| later.line == first.line);
        return Err(findings
            .into_iter()
            .map(|located| located.finding)
            .collect());
    }
    let mut parsing = Parsing {
        name,
        text,
        tables: Vec::new(),
        findings: Vec::new(),
    };
    let values = parsing.table("", table.into_inner());
    if parsing.findings.is_empty() {
        Ok(Layer {
            values,
            tables: parsing.tables,
        })
    } else {
        Err(parsing.findings)
    }
}

struct Parsing<'a> {
    name: &'a str,
    text: &'a str,
    tables: Vec<(String, String)>,
    findings: Vec<Finding>,
}

impl Parsing<'_> {
    fn origin(&self, span: &Range<usize>) -> String {
        format!("{}:{}", self.name, line_and_column(self.text, span.start).0)
    }

    fn table(&mut self, path: &str, table: DeTable<'_>) -> Map<String, Value> {
        let mut values = Map::new();
        for (key, value) in table {
            let origin = self.origin(&key.span());
            let key = key.into_inner().into_owned();
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            let value = self.value(&path, &origin, value.into_inner());
            values.insert(key, value);
        }
        values
    }

    fn value(&mut self, path: &str, origin: &String, value: DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::new(Some(origin), text.into_owned()),
            DeValue::Boolean(value) => Value::new(Some(origin), value),
            DeValue::Datetime(value) => Value::new(Some(origin), value.to_string()),
            DeValue::Integer(number) => self.number(
                path,
                origin,
                i64::from_str_radix(number.as_str(), number.radix()),
            ),
            DeValue::Float(number) => self.number(path, origin, number.as_str().parse::<f64>()),
            DeValue::Table(table) => {
                self.tables.push((path.to_owned(), origin.clone()));
                Value::new(Some(origin), self.table(path, table))
            }
            DeValue::Array(array) => {
                let elements = array.into_iter().enumerate().map(|(index, element)| {
                    let origin = self.origin(&element.span());
                    self.value(&format!("{path}[{index}]"), &origin, element.into_inner())
                });
                let elements: Vec<Value> = elements.collect();
                Value::new(Some(origin), elements)
            }
        }
    }

    fn number<T: Into<config::ValueKind>, E>(
        &mut self,
        path: &str,
        origin: &String,
        number: Result<T, E>,
    ) -> Value {
        number.map_or_else(
            |_| {
                self.findings
                    .push(Finding::new(path, "the number is too large").at(Some(origin)));
                Value::default()
            },
            |number| Value::new(Some(origin), number),
        )
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

struct Located {
    line: usize,
    finding: Finding,
}

fn syntax_finding(name: &str, text: &str, error: &toml::de::Error) -> Located {
    let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
    let shown = shown_line(text, line);
    let problem = format!("{}: {shown}", error.message().replace('\n', ", "));
    Located {
        line,
        finding: Finding::new("", problem).at(Some(&format!("{name}:{line}:{column}"))),
    }
}

/// What of a line of the file is certainly no value: the name of a section or of a key.
fn shown_line(text: &str, number: usize) -> String {
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    match line.split_once('=') {
        _ if is_header(line) => format!("`{line}`"),
        Some((name, _)) if is_key(name.trim()) => format!("`{} = …`", name.trim()),
        _ => "a line that is not shown, as it could hold a secret".into(),
    }
}

fn is_header(line: &str) -> bool {
    let name = line.trim_start_matches('[');
    let section = name.split(['.', ']']).next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.]".contains(c);
    name != line && name.chars().all(is_plain) && SECTIONS.contains(&section)
}

/// Letters only: a line of a secret over several lines has other characters, too.
fn is_key(name: &str) -> bool {
    name.len() <= KEY_BYTES_MAX
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || "_.".contains(c))
}
