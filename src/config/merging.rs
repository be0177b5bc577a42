//! Single keys of the environment and of flags, laid over what stands below them: names match
//! without regard to case, numbers are places in lists.

use config::{Map, Value, ValueKind};

use super::finding::Finding;
use super::layers::Layer;

/// Tables whose keys are names, also where they are numbers.
const NAMED: [&str; 2] = ["sources", "routing.statuses"];

/// One key set by its path.
#[derive(Debug, Clone)]
pub(super) struct Assignment<'a> {
    /// What stands before the key, as written.
    pub lead: &'a str,
    /// The path, as written.
    pub parts: Vec<&'a str>,
    /// Whether it is a variable of the environment: in capitals, its parts between `__`.
    pub is_variable: bool,
    /// The value.
    pub text: &'a str,
}

impl Assignment<'_> {
    /// Where a value with so many parts of the path came from.
    pub fn origin(&self, parts: usize) -> String {
        let parts = &self.parts[..parts.min(self.parts.len())];
        format!(
            "{}{}",
            self.lead,
            parts.join(if self.is_variable { "__" } else { "." })
        )
    }
}

/// A layer of single keys. `below` is what they are laid over. Which of two that are the same key
/// counts is not left to chance: that is a finding, unless `last_wins`.
pub(super) fn layer(
    assignments: &[Assignment<'_>],
    below: &Value,
    last_wins: bool,
) -> Result<Layer, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut root = Value::new(None, Map::<String, Value>::new());
    for assignment in assignments {
        let keys = folded(assignment, below);
        findings.extend(insert(&mut root, &keys, assignment, last_wins));
    }
    place_elements("", &mut root, Some(below), &mut findings);
    match root.kind {
        ValueKind::Table(values) if findings.is_empty() => Ok(Layer {
            values,
            tables: Vec::new(),
        }),
        _ => Err(findings),
    }
}

/// The path as it is spelt below.
fn folded(assignment: &Assignment<'_>, below: &Value) -> Vec<String> {
    let mut below = Some(below);
    let mut keys = Vec::new();
    for part in &assignment.parts {
        let part = if assignment.is_variable {
            &part.to_lowercase()
        } else {
            *part
        };
        let (key, next) = match below.map(|below| &below.kind) {
            Some(ValueKind::Table(table)) => {
                let spelt = table.keys().filter(|key| key.eq_ignore_ascii_case(part));
                // One spelt just so comes first.
                let key = spelt
                    .max_by_key(|key| *key == part)
                    .map_or(part, String::as_str);
                (key, table.get(key))
            }
            Some(ValueKind::Array(elements)) => {
                let element = part
                    .parse()
                    .ok()
                    .and_then(|index: usize| elements.get(index));
                (part, element)
            }
            _ => (part, None),
        };
        keys.push(key.to_owned());
        below = next;
    }
    keys
}

fn insert(
    root: &mut Value,
    keys: &[String],
    assignment: &Assignment<'_>,
    last_wins: bool,
) -> Option<Finding> {
    let origin = assignment.origin(usize::MAX);
    let twice = |other: Option<&str>| {
        let other = other.unwrap_or_default();
        let problem = format!("is also given by {other}; give it once");
        Some(Finding::new(keys.join("."), problem).at(Some(&origin)))
    };
    let (last, above) = keys.split_last()?;
    let mut value = root;
    for (depth, key) in above.iter().enumerate() {
        let place = value.origin().map(str::to_owned);
        let ValueKind::Table(table) = &mut value.kind else {
            return twice(place.as_deref());
        };
        value = table.entry(key.clone()).or_insert_with(|| {
            let origin = assignment.origin(depth + 1);
            Value::new(Some(&origin), Map::<String, Value>::new())
        });
    }
    let place = value.origin().map(str::to_owned);
    let ValueKind::Table(table) = &mut value.kind else {
        return twice(place.as_deref());
    };
    let written = Value::new(Some(&origin), assignment.text);
    match table.insert(last.clone(), written) {
        Some(before) if !last_wins || matches!(before.kind, ValueKind::Table(_)) => {
            twice(before.origin())
        }
        _ => None,
    }
}

