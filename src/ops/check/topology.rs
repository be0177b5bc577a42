//! Which objects of the plan are missing, may not be declared or cannot be inspected. Pure.

use super::finding::{Finding, Findings, Subject};
use super::input::CheckInput;
use super::queues::full;
use super::remedy::DECLARE;
use crate::ops::counted;
use crate::rabbitmq::inspection::Found;
use crate::rabbitmq::reply_code::ACCESS_REFUSED;
use crate::rabbitmq::topology::{Object, Topology};
use crate::telemetry::status::Retries;

/// Number of ready messages in a queue of the plan.
fn messages(plan: &Topology, seen: &[Found], name: &str) -> Option<u64> {
    let mut objects = plan.objects.iter().zip(seen);
    objects.find_map(|(object, found)| match (object, found) {
        (Object::Queue(queue), Found::There(messages)) if queue.name == name => Some(*messages),
        _ => None,
    })
}

/// The objects that are missing and may not be declared.
pub fn denied<'p>(plan: &'p Topology, seen: &[Found]) -> Vec<&'p Object> {
    let objects = plan.objects.iter().zip(seen);
    let denied = objects.filter(|(_, found)| matches!(found, Found::Denied(_)));
    denied.map(|(object, _)| object).collect()
}

/// The plan without these objects and without what needs them.
pub fn possible(plan: &Topology, denied: &[&Object]) -> Topology {
    let mut possible = plan.clone();
    possible.objects.retain(|object| {
        !denied.iter().any(|denied| match (object, denied) {
            (Object::Binding(binding), Object::Queue(queue)) => binding.queue == queue.name,
            (Object::Binding(binding), Object::Exchange(one)) => binding.exchange == one.name,
            _ => object == *denied,
        })
    });
    possible
}

/// Findings about what AMQP reports about each object of the plan.
pub fn judge(input: &CheckInput<'_>, seen: &[Found], list: &mut Findings) {
    let (mut denied, mut hidden) = (Vec::new(), Vec::new());
    let (mut absent, mut unreadable) = (Vec::new(), Vec::new());
    for (object, found) in input.plan.objects.iter().zip(seen) {
        match found {
            Found::Denied(reply) => denied.push((object, reply)),
            Found::Missing => absent.push(object),
            Found::Unreadable(ACCESS_REFUSED, reply) => hidden.push((object, reply)),
            Found::Unreadable(code, reply) => unreadable.push((object, code, reply)),
            Found::There(_) | Found::Unknown => {}
        }
    }
    // Bindings are reported only if no queue or exchange is: they follow from these.
    let is_binding = |object: &Object| matches!(object, Object::Binding(_));
    if !denied.iter().all(|(object, _)| is_binding(object)) {
        denied.retain(|(object, _)| !is_binding(object));
    }
    let (denied, replies): (Vec<_>, Vec<_>) = denied.into_iter().unzip();
    if let Some(reply) = replies.first() {
        let what = format!("declare {}: {reply}", them(&denied));
        let finding = undeclarable(input, &denied, &what, list);
        if reply.contains(" limit ") {
            finding.fix("check `rabbitmqctl list_vhost_limits`; delete what is not needed, or raise the limit");
        }
    }
    if !absent.is_empty() {
        missing(input, &absent, list);
    }
    let (hidden, replies): (Vec<_>, Vec<_>) = hidden.into_iter().unzip();
    if let Some(reply) = replies.first() {
        hidden_from_us(input, &hidden, reply, list);
    }
    for (object, code, reply) in unreadable {
        list.error(format!("{object} cannot be inspected: {code} {reply}"))
            .impact("its events may not arrive")
            .fix("look for the cause in the broker's log; `rabbitmqctl list_queues name state` shows a queue that is down")
            .about([object]);
    }
}

/// Findings about missing bindings, which AMQP cannot query.
pub fn judge_bindings(input: &CheckInput<'_>, list: &mut Findings) {
    for object in &input.plan.objects {
        // A missing exchange or queue is already reported by `judge`.
        if let Object::Binding(binding) = object
            && input.present.exchange(&binding.exchange).is_some()
            && input.present.queue(&binding.queue).is_some()
            && !input.present.has(object)
        {
            missing(input, &[object], list).because([object]);
        }
    }
}

/// Findings about objects that `serve` would have to declare and may not, as far as permissions tell;
/// without those that AMQP has reported (`told`).
pub fn judge_permissions(input: &CheckInput<'_>, told: &[&Object], list: &mut Findings) {
    let Some(permissions) = &input.user.permissions else {
        return;
    };
    for object in &input.plan.objects {
        if !told.contains(&object)
            && !input.present.has(object)
            && let Some(what) = permissions.lacking(object)
        {
            undeclarable(input, &[object], &what, list).because([object]);
        }
    }
}

