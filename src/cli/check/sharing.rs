//! A queue that refuses beyond its limit shares its keys with others: an event is published to all
//! queues of its key together, and again to all while one of them refuses. Pure.

use std::collections::BTreeSet;

use deskbridge::rabbitmq::existing::Queue;

use super::case::Case;
use super::finding::{Finding, Subject};

/// Limited queues that make others receive events more than once.
pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let statuses = case.statuses();
    let limited = case
        .existing
        .queues
        .iter()
        .filter(|queue| is_limited(queue));
    let mut findings = Vec::new();
    for queue in limited {
        let (mut keys, mut others) = (Vec::new(), BTreeSet::new());
        for status in &statuses {
            let reach = case.existing.reach(&status.route.exchange, &status.key);
            if !reach.queues.contains(queue.name.as_str()) || reach.queues.len() < 2 {
                continue;
            }
            keys.push(format!("`{}`", status.key));
            others.extend(reach.queues.into_iter().filter(|name| *name != queue.name));
        }
        if others.is_empty() {
            continue;
        }
        let others: Vec<_> = others.iter().map(|name| format!("`{name}`")).collect();
        let others = others.join(", ");
        let attempts = case.config.retry.attempts_max;
        findings.push(
            Finding::warning(format!(
                "{} queue `{}` refuses beyond its limit and shares the keys {} with {others}",
                queue.kind,
                queue.name,
                keys.join(", ")
            ))
            .losing(format!(
                "nothing, but while it is full each event for it is published up to {attempts} times, and {others} get it each time"
            ))
            .trying("no limit, or one that is never reached; keys of its own; consumers that skip a `message_id` they have had; a smaller `retry.attempts_max`")
            .because([Subject::Queue(queue.name.clone())]),
        );
    }
    findings
}

/// By argument or policy.
fn is_limited(queue: &Queue) -> bool {
    let has_limit = ["max-length", "max-length-bytes"]
        .into_iter()
        .any(|name| queue.number(name).is_some());
    let overflow = queue.text("overflow").unwrap_or_default();
    has_limit && overflow.starts_with("reject-publish")
}
