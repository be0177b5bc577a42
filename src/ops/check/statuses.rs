//! For each status, the queues that its events reach, and whether they would wait there for a
//! consumer. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::finding::{Findings, Severity, Subject, listed};
use super::input::{CheckInput, CheckedStatus, statuses};
use super::queues::{self, Held};
use super::remedy::DECLARE;
use crate::config::units::{format_duration, format_size};
use crate::rabbitmq::snapshot::key::KeyPattern;
use crate::rabbitmq::snapshot::{FoundQueue, Reach};
use crate::webhook::DeadLetterReason;

/// The queues that the events of a status reach.
struct Reached<'a> {
    status: &'a CheckedStatus,
    /// Now.
    now: Reach<'a>,
    /// Once `serve` has declared what is missing.
    then: Reach<'a>,
}

/// Findings about everything between the exchanges and the consumers.
pub fn judge(input: &CheckInput<'_>, list: &mut Findings) {
    let statuses = statuses(input.config);
    let mut held: BTreeMap<&str, Held> = BTreeMap::new();
    for status in &statuses {
        let (exchange, key) = (&*status.route.exchange, &status.key);
        let reached = Reached {
            status,
            now: input.present.reach(exchange, key),
            then: input.existing.reach(exchange, key),
        };
        note(input, &reached, list);
        let is_kept = input.present.durable(&reached.now).next().is_some();
        let will_be = input.existing.durable(&reached.then).next().is_some();
        if reached.then.alternate.is_some() || !will_be {
            let fix = format!(
                "add `[[queues]]` with `name = \"…\"`, `exchange = \"{exchange}\"` and `keys = [\"{key}\"]`, or bind a queue of your own"
            );
            unbound(input, &reached, fix, list);
        } else if reached.now.alternate.is_some() || !is_kept {
            unbound(input, &reached, DECLARE.into(), list);
        }
        if reached.then.alternate.is_none() {
            for name in &reached.then.queues {
                let held = held.entry(name).or_default();
                held.keys.push(key.clone());
                held.is_alone |= !will_be;
            }
        }
    }
    for (name, held) in &held {
        if let Some(queue) = input.existing.queue(name) {
            queues::judge(input, queue, held, list);
        }
    }
    idle(input, &held, list);
    queues::judge_holding(input, list);
    queues::judge_retries(input, list);
    dead_letters(input, list);
}

/// A note with the queues that the events of a status reach now, and those that are missing.
fn note(input: &CheckInput<'_>, reached: &Reached<'_>, list: &mut Findings) {
    let CheckedStatus { name, route, key } = reached.status;
    let now = reached.now.queues.iter().map(|name| {
        let kind = input.present.queue(name).map_or("?", |queue| &queue.kind);
        format!("`{name}` ({kind})")
    });
    let missing = reached.then.queues.difference(&reached.now.queues);
    let missing = missing.map(|name| match input.present.queue(name) {
        Some(_) => format!("`{name}` (its binding is missing)"),
        None => format!("`{name}` (missing)"),
    });
    let (mut now, mut missing): (Vec<_>, Vec<_>) = (now.collect(), missing.collect());
    if now.is_empty() {
        now.append(&mut missing);
    }
    if now.is_empty() {
        now.push("no queue".into());
    }
    let alternate = reached.now.alternate;
    let by = alternate.map(|name| format!(", by the alternate exchange `{name}`"));
    missing.insert(0, now.join(", ") + &by.unwrap_or_default());
    let (exchange, queues) = (&route.exchange, missing.join("; "));
    list.note(format!(
        "status `{name}`: exchange `{exchange}`, key `{key}`: {queues}"
    ));
}

/// A finding with the present effect of a status without a durable queue.
fn unbound(input: &CheckInput<'_>, reached: &Reached<'_>, fix: String, list: &mut Findings) {
    let CheckedStatus { name, route, key } = reached.status;
    let exchange = &*route.exchange;
    let kept: Vec<_> = input.present.durable(&reached.now).map(kept).collect();
    let is_there = input.present.has_exchange(exchange);
    let attempts = input.config.retry.attempts_max;
    let impact = if !is_there {
        "its events wait in the journal until the exchange is declared".into()
    } else if !kept.is_empty() {
        format!("its events wait in {}", kept.join(", "))
    } else if reached.now.queues.is_empty() {
        format!("its events are returned {attempts} times and become dead letters (`unroutable`)")
    } else {
        let queues = listed(&reached.now.queues);
        format!("its events are confirmed and lost with {queues}")
    };
    let severity = Severity::of(is_there && kept.is_empty());
    let queues = reached.now.queues.union(&reached.then.queues);
    list.add(severity, format!("status `{name}`: no durable queue is bound to exchange `{exchange}` for its key `{key}`"))
        .impact(impact)
        .fix(fix)
        .because([Subject::Exchange(exchange.into())])
        .because(queues.map(|name| Subject::Queue((*name).into())));
}

/// The name of a queue that keeps events, and which of them it drops.
fn kept(queue: &FoundQueue) -> String {
    let unsigned = |name: &str| u64::try_from(queue.number(name)?).ok();
    let age = unsigned("message-ttl").map(Duration::from_millis);
    let bytes = unsigned("max-length-bytes").filter(|_| !queue.refuses_when_full());
    let age = age.map(|age| format!("what is older than {}", format_duration(age)));
    let bytes = bytes.map(|bytes| format!("beyond {}, the oldest", format_size(bytes)));
    let drops: Vec<_> = age.into_iter().chain(bytes).collect();
    let name = &queue.name;
    if drops.is_empty() {
        format!("`{name}`")
    } else {
        format!("`{name}`, which drops {}", drops.join(" and, "))
    }
}

/// Findings about queues of `[[queues]]` that no status is routed to, usually because of a typo in
/// a key.
fn idle(input: &CheckInput<'_>, held: &BTreeMap<&str, Held>, list: &mut Findings) {
    for queue in &input.config.queues {
        let (name, keys) = (&queue.name, &queue.keys);
        if input.existing.queue(name).is_none() || held.contains_key(name.as_str()) {
            continue;
        }
        let exchange = queue.exchange.as_ref();
        let exchange = exchange.unwrap_or(&input.config.routing.exchange);
        list.warning(format!(
            "queue `{name}` of `[[queues]]` gets nothing: no status has a key that matches {keys:?}"
        ))
        .fix("compare its keys with those of the statuses above")
        .because([
            Subject::Exchange(exchange.clone()),
            Subject::Queue(name.clone()),
        ]);
    }
}

/// Adds a finding if no durable queue is bound for some reason of dead letters.
fn dead_letters(input: &CheckInput<'_>, list: &mut Findings) {
    let exchange = input.config.dead_letter.exchange.as_str();
    let is_lost = |reason: &&str| {
        let reach = input.existing.reach(exchange, &KeyPattern::literal(reason));
        input.existing.durable(&reach).next().is_none()
    };
    let unrouted: Vec<_> = DeadLetterReason::ALL
        .iter()
        .map(|reason| reason.as_str())
        .filter(is_lost)
        .collect();
    if !unrouted.is_empty() && input.existing.exchange(exchange).is_some() {
        let reasons = unrouted.join(", ");
        list.error(format!("no durable queue is bound to the dead-letter exchange `{exchange}` for {reasons}"))
            .impact("such dead letters cannot be published: they stay in the journal, and their sessions wait")
            .fix(format!("bind a queue to `{exchange}` with the key `#`"))
            .because([Subject::Exchange(exchange.into()), Subject::Queue(exchange.into())]);
    }
}
