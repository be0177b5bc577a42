//! Names of exchanges and queues, and key templates.

use std::collections::BTreeSet;

use super::super::Config;
use super::super::finding::Finding;
use super::super::queues::{Queue, Satellite};
use crate::webhook::routing::Routing;

/// AMQP's short strings hold no more.
const NAME_BYTES_MAX: usize = 255;

/// Exchanges and templates of `[routing]`, `[unrouted]` and `[dead_letter]`.
pub(super) fn check_exchanges(config: &Config, findings: &mut Vec<Finding>) {
    let routing = &config.routing;
    let unrouted = &config.unrouted.exchange;
    for (name, status) in &routing.statuses {
        if status.exchange.is_none() && status.routing_key.is_none() {
            let problem =
                "the section is empty; set `exchange`, `routing_key` or both, or remove it";
            findings.push(Finding::new(format!("routing.statuses.{name}"), problem));
        }
    }
    for error in Routing::new(routing, &config.dead_letter)
        .err()
        .into_iter()
        .flatten()
    {
        findings.push(Finding::new(error.name, error.problem.to_string()));
    }
    for (key, exchange) in routed_exchanges(config) {
        check_name(&key, exchange, findings);
        for (holding_key, holding) in holding_exchanges(config) {
            if exchange == holding {
                let problem =
                    format!("is also `{holding_key}`; events need an exchange of their own");
                findings.push(Finding::new(&key, problem));
            }
        }
    }
    check_name(
        "dead_letter.exchange",
        &config.dead_letter.exchange,
        findings,
    );
    if !unrouted.is_empty() {
        check_name("unrouted.exchange", unrouted, findings);
    }
    if *unrouted == config.dead_letter.exchange {
        let problem = "is also `dead_letter.exchange`; they hold different things";
        findings.push(Finding::new("unrouted.exchange", problem));
    }
}

fn routed_exchanges(config: &Config) -> impl Iterator<Item = (String, &String)> {
    let own = config.routing.statuses.iter().filter_map(|(name, status)| {
        let exchange = status.exchange.as_ref()?;
        Some((format!("routing.statuses.{name}.exchange"), exchange))
    });
    own.chain([("routing.exchange".to_owned(), &config.routing.exchange)])
}

fn holding_exchanges(config: &Config) -> [(&'static str, &String); 2] {
    [
        ("dead_letter.exchange", &config.dead_letter.exchange),
        ("unrouted.exchange", &config.unrouted.exchange),
    ]
}

fn check_name(key: &str, name: &str, findings: &mut Vec<Finding>) {
    if name.is_empty() {
        findings.push(Finding::new(key, "the name is empty"));
    }
    if name.len() > NAME_BYTES_MAX {
        let problem = format!(
            "the name has {} bytes, AMQP allows {NAME_BYTES_MAX}",
            name.len()
        );
        findings.push(Finding::new(key, problem));
    }
    if name.starts_with("amq.") {
        findings.push(Finding::new(
            key,
            "names that begin with `amq.` belong to the broker",
        ));
    }
}

/// `[[queues]]`.
pub(super) fn check_queues(config: &Config, findings: &mut Vec<Finding>) {
    let mut names: BTreeSet<String> = holding_exchanges(config)
        .into_iter()
        .map(|(_, name)| name.clone())
        .collect();
    for (index, queue) in config.queues.iter().enumerate() {
        let key = format!("queues[{index}]");
        check_name(&format!("{key}.name"), &queue.name, findings);
        if !queue.name.is_empty() && !names.insert(queue.name.clone()) {
            let problem = format!("there is already a queue `{}`", queue.name);
            findings.push(Finding::new(format!("{key}.name"), problem));
        }
        check_queue(&key, queue, findings);
    }
    names.extend(routed_exchanges(config).map(|(_, exchange)| exchange.clone()));
    names.extend(
        config
            .queues
            .iter()
            .filter_map(|queue| queue.exchange.clone()),
    );
    for (index, queue) in config.queues.iter().enumerate() {
        if queue.retry_delay.is_some() {
            check_satellites(&format!("queues[{index}]"), queue, &names, findings);
        }
    }
}

fn check_satellites(
    key: &str,
    queue: &Queue,
    names: &BTreeSet<String>,
    findings: &mut Vec<Finding>,
) {
    for name in Satellite::ALL.map(|satellite| queue.satellite(satellite)) {
        if queue.name.len() <= NAME_BYTES_MAX && name.len() > NAME_BYTES_MAX {
            let problem = format!(
                "`{name}` has {} bytes, AMQP allows {NAME_BYTES_MAX}; with a `retry_delay` it is needed too",
                name.len()
            );
            findings.push(Finding::new(format!("{key}.name"), problem));
            return;
        }
        if names.contains(&name) {
            let problem = format!("needs the name `{name}`, which is taken by another key");
            findings.push(Finding::new(format!("{key}.retry_delay"), problem));
        }
    }
}

fn check_queue(key: &str, queue: &Queue, findings: &mut Vec<Finding>) {
    if queue.keys.is_empty() {
        let problem =
            "no binding key, so nothing would reach the queue; such as [\"chat-session.#\"]";
        findings.push(Finding::new(format!("{key}.keys"), problem));
    }
    if queue
        .keys
        .iter()
        .any(|binding| binding.len() > NAME_BYTES_MAX)
    {
        let problem = format!("a binding key has more than {NAME_BYTES_MAX} bytes");
        findings.push(Finding::new(format!("{key}.keys"), problem));
    }
    if let Some(exchange) = &queue.exchange {
        check_name(&format!("{key}.exchange"), exchange, findings);
    }
    let zeros = [
        ("delivery_limit", queue.delivery_limit == 0),
        ("ttl", queue.ttl.is_some_and(|ttl| ttl.is_zero())),
        ("messages_max", queue.messages_max == Some(0)),
        ("bytes_max", queue.bytes_max == Some(0)),
        (
            "retry_delay",
            queue.retry_delay.is_some_and(|delay| delay.is_zero()),
        ),
    ];
    for (name, _) in zeros.into_iter().filter(|(_, is_zero)| *is_zero) {
        findings.push(Finding::new(format!("{key}.{name}"), "must be more than 0"));
    }
}
