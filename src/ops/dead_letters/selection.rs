//! Which messages are listed, replayed or discarded: by id, and by filters. Pure.

use jiff::Timestamp;

use super::summary::MessageSummary;

/// Conditions for messages. A message is selected if it fulfils all that are given, each by one of
/// its values.
#[derive(Debug, Clone, Default)]
pub struct MessageSelection {
    /// Each a `message_id`, or `#3` for the third message in the queue.
    pub ids: Vec<String>,
    pub reasons: Vec<String>,
    pub statuses: Vec<String>,
    pub sessions: Vec<String>,
    pub sources: Vec<String>,
    /// Dead-lettered at this time or later.
    pub since: Option<Timestamp>,
    /// Dead-lettered before this time.
    pub until: Option<Timestamp>,
}

impl MessageSelection {
    /// Whether the message is selected. An unknown time is within no limit.
    #[must_use]
    pub fn selects(&self, summary: &MessageSummary) -> bool {
        let is_one_of = |wanted: &[String], value: &Option<String>| {
            wanted.is_empty() || value.as_ref().is_some_and(|value| wanted.contains(value))
        };
        let (since, until) = (self.since, self.until);
        (self.ids.is_empty() || self.ids.iter().any(|id| summary.is_called(id)))
            && is_one_of(&self.reasons, &summary.reason)
            && is_one_of(&self.statuses, &summary.status)
            && is_one_of(&self.sessions, &summary.session)
            && is_one_of(&self.sources, &summary.source)
            && since.is_none_or(|since| summary.at.is_some_and(|at| at >= since))
            && until.is_none_or(|until| summary.at.is_some_and(|at| at < until))
    }
}
