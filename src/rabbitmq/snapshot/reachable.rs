//! Follows a message through exchanges and bindings to the queues that it reaches.

use std::collections::BTreeSet;

use super::key::KeyPattern;
use super::{BrokerSnapshot, FoundBinding, FoundExchange, FoundQueue};

/// The queues that messages to one exchange with one key can reach.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach<'a> {
    /// Names of the queues.
    pub queues: BTreeSet<&'a str>,
    /// The alternate exchange of the first exchange, if none of its bindings matches.
    pub alternate: Option<&'a str>,
}

impl BrokerSnapshot {
    /// Follows exchange-to-exchange bindings and alternate exchanges, too. A binding whose match
    /// depends on something unknown (headers, hashes, words of the key) counts as matching.
    #[must_use]
    pub fn reach<'a>(&'a self, exchange: &'a str, key: &KeyPattern) -> Reach<'a> {
        let mut reach = Reach::default();
        self.walk(exchange, key, &mut reach, &mut BTreeSet::new());
        reach
    }

    /// The queues among those that are reached that keep their messages.
    pub fn durable(&self, reach: &Reach<'_>) -> impl Iterator<Item = &FoundQueue> {
        let queues = reach.queues.iter().filter_map(|name| self.queue(name));
        queues.filter(|queue| queue.is_durable())
    }

    fn walk<'a>(
        &'a self,
        name: &'a str,
        key: &KeyPattern,
        reach: &mut Reach<'a>,
        seen: &mut BTreeSet<&'a str>,
    ) {
        let is_first = seen.is_empty();
        if !seen.insert(name) {
            return;
        }
        if name.is_empty() {
            // The default exchange routes to the queue whose name is the routing key.
            let named = self.queues.iter().filter(|queue| key.may_be(&queue.name));
            reach.queues.extend(named.map(|queue| queue.name.as_str()));
            return;
        }
        let Some(exchange) = self.exchange(name) else {
            return;
        };
        let mut is_routed = false;
        for binding in self.bindings.iter().filter(|one| one.source == name) {
            if !matches(exchange, binding, key) {
                continue;
            }
            is_routed = true;
            if binding.destination_type == "exchange" {
                self.walk(&binding.destination, key, reach, seen);
            } else {
                reach.queues.insert(&binding.destination);
            }
        }
        if !is_routed && let Some(alternate) = self.alternate(exchange) {
            if is_first {
                reach.alternate = Some(alternate);
            }
            self.walk(alternate, key, reach, seen);
        }
    }
}

fn matches(exchange: &FoundExchange, binding: &FoundBinding, key: &KeyPattern) -> bool {
    match exchange.kind.as_str() {
        "topic" => key.may_match(&binding.routing_key),
        "direct" => key.may_be(&binding.routing_key),
        // Fanout, and types whose routing does not depend on the key alone.
        _ => true,
    }
}
