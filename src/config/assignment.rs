//! Sets single keys from the environment and from flags in the tree of the lower layers. Names match
//! without regard to case; numbers are indices of lists.

use std::fmt::Write;

use config::{Map, Value, ValueKind};

use super::finding::ConfigFinding;
use super::layers::append;

/// Tables whose keys are names chosen by the operator; a number there is not a list index.
const NAMED: [&str; 2] = ["sources", "routing.statuses"];

/// One key and its value, from the environment or a flag.
pub(super) struct Assignment<'a> {
    /// The text before the key, as written: the prefix of the variable, or the flag.
    pub lead: &'a str,
    /// The parts of the key, as written.
    pub parts: Vec<String>,
    /// Whether it is an environment variable: upper case, parts separated by `__`.
    pub is_variable: bool,
    /// The value as text.
    pub text: &'a str,
}

/// Sets all keys of one layer. If two assignments set the same key, the later flag wins; two
/// variables are a finding, because environment variables have no order.
pub(super) fn set_all(
    tree: &mut Value,
    mut assignments: Vec<Assignment<'_>>,
) -> Vec<ConfigFinding> {
    // Elements are appended to a list in the order of their indices.
    let index = |part: &String| part.parse::<usize>().ok();
    let indices = |set: &Assignment<'_>| set.parts.iter().filter_map(index).collect::<Vec<_>>();
    assignments.sort_by_cached_key(indices);
    let set = |assignment: &Assignment<'_>| assignment.set(tree).err();
    let mut findings: Vec<_> = assignments.iter().filter_map(set).collect();
    findings.dedup();
    findings
}

impl Assignment<'_> {
    /// The origin of a value at the first `parts` parts of the key.
    pub fn origin(&self, parts: usize) -> String {
        let separator = if self.is_variable { "__" } else { "." };
        let parts = &self.parts[..parts.min(self.parts.len())];
        format!("{}{}", self.lead, parts.join(separator))
    }

    fn set(&self, tree: &mut Value) -> Result<(), ConfigFinding> {
        let mut value = tree;
        let mut key = String::new();
        for (depth, part) in self.parts.iter().enumerate() {
            let index = part.parse::<usize>().ok();
            let index = index.filter(|_| !NAMED.contains(&&*key));
            let origin = Some(self.origin(depth));
            match (&value.kind, index) {
                (ValueKind::Table(_), _) => {}
                // From here on the list counts as set by this layer.
                (ValueKind::Array(_), Some(_)) => {
                    *value = Value::new(origin.as_ref(), std::mem::take(&mut value.kind));
                }
                _ if self.has_set(value) => return Err(self.twice(key, value)),
                (_, Some(_)) => *value = Value::new(origin.as_ref(), Vec::<Value>::new()),
                (_, None) => *value = Value::new(origin.as_ref(), Map::<String, Value>::new()),
            }
            value = match (&mut value.kind, index) {
                (ValueKind::Array(elements), Some(index)) => {
                    let next = elements.len();
                    if index > next {
                        let problem =
                            format!("there is no element {index}; the next one is number {next}");
                        return Err(
                            ConfigFinding::new(key, problem).at(Some(&self.origin(depth + 1)))
                        );
                    }
                    if index == next {
                        elements.push(Value::default());
                    }
                    let _ = write!(key, "[{index}]");
                    &mut elements[index]
                }
                (ValueKind::Table(table), _) => {
                    let name = self.name(part, table);
                    append(&mut key, &name);
                    table.entry(name).or_default()
                }
                _ => unreachable!("the value was made a table or a list"),
            };
        }
        let is_whole = matches!(value.kind, ValueKind::Table(_) | ValueKind::Array(_));
        if self.has_set(value) && (self.is_variable || is_whole) {
            return Err(self.twice(key, value));
        }
        *value = Value::new(Some(&self.origin(usize::MAX)), self.text);
        Ok(())
    }

    /// A part of the key, spelt as in the lower layers. An exact match is preferred.
    fn name(&self, part: &str, table: &Map<String, Value>) -> String {
        let part = if self.is_variable {
            part.to_lowercase()
        } else {
            part.to_owned()
        };
        let same = table.keys().filter(|key| key.eq_ignore_ascii_case(&part));
        let spelt = same.max_by_key(|key| **key == part).cloned();
        spelt.unwrap_or(part)
    }

    /// Whether an assignment of the same layer set this value or a part of it.
    fn has_set(&self, value: &Value) -> bool {
        let lead = value
            .origin()
            .and_then(|origin| origin.get(..self.lead.len()));
        lead.is_some_and(|lead| lead.eq_ignore_ascii_case(self.lead))
    }

    fn twice(&self, key: String, value: &Value) -> ConfigFinding {
        let other = value.origin().unwrap_or_default();
        let problem = format!("is also set by {other}; set it once");
        ConfigFinding::new(key, problem).at(Some(&self.origin(usize::MAX)))
    }
}
