//! For each status the queues its events end up in, and whether they would wait there for a
//! consumer. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use deskbridge::config::units::{format_duration, format_size};
use deskbridge::rabbitmq::existing::key::Key;
use deskbridge::rabbitmq::existing::{Existing, Queue};
use deskbridge::webhook::Reason;

use super::case::{Case, StatusRoute};
use super::finding::{DECLARE, Finding, Subject};
use super::queues::{self, Held};

/// Everything between the exchanges and the consumers.
pub fn judge(case: &Case<'_>) -> Vec<Finding> {
    let statuses = case.statuses();
    let mut lines = Vec::new();
    let mut held: BTreeMap<&str, Held> = BTreeMap::new();
    for status in &statuses {
        let reach = case.existing.reach(&status.route.exchange, &status.key);
        lines.push(note(case, status));
        let is_lasting = reach
            .queues
            .iter()
            .any(|name| is_lasting(case.existing, name));
        if reach.alternate.is_some() || !is_lasting {
            lines.push(unsubscribed(case, status));
        } else {
            lines.extend(undeclared(case, status));
        }
        for name in reach.queues.iter().filter(|_| reach.alternate.is_none()) {
            let held = held.entry(name).or_default();
            held.keys.push(status.key.clone());
            held.is_alone |= !is_lasting;
        }
    }
    for (name, held) in &held {
        if let Some(queue) = case.existing.queue(name) {
            lines.extend(queues::judge(case, queue, held));
        }
    }
    lines.extend(idle(case, &held));
    lines.extend(queues::judge_holding(case));
    lines.extend(queues::judge_retries(case));
    lines.extend(dead_letters(case));
    lines
}

fn is_lasting(existing: &Existing, queue: &str) -> bool {
    existing.queue(queue).is_some_and(Queue::is_lasting)
}

/// Where the events of a status are now, whether that is well or not, and what is missing there.
fn note(case: &Case<'_>, status: &StatusRoute) -> Finding {
    let reach = case.present.reach(&status.route.exchange, &status.key);
    let kind = |name: &str| {
        let queue = case.present.queue(name);
        queue.map_or("?", |queue| &queue.kind).to_owned()
    };
    let queues = reach.queues.iter();
    let mut queues: Vec<_> = queues
        .map(|name| format!("`{name}` ({})", kind(name)))
        .collect();
    let by = match reach.alternate {
        Some(alternate) => format!(", by the alternate exchange `{alternate}`"),
        None => String::new(),
    };
    let planned = case.existing.reach(&status.route.exchange, &status.key);
    let missing = planned.queues.difference(&reach.queues).map(|name| {
        let what = match case.present.queue(name) {
            Some(_) => "its binding is missing",
            None => "missing",
        };
        format!("`{name}` ({what})")
    });
    let mut missing: Vec<_> = missing.collect();
    if queues.is_empty() {
        queues.append(&mut missing);
    }
    if queues.is_empty() {
        queues.push("no queue".into());
    }
    let missing = missing.iter().map(|queue| format!("; {queue}"));
    Finding::note(format!(
        "status `{}`: exchange `{}`, key `{}`: {}{by}{}",
        status.name,
        status.route.exchange,
        status.key,
        queues.join(", "),
        missing.collect::<String>()
    ))
}

/// A status whose queue has yet to be declared.
fn undeclared(case: &Case<'_>, status: &StatusRoute) -> Option<Finding> {
    let reach = case.present.reach(&status.route.exchange, &status.key);
    let is_kept = reach
        .queues
        .iter()
        .any(|name| is_lasting(case.present, name));
    if is_kept && reach.alternate.is_none() {
        return None;
    }
    Some(unbound(case, status).trying(DECLARE))
}

fn unsubscribed(case: &Case<'_>, status: &StatusRoute) -> Finding {
    let StatusRoute { route, key, .. } = status;
    let exchange = &route.exchange;
    let advice = format!(
        "`[[queues]]` with `name = \"…\"`, `exchange = \"{exchange}\"` and `keys = [\"{key}\"]`, or bind a queue of your own"
    );
    unbound(case, status).trying(advice)
}

