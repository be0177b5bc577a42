//! Queues with `reject-publish` that share keys with other queues. An event is published to all
//! queues of its key together. While one of them rejects it, the others receive a duplicate on
//! every retry. Pure.

use std::collections::BTreeSet;

use super::finding::{Findings, listed};
use super::input::{CheckInput, statuses};
use super::queues::limits;
use crate::rabbitmq::snapshot::FoundQueue;

/// Findings about queues that cause duplicates in other queues.
pub fn judge(input: &CheckInput<'_>, list: &mut Findings) {
    let statuses = statuses(input.config);
    let is_limited =
        |queue: &&FoundQueue| queue.refuses_when_full() && limits(queue).next().is_some();
    for queue in input.existing.queues.iter().filter(is_limited) {
        let (mut keys, mut others) = (Vec::new(), BTreeSet::new());
        for status in &statuses {
            let mut queues = input
                .existing
                .reach(&status.route.exchange, &status.key)
                .queues;
            if queues.remove(&*queue.name) && !queues.is_empty() {
                keys.push(&status.key);
                others.append(&mut queues);
            }
        }
        if others.is_empty() {
            continue;
        }
        let (keys, others, attempts) = (
            listed(keys),
            listed(others),
            input.config.retry.attempts_max,
        );
        list.warning(format!("{queue} refuses beyond its limit and shares the keys {keys} with {others}"))
            .impact(format!("nothing, but while it is full each of its events is published up to {attempts} times, and {others} receive it each time"))
            .fix("use no limit or one that is never reached, keys of its own, consumers that skip a `message_id` they have had, or a smaller `retry.attempts_max`")
            .because([queue]);
    }
}
