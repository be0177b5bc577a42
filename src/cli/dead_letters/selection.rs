//! Which messages are meant: by id, or by what they are. Pure.

use clap::Args;
use jiff::Timestamp;

use super::summary::Summary;
use crate::cli::time::moment;

/// Several values of one filter mean any of them; several filters, all of them.
#[derive(Debug, Clone, Default, Args)]
pub struct Filters {
    /// Only of this reason: invalid malformed unroutable nacked too-large damaged, or the broker's
    /// rejected expired maxlen `delivery_limit`
    #[arg(long, value_name = "REASON", value_delimiter = ',')]
    reason: Vec<String>,
    /// Only of this status
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<String>,
    /// Only of this chat session
    #[arg(long, value_name = "ID")]
    session: Vec<String>,
    /// Only of this source
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    source: Vec<String>,
    /// Only those dead since then: 2026-02-03T04:05:06Z, 2026-02-03, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only those dead before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
}

impl Filters {
    /// Whether all filters let it pass.
    pub fn pass(&self, summary: &Summary) -> bool {
        let is_one_of = |wanted: &[String], value: &Option<String>| {
            wanted.is_empty() || value.as_ref().is_some_and(|value| wanted.contains(value))
        };
        is_one_of(&self.reason, &summary.reason)
            && is_one_of(&self.status, &summary.status)
            && is_one_of(&self.session, &summary.session)
            && is_one_of(&self.source, &summary.source)
            && self
                .since
                .is_none_or(|since| summary.at.is_some_and(|at| at >= since))
            && self
                .until
                .is_none_or(|until| summary.at.is_some_and(|at| at < until))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.reason.is_empty()
            && self.status.is_empty()
            && self.session.is_empty()
            && self.source.is_empty()
            && self.since.is_none()
            && self.until.is_none()
    }
}

/// Whether a message is called that: by its `message_id`, or `#3` for the third in the queue.
pub fn is_called(summary: &Summary, name: &str) -> bool {
    summary.id.as_deref() == Some(name)
        || name.strip_prefix('#').and_then(|place| place.parse().ok()) == Some(summary.position)
}

/// Messages to do something with.
#[derive(Debug, Args)]
pub struct Selection {
    /// The `message_id`, or #3 for the third message in the queue
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    pub filters: Filters,
    /// Every message in the queue
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
}

impl Selection {
    /// Whether it is one of those meant.
    pub fn takes(&self, summary: &Summary) -> bool {
        let is_named = || self.ids.iter().any(|id| is_called(summary, id));
        (self.ids.is_empty() || is_named()) && self.filters.pass(summary)
    }

    /// Whether nobody said which.
    pub fn is_empty(&self) -> bool {
        !self.all && self.ids.is_empty() && self.filters.is_empty()
    }
}