/// What becomes now of events that no durable queue is bound for.
fn unbound(case: &Case<'_>, status: &StatusRoute) -> Finding {
    let StatusRoute { name, route, key } = status;
    let exchange = &*route.exchange;
    let problem = format!(
        "status `{name}`: no durable queue is bound to exchange `{exchange}` for its key `{key}`"
    );
    let reach = case.present.reach(exchange, key);
    let planned = case.existing.reach(exchange, key);
    let lasting = reach.queues.iter();
    let lasting =
        lasting.filter_map(|name| case.present.queue(name).filter(|one| one.is_lasting()));
    let kept: Vec<_> = lasting.map(kept).collect();
    let is_there = exchange.is_empty() || case.present.exchange(exchange).is_some();
    let finding = if !is_there {
        Finding::warning(problem)
            .losing("its events wait in the journal until somebody has declared it")
    } else if !kept.is_empty() {
        Finding::warning(problem).losing(format!("its events wait in {}", kept.join(", ")))
    } else if reach.queues.is_empty() {
        let attempts = case.config.retry.attempts_max;
        Finding::error(problem).losing(format!(
            "its events are returned {attempts} times and become dead letters (`unroutable`)"
        ))
    } else {
        let queues: Vec<_> = reach
            .queues
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        Finding::error(problem).losing(format!(
            "its events are confirmed and lost with {}",
            queues.join(", ")
        ))
    };
    let queues = reach.queues.union(&planned.queues);
    let causes = queues.map(|name| Subject::Queue((*name).into()));
    finding
        .because([Subject::Exchange(exchange.into())])
        .because(causes)
}

/// A queue that keeps events, and what it drops of them.
fn kept(queue: &Queue) -> String {
    let unsigned = |name: &str| u64::try_from(queue.number(name)?).ok();
    let age = unsigned("message-ttl").map(|ttl| {
        let ttl = format_duration(Duration::from_millis(ttl));
        format!("what is older than {ttl}")
    });
    let is_dropping = queue
        .text("overflow")
        .is_none_or(|overflow| overflow == "drop-head");
    let bytes = unsigned("max-length-bytes").filter(|_| is_dropping);
    let bytes = bytes.map(|bytes| format!("beyond {}, the oldest", format_size(bytes)));
    let drops: Vec<_> = age.into_iter().chain(bytes).collect();
    let name = &queue.name;
    if drops.is_empty() {
        format!("`{name}`")
    } else {
        format!("`{name}`, which drops {}", drops.join(" and, "))
    }
}

/// Queues that were asked for and get nothing: most often a key with a slip of the pen.
fn idle(case: &Case<'_>, held: &BTreeMap<&str, Held>) -> Vec<Finding> {
    let configured = case.config.queues.iter();
    let idle = configured.filter(|queue| {
        case.existing.queue(&queue.name).is_some() && !held.contains_key(queue.name.as_str())
    });
    idle.map(|queue| {
        let problem = format!(
            "queue `{}` of `[[queues]]` gets nothing: no status has a key that matches {:?}",
            queue.name, queue.keys
        );
        let exchange = queue.exchange.as_ref();
        let exchange = exchange.unwrap_or(&case.config.routing.exchange);
        Finding::warning(problem)
            .trying("compare its keys with those of the statuses above")
            .because([Subject::Exchange(exchange.clone())])
            .because([Subject::Queue(queue.name.clone())])
    })
    .collect()
}

/// Whether dead letters find their queue.
fn dead_letters(case: &Case<'_>) -> Option<Finding> {
    let exchange = case.config.dead_letter.exchange.as_str();
    let finds = |reason: &Reason| {
        let reach = case
            .existing
            .reach(exchange, &Key::literal(reason.as_str()));
        reach
            .queues
            .iter()
            .any(|name| is_lasting(case.existing, name))
    };
    let lost: Vec<_> = Reason::ALL
        .into_iter()
        .filter(|reason| !finds(reason))
        .collect();
    if lost.is_empty() || case.existing.exchange(exchange).is_none() {
        return None;
    }
    let reasons: Vec<_> = lost.iter().map(|reason| reason.as_str()).collect();
    let problem = format!(
        "no durable queue is bound to the dead-letter exchange `{exchange}` for {}",
        reasons.join(", ")
    );
    Some(
        Finding::error(problem)
            .losing("such dead letters are not taken: they stay in the journal, and their sessions wait")
            .trying(format!("bind a queue to `{exchange}` with the key `#`"))
            .because([
                Subject::Exchange(exchange.into()),
                Subject::Queue(exchange.into()),
            ]),
    )
}