/// Makes lists of tables whose keys are numbers, on top of the list below.
fn place_elements(
    path: &str,
    value: &mut Value,
    below: Option<&Value>,
    findings: &mut Vec<Finding>,
) {
    let ValueKind::Table(table) = &mut value.kind else {
        return;
    };
    for (key, value) in table.iter_mut() {
        let path = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let below = match below.map(|below| &below.kind) {
            Some(ValueKind::Table(below)) => below.get(key),
            _ => None,
        };
        place_elements(&path, value, below, findings);
    }
    let index = |key: &String| key.parse::<usize>().ok();
    if table.is_empty() || NAMED.contains(&path) || !table.keys().all(|key| index(key).is_some()) {
        return;
    }
    let mut placed: Vec<_> = std::mem::take(table)
        .into_iter()
        .filter_map(|(key, value)| Some((index(&key)?, value)))
        .collect();
    placed.sort_by_key(|(index, _)| *index);
    let mut elements = match below.map(|below| &below.kind) {
        Some(ValueKind::Array(elements)) => elements.clone(),
        _ => Vec::new(),
    };
    for (index, value) in placed {
        let next = elements.len();
        if let Some(element) = elements.get_mut(index) {
            lay_over(element, value);
        } else if next == index {
            elements.push(value);
        } else {
            let problem = format!("there is no element {index}; the next one is number {next}");
            findings.push(Finding::new(path, problem).at(value.origin()));
        }
    }
    value.kind = ValueKind::Array(elements);
}

fn lay_over(below: &mut Value, value: Value) {
    let origin = value.origin().map(str::to_owned);
    match (&mut below.kind, value.kind) {
        (ValueKind::Table(below), ValueKind::Table(table)) => {
            for (key, value) in table {
                lay_over(below.entry(key).or_default(), value);
            }
        }
        (_, kind) => *below = Value::new(origin.as_ref(), kind),
    }
}

/// Names that differ only in case: which of them a request, a status or a variable means would
/// be left to chance.
pub(super) fn ambiguous_names(tree: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in NAMED {
        let mut value = Some(tree);
        for key in path.split('.') {
            value = match value.map(|value| &value.kind) {
                Some(ValueKind::Table(table)) => table.get(key),
                _ => None,
            };
        }
        let Some(ValueKind::Table(table)) = value.map(|value| &value.kind) else {
            continue;
        };
        let mut names: Vec<_> = table.keys().collect();
        names.sort_unstable_by_key(|name| (name.to_lowercase(), *name));
        for pair in names.windows(2) {
            if pair[0].to_lowercase() == pair[1].to_lowercase() {
                let problem = format!(
                    "differs from `{path}.{}` only in case; choose one name",
                    pair[0]
                );
                findings.push(Finding::new(format!("{path}.{}", pair[1]), problem));
            }
        }
    }
    findings
}

/// Values of keys that are no place for a URL with a login. They would be shown.
pub(super) fn misplaced_urls(tree: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    collect_misplaced("", tree, &mut findings);
    findings
}

fn collect_misplaced(path: &str, value: &Value, findings: &mut Vec<Finding>) {
    match &value.kind {
        ValueKind::Table(table) => {
            for (key, value) in table {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                collect_misplaced(&path, value, findings);
            }
        }
        ValueKind::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                collect_misplaced(&format!("{path}[{index}]"), element, findings);
            }
        }
        ValueKind::String(text) if text.contains("://") && text.contains('@') => {
            let is_masked = path.starts_with("rabbitmq.urls")
                || path == "rabbitmq.management_url"
                || (path.starts_with("sources.") && path.contains(".secrets"));
            if !is_masked {
                let problem = "holds a URL with a login; that belongs into `rabbitmq.urls`, or into \
                               the file that `rabbitmq.url_file` names";
                findings.push(Finding::new(path, problem).at(value.origin()));
            }
        }
        _ => {}
    }
}
