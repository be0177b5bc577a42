//! Validates names of exchanges and queues, and binding keys.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::Config;
use super::super::finding::ConfigFinding;
use super::super::queues::QueueConfig;

/// Maximum length of a short string in AMQP 0-9-1, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// Exchanges of `[routing]`, `[unrouted]` and `[dead_letter]`.
pub(super) fn check_exchanges(config: &Config, findings: &mut Vec<ConfigFinding>) {
    let unrouted = &config.unrouted.exchange;
    for (name, status) in &config.routing.statuses {
        if status.exchange.is_none() && status.routing_key.is_none() {
            let problem =
                "the section is empty; set `exchange`, `routing_key` or both, or remove it";
            findings.push(ConfigFinding::new(
                format!("routing.statuses.{name}"),
                problem,
            ));
        }
    }
    for (key, exchange) in routed_exchanges(config) {
        check_name(&key, exchange, findings);
        for (holding_key, holding) in holding_exchanges(config) {
            if exchange == holding {
                let problem =
                    format!("is also `{holding_key}`; choose another exchange for events");
                findings.push(ConfigFinding::new(&key, problem));
            }
        }
    }
    let dead_letter = &config.dead_letter.exchange;
    check_name("dead_letter.exchange", dead_letter, findings);
    if !unrouted.is_empty() {
        check_name("unrouted.exchange", unrouted, findings);
    }
    if unrouted == dead_letter {
        let problem = "is also `dead_letter.exchange`; choose another name";
        findings.push(ConfigFinding::new("unrouted.exchange", problem));
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

fn check_name(key: &str, name: &str, findings: &mut Vec<ConfigFinding>) {
    if name.is_empty() {
        findings.push(ConfigFinding::new(key, "the name is empty"));
    }
    let bytes = name.len();
    if bytes > NAME_BYTES_MAX {
        let problem = format!("the name has {bytes} bytes, AMQP allows {NAME_BYTES_MAX}");
        findings.push(ConfigFinding::new(key, problem));
    }
    if name.starts_with("amq.") {
        let problem = "names that begin with `amq.` are reserved for the broker";
        findings.push(ConfigFinding::new(key, problem));
    }
}

/// Names, binding keys and limits of `[[queues]]`.
pub(super) fn check_queues(config: &Config, findings: &mut Vec<ConfigFinding>) {
    let mut names: BTreeSet<&String> = holding_exchanges(config).map(|(_, name)| name).into();
    for (index, queue) in config.queues.iter().enumerate() {
        let key = format!("queues[{index}]");
        check_name(&format!("{key}.name"), &queue.name, findings);
        if !queue.name.is_empty() && !names.insert(&queue.name) {
            let problem = format!("there is already a queue `{}`", queue.name);
            findings.push(ConfigFinding::new(format!("{key}.name"), problem));
        }
        check_queue(&key, queue, findings);
    }
    names.extend(routed_exchanges(config).map(|(_, exchange)| exchange));
    let queues = config.queues.iter();
    names.extend(queues.filter_map(|queue| queue.exchange.as_ref()));
    let delayed = config.queues.iter().enumerate();
    for (index, queue) in delayed.filter(|(_, queue)| queue.retry_delay.is_some()) {
        check_satellites(&format!("queues[{index}]"), queue, &names, findings);
    }
}

fn check_satellites(
    key: &str,
    queue: &QueueConfig,
    names: &BTreeSet<&String>,
    findings: &mut Vec<ConfigFinding>,
) {
    for name in queue.satellites() {
        let bytes = name.len();
        if queue.name.len() <= NAME_BYTES_MAX && bytes > NAME_BYTES_MAX {
            let problem = format!(
                "`{name}` has {bytes} bytes, AMQP allows {NAME_BYTES_MAX}; a queue with a `retry_delay` needs it"
            );
            findings.push(ConfigFinding::new(format!("{key}.name"), problem));
            return;
        }
        if names.contains(&name) {
            let problem = format!("needs the name `{name}`, which another key uses already");
            findings.push(ConfigFinding::new(format!("{key}.retry_delay"), problem));
        }
    }
}

fn check_queue(key: &str, queue: &QueueConfig, findings: &mut Vec<ConfigFinding>) {
    if let Some(exchange) = &queue.exchange {
        check_name(&format!("{key}.exchange"), exchange, findings);
    }
    let too_long = format!("a binding key has more than {NAME_BYTES_MAX} bytes");
    let no_key =
        "no binding key, so nothing would reach the queue; for example [\"chat-session.#\"]";
    let is_long = |binding: &String| binding.len() > NAME_BYTES_MAX;
    let (none, zero) = (Some(Duration::ZERO), "must be more than 0");
    for (name, is_wrong, problem) in [
        ("keys", queue.keys.is_empty(), no_key),
        ("keys", queue.keys.iter().any(is_long), &too_long),
        ("delivery_limit", queue.delivery_limit == 0, zero),
        ("ttl", queue.ttl == none, zero),
        ("messages_max", queue.messages_max == Some(0), zero),
        ("bytes_max", queue.bytes_max == Some(0), zero),
        ("retry_delay", queue.retry_delay == none, zero),
    ] {
        if is_wrong {
            findings.push(ConfigFinding::new(format!("{key}.{name}"), problem));
        }
    }
}
