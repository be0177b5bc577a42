//! What became of each message, told in order as it is sure; and what the command came to.

use std::collections::VecDeque;

use deskbridge::rabbitmq::queue::Queue;
use deskbridge::telemetry::foreign;
use deskbridge::webhook::routing::Route;
use serde_json::{Map, Value, json};

use super::selection::{Selection, is_called};
use super::summary::Summary;
use super::{Aim, Place, look};
use crate::cli::Exit;
use crate::cli::output::{Printer, Unread, say};

/// Tells and counts. Once nobody reads it, it still counts.
pub struct Report<'a> {
    printer: Printer,
    place: &'a Place,
    selection: &'a Selection,
    is_json: bool,
    untold: VecDeque<Entry>,
    done: u64,
    kept: u64,
    /// Position in the selection's ids of those that were met.
    met: Vec<bool>,
}

/// One message and what became of it.
struct Entry {
    summary: Summary,
    fate: Fate,
}

enum Fate {
    /// It is gone when so many removals are sure.
    Done {
        verb: &'static str,
        to: Vec<Route>,
        removal: u64,
    },
    /// It stays, and why.
    Kept(String),
}

impl<'a> Report<'a> {
    /// About nothing yet.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn new(place: &'a Place, aim: &'a Aim) -> anyhow::Result<Self> {
        Ok(Self {
            printer: Printer::start(aim.json)?,
            place,
            selection: &aim.selection,
            is_json: aim.json,
            untold: VecDeque::new(),
            done: 0,
            kept: 0,
            met: vec![false; aim.selection.ids.len()],
        })
    }

    /// Whether nobody reads it any more: then nothing new is begun.
    pub fn is_unread(&self) -> bool {
        self.printer.is_unread()
    }

    /// This one is there.
    pub fn meet(&mut self, summary: &Summary) {
        for (met, id) in self.met.iter_mut().zip(&self.selection.ids) {
            *met |= is_called(summary, id);
        }
    }

    /// It was done, or would be: told when so many removals are sure.
    pub fn done(&mut self, verb: &'static str, summary: Summary, to: Vec<Route>, removal: u64) {
        self.done += 1;
        let fate = Fate::Done { verb, to, removal };
        self.untold.push_back(Entry { summary, fate });
    }

    /// It stays in the queue.
    pub fn kept(&mut self, summary: Summary, why: String) {
        self.kept += 1;
        let fate = Fate::Kept(why);
        self.untold.push_back(Entry { summary, fate });
    }

    /// Those done so far, told or not.
    pub fn count(&self) -> u64 {
        self.done
    }

    /// Tells what is sure by now.
    pub async fn tell(&mut self, queue: &Queue) {
        let is_sure = |entry: &Entry| match &entry.fate {
            Fate::Done { removal, .. } => *removal <= queue.sure(),
            Fate::Kept(_) => true,
        };
        while let Some(entry) = self.untold.pop_front_if(|entry| is_sure(entry)) {
            self.print(entry.line("", self.is_json)).await;
        }
    }

    /// That nobody reads it is seen by `is_unread`.
    async fn print(&mut self, line: String) {
        let _ = self.printer.send(line).await;
    }

    /// Makes sure of what was done, tells it, and gives everything else back.
    pub async fn close(&mut self, mut queue: Queue) -> anyhow::Result<()> {
        let sure = queue.make_sure().await;
        self.tell(&queue).await;
        let closed = match sure {
            Ok(()) => queue.close().await,
            Err(error) => Err(error),
        };
        closed.map_err(|error| look::told(self.place, error))
    }

    /// Sums up on standard error.
    pub async fn end(self, verb: &str, waiting: u64) -> anyhow::Result<Exit> {
        if !self.untold.is_empty() {
            return self.end_early(verb).await;
        }
        finish(self.printer).await;
        let queue = &self.place.queue;
        let unmet = self.selection.ids.iter().zip(&self.met);
        let unmet: Vec<_> = unmet.filter(|(_, met)| !**met).map(|(id, _)| id).collect();
        for id in &unmet {
            say(format_args!("queue `{queue}` has no message `{id}`"));
        }
        if self.done + self.kept == 0 {
            if unmet.is_empty() {
                look::tell_none(self.place, waiting);
            }
            return Ok(Exit::No);
        }
        say(format_args!(
            "{} {verb}, {} kept in queue `{queue}`",
            self.done, self.kept
        ));
        Ok(if self.kept == 0 && unmet.is_empty() {
            Exit::Done
        } else {
            Exit::No
        })
    }

    /// The same if it did not come to its end.
    pub async fn end_early(mut self, verb: &str) -> anyhow::Result<Exit> {
        let mut perhaps = 0;
        for entry in std::mem::take(&mut self.untold) {
            perhaps += u64::from(matches!(entry.fate, Fate::Done { .. }));
            self.print(entry.line("perhaps ", self.is_json)).await;
        }
        finish(self.printer).await;
        let (done, queue) = (self.done - perhaps, &self.place.queue);
        say(format_args!(
            "interrupted: {done} {verb}, everything else is still in queue `{queue}`"
        ));
        if perhaps > 0 {
            say(format_args!(
                "but for {perhaps} that may be gone: the connection ended before that was sure"
            ));
        }
        Ok(Exit::No)
    }
}

async fn finish(mut printer: Printer) {
    if let Err(error) = printer.finish().await
        && !error.is::<Unread>()
    {
        say(format_args!("error: {error:#}"));
    }
}

impl Entry {
    fn line(&self, doubt: &str, is_json: bool) -> String {
        let name = self.summary.name();
        let name = foreign::line(&name);
        if is_json {
            let mut object = Map::new();
            object.insert("id".into(), self.summary.id.clone().into());
            object.insert("position".into(), self.summary.position.into());
            let fate = match &self.fate {
                Fate::Done { verb, to, .. } => json!({
                    "outcome": format!("{doubt}{verb}"),
                    "exchange": to.first().map(|route| &*route.exchange),
                    "routing_key": to.first().map(|route| &*route.routing_key),
                }),
                Fate::Kept(why) => json!({"outcome": "kept", "why": why}),
            };
            object.extend(fate.as_object().cloned().unwrap_or_default());
            return format!("{}\n", Value::from(object));
        }
        match &self.fate {
            Fate::Done { verb, to, .. } => {
                let routes: Vec<_> = to
                    .iter()
                    .map(|route| format!("{} {}", route.exchange, route.routing_key))
                    .collect();
                let to = if routes.is_empty() {
                    String::new()
                } else {
                    format!(" to {}", foreign::line(&routes.join(", ")))
                };
                format!("{doubt}{verb} {name}{to}\n")
            }
            Fate::Kept(why) => format!("kept {name}: {}\n", foreign::line(why)),
        }
    }
}
