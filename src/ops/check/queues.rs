//! Whether a queue can lose messages that it has confirmed. Policies count like arguments. Pure.

use std::fmt::Display;

use serde_json::{Value, json};

use super::finding::{Finding, Findings, Severity, Subject};
use super::input::CheckInput;
use super::remedy::{DECLARE, Remedy, delete, quoted};
use crate::rabbitmq::snapshot::FoundQueue;
use crate::rabbitmq::snapshot::key::KeyPattern;
use crate::rabbitmq::topology::Object;

/// What a queue receives.
#[derive(Default)]
pub struct Held {
    /// The keys of the statuses that are routed to it.
    pub keys: Vec<KeyPattern>,
    /// Whether one of these statuses has no durable queue.
    pub is_alone: bool,
}

/// Findings about a queue that consumers read.
pub fn judge(input: &CheckInput<'_>, queue: &FoundQueue, held: &Held, list: &mut Findings) {
    if queue.is_transient() {
        return transient(queue, held, list);
    }
    let remedy = Remedy { input, queue };
    durability(&remedy, list);
    over_its_limit(input, queue, list);
    length(&remedy, list);
    age(&remedy, held, list);
    deliveries(&remedy, list);
    dead_lettering(&remedy, held, list);
    state(queue, list);
    differences(input, queue, list);
}

/// Findings about the queue of unrouted events and the dead-letter queue.
pub fn judge_holding(input: &CheckInput<'_>, list: &mut Findings) {
    let names = input.holding_queues().into_iter();
    for queue in names.filter_map(|name| input.existing.queue(name)) {
        let remedy = Remedy { input, queue };
        durability(&remedy, list);
        deliveries(&remedy, list);
        state(queue, list);
        differences(input, queue, list);
        if input.plan.dead_letter_queue.as_ref() == Some(&queue.name) {
            length(&remedy, list);
            age(&remedy, &Held::default(), list);
        }
    }
}

/// Findings about the retry queues and the queues of rejected messages.
pub fn judge_retries(input: &CheckInput<'_>, list: &mut Findings) {
    for delayed in &input.plan.delayed {
        let names = [&delayed.rejected, &delayed.retry].into_iter();
        for queue in names.filter_map(|name| input.existing.queue(name)) {
            let (remedy, held) = (Remedy { input, queue }, Held::default());
            durability(&remedy, list);
            length(&remedy, list);
            if remedy.dead_letters_safely() {
                shortened(queue, list);
            } else if queue.name == delayed.retry {
                dead_lettering(&remedy, &held, list);
            } else {
                age(&remedy, &held, list);
            }
            state(queue, list);
            differences(input, queue, list);
        }
    }
    for queue in &input.existing.queues {
        abandoned(input, queue, list);
    }
}

/// Adds a finding if a queue of rejected messages has no consumer, because its section of the
/// configuration was removed.
fn abandoned(input: &CheckInput<'_>, queue: &FoundQueue, list: &mut Findings) {
    let name = &queue.name;
    let Some(of) = name.strip_suffix(".rejected") else {
        return;
    };
    let is_planned = input
        .plan
        .delayed
        .iter()
        .any(|delayed| delayed.rejected == *name);
    let is_ours = input.existing.queue(&format!("{of}.retry")).is_some();
    let messages = queue.messages.unwrap_or_default();
    if is_planned || !is_ours || messages == 0 || queue.consumers != Some(0) {
        return;
    }
    let (from, to) = (quoted(name), quoted(of));
    list.error(format!(
        "{messages} rejected messages wait in `{name}`, and no `[[queues]]` section with a `retry_delay` has the name `{of}`"
    ))
    .impact("they are never delivered again")
    .fix(format!("restore the section, or move them: `deskbridge dead-letters replay --queue {from} --to-queue {to}`"))
    .about([queue]);
}

/// The length limits of a queue: name, limit, unit, and how much is used, if that is known.
pub fn limits(queue: &FoundQueue) -> impl Iterator<Item = (&str, i64, &str, Option<i64>)> {
    let limits = [
        ("max-length", "messages", queue.waiting()),
        ("max-length-bytes", "bytes", queue.message_bytes_ready),
    ];
    let limit = move |(name, unit, used)| Some((name, queue.number(name)?, unit, used));
    limits.into_iter().filter_map(limit)
}

