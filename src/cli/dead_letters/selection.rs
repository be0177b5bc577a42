//! Which messages are meant: by id, or by what they are. Pure.

use clap::Args;

use super::summary::Summary;
use crate::cli::time::{Between, Clock, Period};

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
    #[command(flatten)]
    dead: Between,
}

impl Filters {
    /// Whether all filters let it pass.
    pub fn pass(&self, summary: &Summary, dead: Period) -> bool {
        let is_one_of = |wanted: &[String], value: &Option<String>| {
            wanted.is_empty() || value.as_ref().is_some_and(|value| wanted.contains(value))
        };
        is_one_of(&self.reason, &summary.reason)
            && is_one_of(&self.status, &summary.status)
            && is_one_of(&self.session, &summary.session)
            && is_one_of(&self.source, &summary.source)
            && dead.has(summary.at)
    }

    /// When the messages died that pass.
    ///
    /// # Errors
    /// If a local time was twice or never.
    pub fn dead(&self, clock: &Clock) -> anyhow::Result<Period> {
        self.dead.period(clock)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.reason.is_empty()
            && self.status.is_empty()
            && self.session.is_empty()
            && self.source.is_empty()
            && self.dead.is_empty()
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
    pub fn takes(&self, summary: &Summary, dead: Period) -> bool {
        let is_named = || self.ids.iter().any(|id| is_called(summary, id));
        (self.ids.is_empty() || is_named()) && self.filters.pass(summary, dead)
    }

    /// Whether nobody said which.
    pub fn is_empty(&self) -> bool {
        !self.all && self.ids.is_empty() && self.filters.is_empty()
    }
}