/// Adds a finding about all these objects, which are missing.
fn missing<'l>(
    input: &CheckInput<'_>,
    objects: &[&Object],
    list: &'l mut Findings,
) -> &'l mut Finding {
    let missing = are_missing(objects);
    let finding = if input.declares() {
        let them = them(objects);
        list.warning(format!(
            "{missing}; `serve` declares {them} when it starts, after a reconnect, or on SIGHUP"
        ))
        .impact("until then its events go elsewhere, or wait")
        .fix(DECLARE)
        .takes_severity()
    } else {
        list.error(missing)
            .impact("with rabbitmq.topology = \"verify\" its events go elsewhere, or wait until somebody declares it")
            .fix("`deskbridge topology apply` declares it; or set `rabbitmq.topology = \"declare\"`")
    };
    finding.about(objects.iter().copied())
}

/// Adds the finding that objects are missing and that the user may not do `what` is needed to
/// declare them.
fn undeclarable<'l>(
    input: &CheckInput<'_>,
    objects: &[&Object],
    what: &str,
    list: &'l mut Findings,
) -> &'l mut Finding {
    let (missing, user) = (are_missing(objects), &input.user.name);
    list.error(format!("{missing}, and user `{user}` may not {what}"))
        .impact("`serve` cannot declare it: events that need it wait, or become dead letters")
        .fix(input.user.grant(&input.plan))
        .about(objects.iter().copied())
}

/// Adds a finding about objects for which the user has no permission at all. Since RabbitMQ 4.3 the
/// broker does not say whether they exist; with any of the three permissions it does.
fn hidden_from_us(input: &CheckInput<'_>, objects: &[&Object], reply: &str, list: &mut Findings) {
    let (user, named) = (&input.user.name, named(objects));
    // If publishing to the exchange is denied too, that finding is the cause and comes first.
    let publishing = objects.iter().filter_map(|object| match object {
        Object::Exchange(exchange) => Some(Subject::Publishing(exchange.name.clone())),
        Object::Queue(_) | Object::Binding(_) => None,
    });
    list.error(format!(
        "user `{user}` has no permission at all for {named}: {reply}"
    ))
    .impact("it cannot be inspected, and `serve` can neither declare nor use it")
    .fix(input.user.grant(&input.plan))
    .about(objects.iter().copied())
    .because(publishing)
    .not_inspected();
}

fn named(objects: &[&Object]) -> String {
    let names: Vec<_> = objects.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn them(objects: &[&Object]) -> &'static str {
    if objects.len() == 1 { "it" } else { "them" }
}

fn are_missing(objects: &[&Object]) -> String {
    let are = if objects.len() == 1 { "is" } else { "are" };
    format!("{} {are} missing", named(objects))
}

/// Notes that say how the consumers of a queue with a `retry_delay` ask for a retry.
pub fn retries(plan: &Topology, list: &mut Findings) {
    for (queue, by) in plan.retries() {
        let (who, how) = match by {
            Retries::Bridge => ("bridge", "without"),
            Retries::Broker => ("broker", "with"),
        };
        list.note(format!(
            "the {who} retries what is rejected from queue `{queue}`: `reject` {how} `requeue`"
        ));
    }
}