/// Adds the finding that a queue is full and refuses messages; `used` is such as `3 of 2 messages`,
/// and `limit` is the name of what limits it.
pub fn full<'l>(
    input: &CheckInput<'_>,
    queue: impl Display,
    used: &str,
    limit: &str,
    list: &'l mut Findings,
) -> &'l mut Finding {
    let (attempts, vhost) = (input.config.retry.attempts_max, quoted(&input.user.vhost));
    list.error(format!("{queue} is full ({used}) and refuses new messages"))
        .impact(format!("its events are published up to {attempts} times while their sessions wait, then become dead letters (`nacked`)"))
        .fix(format!("let a consumer drain it (`rabbitmqctl list_queues -p {vhost} name messages_ready messages_unacknowledged consumers` shows whether one does), or raise its `{limit}`"))
}

/// Adds a finding if a policy makes rejected messages expire earlier than configured.
fn shortened(queue: &FoundQueue, list: &mut Findings) {
    let Some(ttl) = queue.number("message-ttl") else {
        return;
    };
    let impact = match queue.argument("message-ttl").and_then(Value::as_i64) {
        Some(wanted) if wanted <= ttl => return,
        Some(_) => "nothing, but rejected messages come again before their `retry_delay` is over",
        None => {
            "nothing, but rejected messages become dead letters when the bridge is down for longer"
        }
    };
    list.warning(format!(
        "{queue} lets messages expire after {ttl} ms because of a policy"
    ))
    .impact(impact)
    .fix("use a policy whose pattern does not match this queue")
    .about([queue]);
}

fn transient(queue: &FoundQueue, held: &Held, list: &mut Findings) {
    let how = if queue.exclusive {
        "is exclusive: it is deleted with the connection that declared it"
    } else if queue.auto_delete {
        "is auto-delete: it is deleted with its last consumer"
    } else {
        "expires when it is unused"
    };
    list.add(Severity::of(held.is_alone), format!("{queue} {how}"))
        .impact("everything that waits in it is lost, although it was confirmed")
        .fix("use a durable queue for events that must arrive; leave it if it is only for watching (`tail`)")
        .about([queue]);
}

fn durability(remedy: &Remedy<'_>, list: &mut Findings) {
    let queue = remedy.queue;
    if !queue.durable {
        list.error(format!("{queue} is not durable"))
            .impact("a restart of the broker deletes it with everything that waits in it")
            .fix(remedy.recreate_command())
            .about([queue]);
    } else if !queue.is_quorum() {
        let (name, kind) = (&queue.name, &queue.kind);
        list.error(format!(
            "queue `{name}` is a {kind} queue, which confirms before it has written to the disk"
        ))
        .impact("a power failure of the broker loses what it has confirmed")
        .fix(remedy.recreate_command());
    }
}

fn over_its_limit(input: &CheckInput<'_>, queue: &FoundQueue, list: &mut Findings) {
    let mut reached = limits(queue).filter(|(_, limit, _, used)| *used >= Some(*limit));
    if queue.refuses_when_full()
        && let Some((name, limit, unit, Some(used))) = reached.next()
    {
        let used = format!("{used} of {limit} {unit}");
        full(input, queue, &used, name, list).about([queue]);
    }
}

fn length(remedy: &Remedy<'_>, list: &mut Findings) {
    let queue = remedy.queue;
    if let Some((_, limit, unit, _)) = limits(queue).next()
        && !queue.refuses_when_full()
    {
        list.error(format!(
            "{queue} drops its oldest messages (`drop-head`) beyond {limit} {unit}"
        ))
        .impact("confirmed events are lost silently as soon as its consumers are slow")
        .fix(remedy.by_policy());
    }
}

fn age(remedy: &Remedy<'_>, held: &Held, list: &mut Findings) {
    let queue = remedy.queue;
    let Some(ttl) = queue.number("message-ttl") else {
        return;
    };
    let problem = format!("{queue} lets messages expire after {ttl} ms");
    if remedy.dead_letters_safely() && !held.keys.is_empty() {
        let mut configured = remedy.input.config.queues.iter();
        if !configured.any(|wanted| wanted.name == queue.name && wanted.ttl.is_some()) {
            list.warning(problem).impact("nothing, but events of consumers that are down for longer are in the dead-letter queue");
        }
        return;
    }
    let impact = match queue.text("dead-letter-exchange") {
        Some(_) => "what expires may be lost on its way to the dead-letter exchange",
        None => "confirmed events are lost silently when no consumer takes them in time",
    };
    list.error(problem).impact(impact).fix(remedy.by_policy());
}

