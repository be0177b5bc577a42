//! What a queue may lose of what it has confirmed. Policies count like arguments. Pure.

use deskbridge::rabbitmq::existing::Queue;
use deskbridge::rabbitmq::existing::key::Key;
use deskbridge::rabbitmq::topology::Object;
use serde_json::Value;

use super::case::Case;
use super::finding::{DECLARE, Finding, Subject, quoted};
use super::mend::{Mend, delete};

/// What a queue holds.
#[derive(Default)]
pub struct Held {
    /// Keys of the statuses bound to it.
    pub keys: Vec<Key>,
    /// Whether some status has no lasting queue.
    pub is_alone: bool,
}

/// A queue that consumers read.
pub fn judge(case: &Case<'_>, queue: &Queue, held: &Held) -> Vec<Finding> {
    if queue.is_passing() {
        return vec![passing(queue, held)];
    }
    let mend = Mend { case, queue };
    let mut lines = Vec::new();
    lines.extend(durability(&mend));
    lines.extend(full(case, queue));
    lines.extend(length(&mend));
    lines.extend(age(&mend, held));
    lines.extend(deliveries(&mend));
    lines.extend(dead_lettering(&mend, held));
    lines.extend(state(queue));
    lines.extend(differences(case, queue));
    lines
}

/// The two queues where events wait that nobody takes.
pub fn judge_holding(case: &Case<'_>) -> Vec<Finding> {
    let queue = |name: &Option<String>| case.existing.queue(name.as_deref()?);
    let mut lines = Vec::new();
    for held in [&case.plan.unrouted_queue, &case.plan.dead_letter_queue] {
        let Some(queue) = queue(held) else { continue };
        let mend = Mend { case, queue };
        lines.extend(durability(&mend));
        lines.extend(deliveries(&mend));
        lines.extend(state(queue));
        lines.extend(differences(case, queue));
    }
    if let Some(queue) = queue(&case.plan.dead_letter_queue) {
        let mend = Mend { case, queue };
        lines.extend(length(&mend));
        lines.extend(age(&mend, &Held::default()));
    }
    lines
}

/// The queues by way of which messages come again that consumers reject.
pub fn judge_retries(case: &Case<'_>) -> Vec<Finding> {
    let mut lines = Vec::new();
    for delayed in &case.plan.delayed {
        for name in [&delayed.rejected, &delayed.retry] {
            let Some(queue) = case.existing.queue(name) else {
                continue;
            };
            let (mend, held) = (Mend { case, queue }, Held::default());
            lines.extend(durability(&mend));
            lines.extend(length(&mend));
            if mend.dead_letters_safely() {
                lines.extend(shortened(queue));
            } else if *name == delayed.retry {
                lines.extend(dead_lettering(&mend, &held));
            } else {
                lines.extend(age(&mend, &held));
            }
            lines.extend(state(queue));
            lines.extend(differences(case, queue));
        }
    }
    lines
}

/// A policy lets rejected messages wait for less than they should.
fn shortened(queue: &Queue) -> Option<Finding> {
    let ttl = queue.number("message-ttl")?;
    let wanted = queue.argument("message-ttl").and_then(Value::as_i64);
    let problem = format!(
        "{} lets messages expire after {ttl} ms because of a policy",
        called(queue)
    );
    let then = match wanted {
        Some(wanted) if wanted <= ttl => return None,
        Some(_) => "nothing, but rejected messages come again before their `retry_delay` is over",
        None => {
            "nothing, but rejected messages become dead letters when the bridge is away for longer"
        }
    };
    let advice = "a policy whose pattern does not match this queue";
    Some(
        Finding::warning(problem)
            .losing(then)
            .trying(advice)
            .about(itself(queue)),
    )
}

fn called(queue: &Queue) -> String {
    format!("{} queue `{}`", queue.kind, queue.name)
}

fn itself(queue: &Queue) -> [Subject; 1] {
    [Subject::Queue(queue.name.clone())]
}