/// Findings about dead letters and unrouted events that wait for an operator, and, unless the
/// management API reports them (`knows_limits`), about full queues of `[[queues]]`.
pub fn waiting(input: &CheckInput<'_>, seen: &[Found], knows_limits: bool, list: &mut Findings) {
    let plan = &input.plan;
    let holding = |name: &Option<String>| {
        let name = name.clone()?;
        let messages = messages(plan, seen, &name).filter(|messages| *messages > 0)?;
        Some((name, messages))
    };
    if let Some((name, messages)) = holding(&plan.dead_letter_queue) {
        let letters = counted(messages, "dead letter");
        list.warning(format!("{letters} waiting in queue `{name}`"))
            .impact("their consumers have not received them")
            .fix("`deskbridge dead-letters list`, then `replay` or `discard`");
    }
    if let Some((name, messages)) = holding(&plan.unrouted_queue) {
        let events = counted(messages, "event");
        list.warning(format!("{events} that matched no binding, waiting in queue `{name}`"))
            .impact("the oldest are dropped when the queue is full or they are too old")
            .fix(format!("`deskbridge dead-letters list --queue {name}`; bind a queue to their keys, then `replay`"));
    }
    for queue in input.config.queues.iter().filter(|_| !knows_limits) {
        let (name, messages) = (&queue.name, messages(plan, seen, &queue.name));
        if let (Some(limit), Some(messages)) = (queue.messages_max, messages)
            && messages >= limit
        {
            let used = format!("{messages} of {limit} messages");
            full(
                input,
                format!("queue `{name}`"),
                &used,
                "messages_max",
                list,
            )
            .about([Subject::Queue(name.clone())]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::queues::QueueConfig;
    use crate::ops::check::permissions::User;
    use crate::rabbitmq::snapshot::BrokerSnapshot;

    /// The state of each object of the plan, if every exchange and queue is `found`.
    fn seen(input: &CheckInput<'_>, found: &Found) -> Vec<Found> {
        let objects = input.plan.objects.iter();
        let state = |object: &Object| match object {
            Object::Binding(_) => Found::Unknown,
            _ => found.clone(),
        };
        objects.map(state).collect()
    }

    fn problems(judge: impl FnOnce(&mut Findings)) -> Vec<String> {
        let mut list = Findings::default();
        judge(&mut list);
        list.0.into_iter().map(|one| one.problem).collect()
    }

    #[test]
    fn all_missing_objects_are_one_finding() {
        let config = Config::default();
        let input = CheckInput::of(&config);
        let there = seen(&input, &Found::There(0));
        assert!(problems(|list| judge(&input, &there, list)).is_empty());
        let mut seen = seen(&input, &Found::Missing);
        let missing = problems(|list| judge(&input, &seen, list));
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].contains("are missing; `serve` declares them"));
        seen[0] = Found::Denied("403".into());
        let denied = problems(|list| judge(&input, &seen, list));
        assert_eq!(denied.len(), 2, "{denied:?}");
        assert!(denied[0].ends_with("may not declare it: 403"), "{denied:?}");
        let is_told = denied[1].contains("exchange `chat-sessions.dead-letter`");
        assert!(!is_told, "{denied:?}");
        // The exchange, and the binding to it.
        let possible = possible(&input.plan, &super::denied(&input.plan, &seen));
        assert_eq!(possible.objects.len(), input.plan.objects.len() - 2);
    }

    #[test]
    fn all_forbidden_objects_are_one_finding() {
        let config = Config::default();
        let input = CheckInput::of(&config);
        let refused = "ACCESS_REFUSED - configure access refused";
        let mut seen = seen(&input, &Found::Unreadable(403, refused.into()));
        seen[0] = Found::Unreadable(406, "odd".into());
        let mut list = Findings::default();
        judge(&input, &seen, &mut list);
        let problems: Vec<_> = list.0.iter().map(|one| one.problem.as_str()).collect();
        assert_eq!(problems.len(), 2, "{problems:#?}");
        let expected =
            "user `bridge` has no permission at all for queue `chat-sessions.dead-letter`, ";
        assert!(problems[0].starts_with(expected), "{problems:#?}");
        assert!(problems[0].ends_with(refused), "{problems:#?}");
        let odd = "cannot be inspected: 406 odd";
        assert!(problems[1].ends_with(odd), "{problems:#?}");
        list.error("closed")
            .about([Subject::Publishing("chat-sessions".into())]);
        let grouped = list.grouped();
        let causes: Vec<_> = grouped.iter().map(|one| one.problem.as_str()).collect();
        assert_eq!(causes.len(), 2, "{causes:#?}");
        assert!(causes.contains(&"closed"), "{causes:#?}");
    }

    #[test]
    fn full_queue_is_found_without_management_api() {
        let mut config = Config::default();
        config.queues.push(QueueConfig {
            name: "own".into(),
            keys: vec!["#".into()],
            messages_max: Some(2),
            ..QueueConfig::default()
        });
        let input = CheckInput::of(&config);
        let empty = seen(&input, &Found::There(0));
        assert!(problems(|list| waiting(&input, &empty, false, list)).is_empty());
        let two = seen(&input, &Found::There(2));
        assert_eq!(
            problems(|list| waiting(&input, &two, false, list)),
            [
                "2 dead letters waiting in queue `chat-sessions.dead-letter`",
                "2 events that matched no binding, waiting in queue `chat-sessions.unrouted`",
                "queue `own` is full (2 of 2 messages) and refuses new messages",
            ]
        );
        assert_eq!(problems(|list| waiting(&input, &two, true, list)).len(), 2);
    }

    #[test]
    fn missing_objects_need_configure_permission() {
        let config = Config::default();
        let lines = |permissions, present| {
            let input = CheckInput {
                user: User::with(permissions),
                present,
                ..CheckInput::of(&config)
            };
            let mut list = Findings::default();
            judge_permissions(&input, &[], &mut list);
            let lines: Vec<_> = list.0.iter().map(ToString::to_string).collect();
            lines
        };
        let lines_of = |permissions| lines(permissions, BrokerSnapshot::default());
        assert!(lines_of(["^chat-", "^chat-", "^chat-"]).is_empty());
        let unwritable = lines_of([".*", "", ".*"]);
        assert_eq!(unwritable.len(), 3, "two bindings and an alternate");
        let denied = lines_of(["", ".*", ".*"]);
        assert_eq!(denied.len(), 5);
        assert!(
            denied[0].starts_with("error: exchange `chat-sessions.dead-letter` is missing, and user `bridge` may not configure `chat-sessions.dead-letter`"),
            "{denied:?}"
        );
        assert!(
            denied[0].contains(r"set_permissions -p '/' 'bridge' '^(chat\-sessions|chat\-sessions\.dead\-letter|chat\-sessions\.unrouted)$|^amq\.gen-.*$' '.*' '.*'`"),
            "{denied:?}"
        );
        let all = BrokerSnapshot::default().with_missing_of(&Topology::plan(&config));
        assert!(lines(["", "", ""], all).is_empty());
    }
}