fn deliveries(remedy: &Remedy<'_>, list: &mut Findings) {
    let queue = remedy.queue;
    if queue.text("dead-letter-exchange").is_some() {
        return;
    }
    if let Some(limit) = remedy.delivery_limit() {
        list.error(format!(
            "{queue} drops a message after {limit} deliveries and has no dead-letter exchange"
        ))
        .impact("messages that a consumer rejects, or returns too often, are lost")
        .fix(remedy.by_policy());
    } else if !remedy.is_holding() {
        list.warning(format!("{queue} has no dead-letter exchange"))
            .impact("messages that a consumer rejects are lost; RabbitMQ 4 also drops those it returns 20 times")
            .fix(remedy.by_policy());
    }
}

fn dead_lettering(remedy: &Remedy<'_>, held: &Held, list: &mut Findings) {
    let (queue, existing) = (remedy.queue, &remedy.input.existing);
    let Some(exchange) = queue.text("dead-letter-exchange") else {
        return;
    };
    let key = queue
        .text("dead-letter-routing-key")
        .map(KeyPattern::literal);
    let keys = key.map_or_else(|| held.keys.clone(), |key| vec![key]);
    let is_lost = |key: &KeyPattern| existing.reach(exchange, key).queues.is_empty();
    let nowhere = if existing.has_exchange(exchange) {
        keys.iter().any(is_lost).then_some("leads to no queue")
    } else {
        Some("does not exist")
    };
    if let Some(why) = nowhere {
        list.error(format!(
            "the dead-letter exchange `{exchange}` of {queue} {why}"
        ))
        .impact("messages that its consumers reject are lost")
        .fix(format!(
            "declare `{exchange}` and bind a queue to it with the key `#`"
        ))
        .because([Subject::Exchange(exchange.into())]);
        return;
    }
    if remedy.dead_letters_safely() {
        return;
    }
    let is_meant = queue.text("dead-letter-strategy") == Some("at-least-once");
    let why = match (queue.is_quorum(), is_meant) {
        (false, _) => "only quorum queues can do better",
        (true, true) => "`at-least-once` works only with `overflow=reject-publish`",
        (true, false) => "`dead-letter-strategy` is not `at-least-once`",
    };
    list.error(format!("{queue} dead-letters at most once: {why}"))
        .impact("a dead letter is lost if its queue cannot take it at that moment")
        .fix(remedy.by_policy());
}

fn state(queue: &FoundQueue, list: &mut Findings) {
    let state = queue.state.as_deref().unwrap_or_default();
    if ["down", "minority", "stopped", "terminated", "crashed"].contains(&state) {
        list.error(format!("{queue} is `{state}`"))
            .impact("it accepts nothing: its route is stalled (`stuck` in /status) or its events are retried until it is back")
            .fix("bring back the nodes that host it; `rabbitmq-queues quorum_status` names them")
            .about([queue]);
    }
}

/// Adds a finding if the queue was declared with other arguments than the configuration asks for.
/// They do not change by themselves.
fn differences(input: &CheckInput<'_>, queue: &FoundQueue, list: &mut Findings) {
    let planned = input.plan.objects.iter().filter_map(|object| match object {
        Object::Queue(planned) if planned.name == queue.name => Some(&planned.arguments),
        _ => None,
    });
    let differing = planned.flatten().filter_map(|(name, wanted)| {
        let (found, wanted) = (queue.arguments.get(*name), json!(wanted));
        let shown = found.map_or("nothing".into(), ToString::to_string);
        (found != Some(&wanted)).then(|| format!("`{name}` is {shown}, not {wanted}"))
    });
    let differing: Vec<_> = differing.collect();
    if !differing.is_empty() {
        let (differing, delete) = (differing.join(", "), delete(input, queue));
        list.warning(format!(
            "{queue} was declared differently and is left as it is: {differing}"
        ))
        .fix(format!(
            "when it is empty: {delete}; then `serve` declares it again: {DECLARE}"
        ));
    }
}
