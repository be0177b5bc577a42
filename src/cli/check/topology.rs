//! What is missing of the plan, as AMQP tells, and how much waits where nobody should leave it. Pure.

use std::collections::BTreeMap;

use deskbridge::config::Config;
use deskbridge::rabbitmq::inspection::Found;
use deskbridge::rabbitmq::topology::{Object, Topology};
use deskbridge::telemetry::status::Retries;

use super::finding::{DECLARE, Finding, Subject, counted};
use super::permissions::User;

/// What AMQP tells of the plan.
#[derive(Debug, Default)]
pub struct Seen {
    /// What there is, in the plan's order.
    pub found: Vec<Found>,
    /// What is missing and may not be declared, by its place in the plan: the broker's words.
    pub denied: BTreeMap<usize, String>,
}

/// What an object of the plan is to other findings.
pub fn subject(object: &Object) -> Subject {
    match object {
        Object::Exchange(exchange) => Subject::Exchange(exchange.name.clone()),
        Object::Queue(queue) => Subject::Queue(queue.name.clone()),
        Object::Binding(binding) => Subject::Queue(binding.queue.clone()),
    }
}

impl Seen {
    /// Messages that are ready in a queue of the plan.
    pub fn messages(&self, plan: &Topology, name: &str) -> Option<u64> {
        let mut objects = plan.objects.iter().zip(&self.found);
        objects.find_map(|(object, found)| match (object, found) {
            (Object::Queue(queue), Found::There(messages)) if queue.name == name => Some(*messages),
            _ => None,
        })
    }

    /// The plan without what cannot be declared.
    pub fn possible(&self, plan: &Topology) -> Topology {
        let is_denied = |object: &Object| {
            let mut denied = self.denied.keys().map(|index| &plan.objects[*index]);
            match object {
                Object::Binding(binding) => denied.any(|denied| {
                    denied == object
                        || matches!(denied, Object::Queue(queue) if queue.name == binding.queue)
                        || matches!(denied, Object::Exchange(one) if one.name == binding.exchange)
                }),
                _ => denied.any(|denied| denied == object),
            }
        };
        let mut possible = plan.clone();
        possible.objects.retain(|object| !is_denied(object));
        possible
    }
}

/// What is not there, and what that means depends on who declares it.
pub fn judge(plan: &Topology, seen: &Seen, declares: bool, user: &User) -> Vec<Finding> {
    let mut findings = Vec::new();
    let objects = || plan.objects.iter().zip(&seen.found).enumerate();
    let missing = objects().filter(|(_, (_, found))| **found == Found::Missing);
    let (denied, missing): (Vec<_>, Vec<_>) = missing
        .map(|(index, (object, _))| (index, object))
        .partition(|(index, _)| seen.denied.contains_key(index));
    findings.extend(not_allowed(plan, seen, &denied, user));
    if !missing.is_empty() {
        let (are, them) = number(missing.len());
        let named = named(&missing);
        let finding = if declares {
            Finding::warning(format!(
                "{named} {are} missing; `serve` declares {them} when it starts, after a reconnect, or on SIGHUP"
            ))
            .losing("until then what it is for goes elsewhere, or waits")
            .trying(DECLARE)
        } else {
            Finding::error(format!("{named} {are} missing"))
                .losing("with rabbitmq.topology = \"verify\" its events wait until somebody declares it")
                .trying("declare it, or `rabbitmq.topology = \"declare\"`")
        };
        findings.push(finding.about(missing.iter().map(|(_, object)| subject(object))));
    }
    for (_, (object, found)) in objects() {
        if let Found::Unreadable(code, text) = found {
            let problem = format!("{object} cannot be inspected: {code} {text}");
            findings.push(
                Finding::error(problem)
                    .losing("what it is for may not arrive")
                    .trying("what the broker says")
                    .about([subject(object)]),
            );
        }
    }
    findings
}

/// How the consumers of a queue with a `retry_delay` ask for another try.
pub fn retries(plan: &Topology) -> Vec<Finding> {
    let told = |(queue, by)| {
        Finding::note(match by {
            Retries::Bridge => format!(
                "the bridge retries what is rejected from queue `{queue}`: `reject` without `requeue`"
            ),
            Retries::Broker => format!(
                "the broker retries what is rejected from queue `{queue}`: `reject` with `requeue`"
            ),
        })
    };
    plan.retries().into_iter().map(told).collect()
}

fn number(count: usize) -> (&'static str, &'static str) {
    match count {
        1 => ("is", "it"),
        _ => ("are", "them"),
    }
}

fn named(objects: &[(usize, &Object)]) -> String {
    let names: Vec<_> = objects
        .iter()
        .map(|(_, object)| object.to_string())
        .collect();
    names.join(", ")
}