fn passing(queue: &Queue, held: &Held) -> Finding {
    let how = if queue.exclusive {
        "is exclusive: it goes with the connection that declared it"
    } else if queue.auto_delete {
        "is auto-delete: it goes with its last consumer"
    } else {
        "expires when nobody uses it"
    };
    let problem = format!("{} {how}", called(queue));
    let line = if held.is_alone {
        Finding::error(problem)
    } else {
        Finding::warning(problem)
    };
    line.about(itself(queue))
        .losing("everything that waits in it, though it was confirmed")
        .trying("a durable queue for whatever must arrive; as it is for looking (`tail`) only, leave it")
}

fn durability(mend: &Mend<'_>) -> Option<Finding> {
    let queue = mend.queue;
    if !queue.durable {
        let problem = format!("{} is not durable", called(queue));
        let lost = "a restart of the broker deletes it with everything that waits in it";
        let line = Finding::error(problem).losing(lost).trying(mend.anew());
        return Some(line.about(itself(queue)));
    }
    if queue.is_quorum() {
        return None;
    }
    let problem = format!(
        "queue `{}` is a {} queue, which confirms before it has written to the disk",
        queue.name, queue.kind
    );
    let lost = "a power failure of the broker loses what it has confirmed";
    Some(Finding::error(problem).losing(lost).trying(mend.anew()))
}

/// A queue that refuses what comes beyond its limit, and is there.
fn full(case: &Case<'_>, queue: &Queue) -> Option<Finding> {
    if !queue.text("overflow")?.starts_with("reject-publish") {
        return None;
    }
    let limits = [
        ("max-length", queue.waiting(), "messages"),
        ("max-length-bytes", queue.message_bytes_ready, "bytes"),
    ];
    let (name, count, limit, unit) = limits.into_iter().find_map(|(name, count, unit)| {
        let (count, limit) = (count?, queue.number(name)?);
        (count >= limit).then_some((name, count, limit, unit))
    })?;
    let problem = format!(
        "{} is full ({count} of {limit} {unit}) and refuses",
        called(queue)
    );
    let attempts = case.config.retry.attempts_max;
    let lost = format!(
        "events for it are tried up to {attempts} times while their sessions wait, and become dead letters (`nacked`)"
    );
    let advice = format!(
        "let a consumer drain it (`rabbitmqctl list_queues -p {} name messages_ready messages_unacknowledged consumers` shows whether one does), or raise its `{name}`",
        quoted(case.vhost)
    );
    let line = Finding::error(problem).losing(lost).trying(advice);
    Some(line.about(itself(queue)))
}

fn length(mend: &Mend<'_>) -> Option<Finding> {
    let queue = mend.queue;
    let limits = [("max-length", "messages"), ("max-length-bytes", "bytes")];
    let limit = limits
        .into_iter()
        .find_map(|(name, unit)| Some((queue.number(name)?, unit)));
    let (limit, unit) = limit?;
    if queue
        .text("overflow")
        .is_some_and(|overflow| overflow != "drop-head")
    {
        return None;
    }
    let problem = format!(
        "{} drops its oldest messages (`drop-head`) beyond {limit} {unit}",
        called(queue)
    );
    let lost = "events that were confirmed, silently, as soon as its consumers are slow";
    Some(
        Finding::error(problem)
            .losing(lost)
            .trying(mend.by_policy()),
    )
}

fn age(mend: &Mend<'_>, held: &Held) -> Option<Finding> {
    let queue = mend.queue;
    let ttl = queue.number("message-ttl")?;
    let problem = format!("{} lets messages expire after {ttl} ms", called(queue));
    if mend.dead_letters_safely() && !held.keys.is_empty() {
        let configured = mend.case.config.queues.iter();
        let is_wanted = configured
            .filter(|wanted| wanted.name == queue.name)
            .any(|wanted| wanted.ttl.is_some());
        let line = Finding::warning(problem)
            .losing("nothing, but consumers that are away for longer find their events in the dead-letter queue");
        return (!is_wanted).then_some(line);
    }
    let lost = match queue.text("dead-letter-exchange") {
        Some(_) => "what expires may be lost on its way to the dead-letter exchange",
        None => "events that were confirmed, silently, when no consumer takes them in time",
    };
    Some(
        Finding::error(problem)
            .losing(lost)
            .trying(mend.by_policy()),
    )
}

