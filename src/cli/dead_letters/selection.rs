//! Which messages a command selects: the arguments.

use clap::Args;
use deskbridge::ops::dead_letters::MessageSelection;

use crate::cli::failure::usage_error;
use crate::cli::time::{Between, Clock};

/// A message has to match all filters that are given, and one of the values of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct FilterArguments {
    /// Only messages with one of these reasons: invalid malformed unroutable nacked too-large
    /// damaged, or the broker's rejected expired maxlen `delivery_limit`; separated by commas
    #[arg(long, value_name = "REASON", value_delimiter = ',')]
    reason: Vec<String>,
    /// Only messages with one of these statuses, separated by commas
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status: Vec<String>,
    /// Only messages of this chat session; may be given several times
    #[arg(long, value_name = "ID")]
    session: Vec<String>,
    /// Only messages of these sources, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    source: Vec<String>,
    #[command(flatten)]
    dead: Between,
}

impl FilterArguments {
    /// What the filters select.
    ///
    /// # Errors
    /// If a local time occurred twice or never.
    pub fn selection(&self, clock: &Clock) -> anyhow::Result<MessageSelection> {
        let [since, until] = self.dead.limits(clock)?;
        Ok(MessageSelection {
            ids: Vec::new(),
            reasons: self.reason.clone(),
            statuses: self.status.clone(),
            sessions: self.session.clone(),
            sources: self.source.clone(),
            since,
            until,
        })
    }
}

/// Messages to replay or discard.
#[derive(Debug, Args)]
pub struct SelectionArguments {
    /// Only these messages, each by its `message_id`, or by #3 for the third message in the queue
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    #[command(flatten)]
    filters: FilterArguments,
    /// All messages in the queue
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

impl SelectionArguments {
    /// What is selected; `advice` is for a command without ids, filters and `--all`.
    ///
    /// # Errors
    /// If nothing is selected, or a local time occurred twice or never.
    pub fn selection(&self, clock: &Clock, advice: &str) -> anyhow::Result<MessageSelection> {
        let has_filter = self.filters != FilterArguments::default();
        if !self.all && self.ids.is_empty() && !has_filter {
            return Err(usage_error("no messages selected", advice));
        }
        Ok(MessageSelection {
            ids: self.ids.clone(),
            ..self.filters.selection(clock)?
        })
    }
}
