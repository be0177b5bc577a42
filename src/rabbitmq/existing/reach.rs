//! Follows a message through exchanges and bindings to the queues it ends up in.

use std::collections::BTreeSet;

use super::key::Key;
use super::{Binding, Exchange, Existing};

/// Where messages of an exchange and key end up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach<'a> {
    /// Queues, by name.
    pub queues: BTreeSet<&'a str>,
    /// The alternate exchange that had to take them, as nothing is bound.
    pub alternate: Option<&'a str>,
}

impl Existing {
    /// Follows bindings between exchanges and alternate exchanges too. Where it depends on what
    /// this does not know (headers, hashes, words of the key), a binding counts.
    #[must_use]
    pub fn reach<'a>(&'a self, exchange: &'a str, key: &Key) -> Reach<'a> {
        let mut reach = Reach::default();
        self.walk(exchange, key, &mut reach, &mut BTreeSet::new());
        reach
    }

    fn walk<'a>(
        &'a self,
        name: &'a str,
        key: &Key,
        reach: &mut Reach<'a>,
        seen: &mut BTreeSet<&'a str>,
    ) {
        let is_first = seen.is_empty();
        if !seen.insert(name) {
            return;
        }
        if name.is_empty() {
            // The default exchange knows every queue by its name.
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

fn matches(exchange: &Exchange, binding: &Binding, key: &Key) -> bool {
    match exchange.kind.as_str() {
        "topic" => key.may_match(&binding.routing_key),
        "direct" => key.may_be(&binding.routing_key),
        // Fanout, and what cannot be judged from a key.
        _ => true,
    }
}
