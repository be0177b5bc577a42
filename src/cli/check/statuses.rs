//! For each status the queues its events end up in, and whether they would wait there for a
//! consumer. Pure.

use std::collections::BTreeMap;

use deskbridge::config::units::{format_duration, format_size};
use deskbridge::rabbitmq::existing::key::Key;
use deskbridge::rabbitmq::existing::{Existing, Queue, Reach};
use deskbridge::webhook::Reason;

use super::case::{Case, StatusRoute};
use super::line::{DECLARE, Line};
use super::queues::{self, Held};

/// Everything between the exchanges and the consumers.
pub fn judge(case: &Case<'_>) -> Vec<Line> {
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
            lines.push(unsubscribed(case, status, is_lasting));
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
    lines.extend(dead_letters(case));
    lines
}

fn is_lasting(existing: &Existing, queue: &str) -> bool {
    existing.queue(queue).is_some_and(Queue::is_lasting)
}

/// Where the events of a status are now, whether that is well or not, and what is missing there.
fn note(case: &Case<'_>, status: &StatusRoute) -> Line {
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
    Line::note(format!(
        "status `{}`: exchange `{}`, key `{}`: {}{by}{}",
        status.name,
        status.route.exchange,
        status.key,
        queues.join(", "),
        missing.collect::<String>()
    ))
}

/// A status whose queue has yet to be declared.
fn undeclared(case: &Case<'_>, status: &StatusRoute) -> Option<Line> {
    let StatusRoute { route, key, .. } = status;
    let reach = case.present.reach(&route.exchange, key);
    let is_kept = reach
        .queues
        .iter()
        .any(|name| is_lasting(case.present, name));
    if is_kept && reach.alternate.is_none() {
        return None;
    }
    let problem = unbound(status);
    let is_there = route.exchange.is_empty() || case.present.exchange(&route.exchange).is_some();
    let line = if is_there {
        losing(case, &reach, is_kept, problem)
    } else {
        Line::warning(problem)
            .losing("its events wait in the journal until `serve` has declared it")
    };
    Some(line.trying(DECLARE))
}

fn unbound(status: &StatusRoute) -> String {
    let StatusRoute { name, route, key } = status;
    format!(
        "status `{name}`: no durable queue is bound to exchange `{}` for its key `{key}`",
        route.exchange
    )
}

fn unsubscribed(case: &Case<'_>, status: &StatusRoute, is_caught: bool) -> Line {
    let StatusRoute { route, key, .. } = status;
    let exchange = &route.exchange;
    let advice = format!(
        "`[[queues]]` with `name = \"…\"`, `exchange = \"{exchange}\"` and `keys = [\"{key}\"]`, or bind a queue of your own"
    );
    let reach = case.existing.reach(exchange, key);
    losing(case, &reach, is_caught, unbound(status)).trying(advice)
}

/// What becomes of events that no durable queue is bound for.
fn losing(case: &Case<'_>, reach: &Reach<'_>, is_caught: bool, problem: String) -> Line {
    if is_caught {
        let alternate = reach.alternate.unwrap_or_default();
        let unrouted = &case.config.unrouted;
        let (ttl, bytes) = (
            format_duration(unrouted.ttl),
            format_size(unrouted.bytes_max),
        );
        let lost = if alternate == unrouted.exchange {
            format!(
                "its events wait in `{alternate}`, which drops what is older than {ttl} and, beyond {bytes}, the oldest"
            )
        } else {
            format!("its events go to `{alternate}`")
        };
        return Line::warning(problem).losing(lost);
    }
    let lost = if reach.queues.is_empty() {
        let attempts = case.config.retry.attempts_max;
        format!("its events are returned {attempts} times and become dead letters (`unroutable`)")
    } else {
        let queues: Vec<_> = reach
            .queues
            .iter()
            .map(|name| format!("`{name}`"))
            .collect();
        format!(
            "its events are confirmed and lost with {}",
            queues.join(", ")
        )
    };
    Line::error(problem).losing(lost)
}

/// Queues that were asked for and get nothing: most often a key with a slip of the pen.
fn idle(case: &Case<'_>, held: &BTreeMap<&str, Held>) -> Vec<Line> {
    let configured = case.config.queues.iter();
    let idle = configured.filter(|queue| {
        case.existing.queue(&queue.name).is_some() && !held.contains_key(queue.name.as_str())
    });
    idle.map(|queue| {
        let problem = format!(
            "queue `{}` of `[[queues]]` gets nothing: no status has a key that matches {:?}",
            queue.name, queue.keys
        );
        Line::warning(problem).trying("compare its keys with those of the statuses above")
    })
    .collect()
}

/// Whether dead letters find their queue.
fn dead_letters(case: &Case<'_>) -> Option<Line> {
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
        Line::error(problem)
            .losing("such dead letters are not taken: they stay in the journal, and their sessions wait")
            .trying(format!("bind a queue to `{exchange}` with the key `#`")),
    )
}