fn not_allowed(
    plan: &Topology,
    seen: &Seen,
    denied: &[(usize, &Object)],
    user: &User,
) -> Option<Finding> {
    // What may not be declared cannot be bound either.
    let bindings = seen
        .denied
        .keys()
        .filter(|index| matches!(plan.objects[**index], Object::Binding(_)) && denied.is_empty());
    let denied: Vec<_> = denied
        .iter()
        .copied()
        .chain(bindings.map(|index| (*index, &plan.objects[*index])))
        .collect();
    let first = seen.denied.get(&denied.first()?.0)?;
    let (are, them) = number(denied.len());
    let problem = format!(
        "{} {are} missing, and user `{}` may not declare {them}: {first}",
        named(&denied),
        user.name
    );
    let fix = if first.contains(" limit ") {
        "`rabbitmqctl list_vhost_limits`, and make room or raise it".to_owned()
    } else {
        user.grant(plan)
    };
    Some(
        Finding::error(problem)
            .losing("`serve` cannot declare it: events that need it wait, or become dead letters")
            .trying(fix)
            .about(denied.iter().map(|(_, object)| subject(object))),
    )
}

/// Where messages wait that no consumer takes, and queues that are known to be full.
pub fn waiting(plan: &Topology, seen: &Seen, config: &Config, knows_limits: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let holding = |name: &Option<String>| {
        let name = name.clone()?;
        let messages = seen
            .messages(plan, &name)
            .filter(|messages| *messages > 0)?;
        Some((name, messages))
    };
    if let Some((name, messages)) = holding(&plan.dead_letter_queue) {
        findings.push(
            Finding::warning(format!(
                "{} waiting in queue `{name}`",
                counted(messages, "dead letter")
            ))
            .losing("their consumers have not got them")
            .trying("`deskbridge dead-letters list`, then `replay` or `discard`"),
        );
    }
    if let Some((name, messages)) = holding(&plan.unrouted_queue) {
        findings.push(
            Finding::warning(format!(
                "{} that nobody had subscribed to, waiting in queue `{name}`",
                counted(messages, "event")
            ))
            .losing("the oldest of them, when it is full or they are too old")
            .trying(format!(
                "`deskbridge dead-letters list --queue {name}`; bind a queue to their keys, then `replay`"
            )),
        );
    }
    if knows_limits {
        return findings;
    }
    for queue in &config.queues {
        let (Some(limit), Some(messages)) = (queue.messages_max, seen.messages(plan, &queue.name))
        else {
            continue;
        };
        if messages >= limit {
            findings.push(
                Finding::error(format!(
                    "queue `{}` is full ({messages} of {limit} messages) and refuses",
                    queue.name
                ))
                .losing(format!(
                    "events for it are tried up to {} times while their sessions wait, and become dead letters (`nacked`)",
                    config.retry.attempts_max
                ))
                .trying("let a consumer drain it, or raise its `messages_max`")
                .about([Subject::Queue(queue.name.clone())]),
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use deskbridge::config::queues::Queue;

    use super::*;

    fn plan(config: &Config) -> (Topology, Seen) {
        let plan = Topology::plan(config);
        let found = plan.objects.iter().map(|object| match object {
            Object::Binding(_) => Found::Unknown,
            _ => Found::There(0),
        });
        let found = found.collect();
        let denied = BTreeMap::new();
        (plan, Seen { found, denied })
    }

    #[test]
    fn all_that_is_missing_is_one_finding() {
        let (plan, mut seen) = plan(&Config::default());
        let user = User::default();
        assert!(judge(&plan, &seen, true, &user).is_empty());
        for found in &mut seen.found {
            if *found == Found::There(0) {
                *found = Found::Missing;
            }
        }
        let missing = judge(&plan, &seen, true, &user);
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(
            missing[0]
                .problem
                .contains("are missing; `serve` declares them")
        );
        seen.denied.insert(0, "403".into());
        let denied = judge(&plan, &seen, true, &user);
        assert_eq!(denied.len(), 2, "{denied:?}");
        assert!(
            denied[0].problem.ends_with("may not declare it: 403"),
            "{denied:?}"
        );
        assert!(
            !denied[1]
                .problem
                .contains("exchange `chat-sessions.dead-letter`"),
            "{denied:?}"
        );
        // The exchange, and the binding to it.
        assert_eq!(seen.possible(&plan).objects.len(), plan.objects.len() - 2);
    }

    #[test]
    fn a_full_queue_of_ours_shows_without_the_management_api() {
        let mut config = Config::default();
        config.queues.push(Queue {
            name: "own".into(),
            keys: vec!["#".into()],
            messages_max: Some(2),
            ..Queue::default()
        });
        let (plan, mut seen) = plan(&config);
        assert!(waiting(&plan, &seen, &config, false).is_empty());
        for found in &mut seen.found {
            if *found == Found::There(0) {
                *found = Found::There(2);
            }
        }
        let problems: Vec<_> = waiting(&plan, &seen, &config, false)
            .into_iter()
            .map(|finding| finding.problem)
            .collect();
        assert_eq!(
            problems,
            [
                "2 dead letters waiting in queue `chat-sessions.dead-letter`",
                "2 events that nobody had subscribed to, waiting in queue `chat-sessions.unrouted`",
                "queue `own` is full (2 of 2 messages) and refuses",
            ]
        );
        assert_eq!(waiting(&plan, &seen, &config, true).len(), 2);
    }
}