fn deliveries(mend: &Mend<'_>) -> Option<Finding> {
    let queue = mend.queue;
    if queue.text("dead-letter-exchange").is_some() {
        return None;
    }
    let lost = "what a consumer cannot handle is gone, and so is what it returns too often";
    match mend.delivery_limit() {
        Some(limit) => {
            let problem = format!(
                "{} drops a message after {limit} deliveries and has no dead-letter exchange",
                called(queue)
            );
            Some(
                Finding::error(problem)
                    .losing(lost)
                    .trying(mend.by_policy()),
            )
        }
        None if mend.is_holding() => None,
        None => {
            let problem = format!("{} has no dead-letter exchange", called(queue));
            let lost =
                "what a consumer rejects is gone; RabbitMQ 4 also drops what it returns 20 times";
            Some(
                Finding::warning(problem)
                    .losing(lost)
                    .trying(mend.by_policy()),
            )
        }
    }
}

fn dead_lettering(mend: &Mend<'_>, held: &Held) -> Option<Finding> {
    let queue = mend.queue;
    let exchange = queue.text("dead-letter-exchange")?;
    let key = queue.text("dead-letter-routing-key").map(Key::literal);
    let keys = key.map_or_else(|| held.keys.clone(), |key| vec![key]);
    let is_there = exchange.is_empty() || mend.case.existing.exchange(exchange).is_some();
    let is_taken = |key: &Key| !mend.case.existing.reach(exchange, key).queues.is_empty();
    if !is_there || !keys.iter().all(is_taken) {
        let why = if is_there {
            "leads to no queue"
        } else {
            "does not exist"
        };
        let problem = format!(
            "the dead-letter exchange `{exchange}` of {} {why}",
            called(queue)
        );
        let lost = "what its consumers reject is gone";
        let advice = format!("declare `{exchange}` and bind a queue to it with the key `#`");
        let line = Finding::error(problem).losing(lost).trying(advice);
        return Some(line.because([Subject::Exchange(exchange.into())]));
    }
    if mend.dead_letters_safely() {
        return None;
    }
    let is_meant = queue.text("dead-letter-strategy") == Some("at-least-once");
    let why = match (queue.is_quorum(), is_meant) {
        (false, _) => "only quorum queues can do better",
        (true, true) => "`at-least-once` works only with `overflow=reject-publish`",
        (true, false) => "`dead-letter-strategy` is not `at-least-once`",
    };
    let problem = format!("{} dead-letters at most once: {why}", called(queue));
    let lost = "a dead letter is gone if its queue cannot take it at that moment";
    let advice = if queue.is_quorum() {
        mend.by_policy()
    } else {
        mend.anew()
    };
    Some(Finding::error(problem).losing(lost).trying(advice))
}

fn state(queue: &Queue) -> Option<Finding> {
    let state = queue.state.as_deref()?;
    let is_down = ["down", "minority", "stopped", "terminated", "crashed"].contains(&state);
    let problem = format!("{} is `{state}`", called(queue));
    is_down.then(|| {
        Finding::error(problem)
            .losing("it takes nothing: its route is stuck or refused until it is back")
            .trying("bring back the nodes it lives on; `rabbitmq-queues quorum_status` names them")
            .about(itself(queue))
    })
}

/// What stands otherwise than the configuration asks for, and does not change by itself.
fn differences(case: &Case<'_>, queue: &Queue) -> Option<Finding> {
    let planned = case.plan.objects.iter().find_map(|object| match object {
        Object::Queue(planned) if planned.name == queue.name => Some(planned),
        _ => None,
    })?;
    let differs = |(name, value): &&(&'static str, _)| {
        queue.arguments.get(*name) != Some(&Value::from(value))
    };
    let differing: Vec<_> = planned
        .arguments
        .iter()
        .filter(differs)
        .map(|(name, value)| {
            let found = queue.arguments.get(*name);
            let found = found.map_or("nothing".into(), ToString::to_string);
            format!("`{name}` is {found}, not {}", Value::from(value))
        })
        .collect();
    (!differing.is_empty()).then(|| {
        Finding::warning(format!(
            "{} was declared otherwise and is left as it is: {}",
            called(queue),
            differing.join(", ")
        ))
        .trying(format!(
            "when it is empty: {}; then `serve` declares it anew: {DECLARE}",
            delete(case, queue)
        ))
    })
}
