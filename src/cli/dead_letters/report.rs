//! What became of each message, told as it happens; and what the command came to.

use deskbridge::webhook::routing::Route;
use serde_json::{Map, Value, json};

use super::Place;
use super::selection::Selection;
use super::summary::Summary;
use crate::cli::tail::shown::printable;
use crate::cli::{Exit, print};

/// Tells and counts.
pub struct Report<'a> {
    place: &'a Place,
    selection: &'a Selection,
    is_json: bool,
    done: u64,
    kept: u64,
    /// Position in the selection's ids of those that were met.
    met: Vec<bool>,
}

impl<'a> Report<'a> {
    /// About nothing yet.
    pub fn new(place: &'a Place, selection: &'a Selection, is_json: bool) -> Self {
        Self {
            place,
            selection,
            is_json,
            done: 0,
            kept: 0,
            met: vec![false; selection.ids.len()],
        }
    }

    /// This one is there.
    pub fn meet(&mut self, summary: &Summary) {
        for (met, id) in self.met.iter_mut().zip(&self.selection.ids) {
            *met |= super::selection::is_called(summary, id);
        }
    }

    /// It was done, or would be.
    pub fn done(&mut self, verb: &str, summary: &Summary, to: &[&Route]) -> anyhow::Result<()> {
        self.done += 1;
        if self.is_json {
            let route = to.first();
            return object(
                summary,
                &json!({
                    "outcome": verb,
                    "exchange": route.map(|route| &*route.exchange),
                    "routing_key": route.map(|route| &*route.routing_key),
                }),
            );
        }
        let routes: Vec<_> = to
            .iter()
            .map(|route| format!("{} {}", route.exchange, route.routing_key))
            .collect();
        let to = if routes.is_empty() {
            String::new()
        } else {
            format!(" to {}", routes.join(", "))
        };
        print(&format!(
            "{verb} {}{}\n",
            printable(&summary.name()),
            printable(&to)
        ))
    }

    /// It stays in the queue.
    pub fn kept(&mut self, summary: &Summary, why: &str) -> anyhow::Result<()> {
        self.kept += 1;
        if self.is_json {
            return object(summary, &json!({"outcome": "kept", "why": why}));
        }
        print(&format!(
            "kept {}: {}\n",
            printable(&summary.name()),
            printable(why)
        ))
    }

    /// Those done so far.
    pub fn count(&self) -> u64 {
        self.done
    }

    /// Sums up on standard error.
    pub fn end(self, verb: &str, waiting: u64, is_interrupted: bool) -> Exit {
        let queue = &self.place.queue;
        let unmet = self.selection.ids.iter().zip(&self.met);
        let unmet: Vec<_> = unmet.filter(|(_, met)| !**met).map(|(id, _)| id).collect();
        if is_interrupted {
            eprintln!(
                "interrupted: {} {verb}, everything else is still in queue `{queue}`",
                self.done
            );
            return Exit::No;
        }
        for id in &unmet {
            eprintln!("queue `{queue}` has no message `{id}`");
        }
        if self.done + self.kept == 0 {
            if unmet.is_empty() {
                super::look::tell_none(self.place, waiting);
            }
            return Exit::No;
        }
        eprintln!(
            "{} {verb}, {} kept in queue `{queue}`",
            self.done, self.kept
        );
        if self.kept == 0 && unmet.is_empty() {
            Exit::Done
        } else {
            Exit::No
        }
    }
}

fn object(summary: &Summary, outcome: &Value) -> anyhow::Result<()> {
    let mut object = Map::new();
    object.insert("id".into(), summary.id.clone().into());
    object.insert("position".into(), summary.position.into());
    object.extend(outcome.as_object().cloned().unwrap_or_default());
    print(&format!("{}\n", Value::from(object)))
}
