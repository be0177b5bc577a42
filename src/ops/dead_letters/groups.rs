//! Counts messages by why and where they were dead-lettered. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::summary::MessageSummary;

/// Why messages were dead-lettered, and where they were going.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Group {
    /// The bridge's reason, otherwise the broker's.
    pub reason: Option<String>,
    /// The queue that dead-lettered them, if one did.
    pub original_queue: Option<String>,
    /// The exchange that they were going to, if it is known.
    pub original_exchange: Option<String>,
    /// Their routing key, if it is known.
    pub original_routing_key: Option<String>,
}

/// How many messages a group has, and from when they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of messages.
    pub count: u64,
    /// The earliest time at which one was dead-lettered, otherwise received.
    pub oldest: Option<Timestamp>,
    /// The latest such time.
    pub newest: Option<Timestamp>,
}

/// Groups of messages with their tallies.
#[derive(Debug, Clone, Default)]
pub struct Groups(BTreeMap<Group, Tally>);

impl Groups {
    /// Counts a message.
    pub fn add(&mut self, summary: &MessageSummary) {
        let origin = summary.origin.as_ref().ok();
        let group = Group {
            reason: summary.reason.clone(),
            original_queue: summary.original_queue.clone(),
            original_exchange: origin.map(|route| route.exchange.to_string()),
            original_routing_key: origin.map(|route| route.routing_key.to_string()),
        };
        self.0.entry(group).or_default().add(summary.at);
    }

    /// The groups with the most messages first.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&Group, Tally)> {
        let mut groups: Vec<_> = self
            .0
            .iter()
            .map(|(group, tally)| (group, *tally))
            .collect();
        groups.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.count));
        groups
    }

    /// The tally of all messages.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for tally in self.0.values() {
            total.count += tally.count;
            total.oldest = earliest(total.oldest, tally.oldest);
            total.newest = total.newest.max(tally.newest);
        }
        total
    }
}

impl Tally {
    fn add(&mut self, at: Option<Timestamp>) {
        self.count += 1;
        self.oldest = earliest(self.oldest, at);
        self.newest = self.newest.max(at);
    }
}

/// The earlier of two times; an unknown one does not count.
fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::super::provenance::Author;
    use super::*;
    use crate::webhook::routing::Route;

    fn summary(reason: &str, key: Option<&str>, at: Option<i64>) -> MessageSummary {
        MessageSummary {
            position: 1,
            id: None,
            reason: Some(reason.into()),
            detail: None,
            status: None,
            session: None,
            source: None,
            at: at.map(|seconds| Timestamp::from_second(seconds).unwrap()),
            author: Author::Unknown,
            origin: key.ok_or_else(|| "unknown".to_owned()).map(|key| Route {
                exchange: "e".into(),
                routing_key: key.into(),
            }),
            original_queue: None,
            attempts: None,
            bytes: 0,
            journal_event: None,
        }
    }

    #[test]
    fn groups_are_counted_with_their_times() {
        let mut groups = Groups::default();
        for (reason, key, at) in [
            ("nacked", Some("k"), Some(20)),
            ("unroutable", Some("k"), Some(50)),
            ("unroutable", None, None),
            ("unroutable", Some("k"), None),
            ("unroutable", Some("k"), Some(30)),
        ] {
            groups.add(&summary(reason, key, at));
        }
        let time = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        let found = groups.sorted();
        let found = found.iter().map(|(group, tally)| {
            let key = group.original_routing_key.as_deref();
            let reason = group.reason.as_deref().unwrap();
            (tally.count, reason, key, tally.oldest, tally.newest)
        });
        let expected = [
            (3, "unroutable", Some("k"), time(30), time(50)),
            (1, "nacked", Some("k"), time(20), time(20)),
            (1, "unroutable", None, None, None),
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);
        let (count, oldest, newest) = (5, time(20), time(50));
        let total = Tally {
            count,
            oldest,
            newest,
        };
        assert_eq!(groups.total(), total);
        assert_eq!(Groups::default().total(), Tally::default());
    }
}
