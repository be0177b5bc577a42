//! What is wrong with the values as a whole, beyond their types. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Config;
use super::finding::Finding;
use super::queues::Queue;
use super::rabbitmq::Tls;
use super::sources::{Secret, Signature, Source};
use super::units::{format_duration, format_size};

/// Shorter secrets can be guessed.
const SECRET_BYTES_MIN: usize = 16;
/// AMQP's short strings hold no more.
const NAME_BYTES_MAX: usize = 255;

/// Every finding, in no particular order.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_sources(config, &mut findings);
    check_limits(config, &mut findings);
    check_delays(config, &mut findings);
    check_broker(config, &mut findings);
    check_exchanges(config, &mut findings);
    check_queues(config, &mut findings);
    check_log_level(&config.telemetry.log_level, &mut findings);
    findings
}

fn check_sources(config: &Config, findings: &mut Vec<Finding>) {
    if config.sources.is_empty() {
        findings.push(Finding::new(
            "sources",
            "there is no source, so nobody could post; add `[sources.deskdirector]` with \
             `secrets = [\"…\"]` or `secret_files = [\"…\"]`",
        ));
    }
    for (name, source) in &config.sources {
        let key = format!("sources.{name}");
        if name.is_empty()
            || !name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        {
            let problem = "a source is part of a URL: use letters, digits, `-` and `_` only";
            findings.push(Finding::new(&key, problem));
        }
        check_secrets(&key, source, findings);
    }
}

fn check_secrets(key: &str, source: &Source, findings: &mut Vec<Finding>) {
    let is_signed = source.signature == Signature::Required;
    if is_signed && source.secrets.is_empty() && !source.await_secret {
        findings.push(Finding::new(
            key,
            "signatures are required and there is no secret; set `secrets` or `secret_files` to \
             the webhook's secret, or `signature = \"none\"` to let anybody post",
        ));
    }
    if is_signed
        && source.await_secret
        && source.secrets.is_empty()
        && source.secret_files.is_empty()
    {
        let problem = "`await_secret` waits for a file, and `secret_files` names none";
        findings.push(Finding::new(key, problem));
    }
    for (index, secret) in source.secrets.iter().enumerate() {
        let bytes = secret.expose().len();
        if bytes < SECRET_BYTES_MIN {
            let number = index + 1;
            let problem = format!(
                "secret number {number} has {bytes} bytes; at least {SECRET_BYTES_MIN} are needed"
            );
            findings.push(Finding::new(format!("{key}.secrets"), problem));
        }
    }
}

fn check_limits(config: &Config, findings: &mut Vec<Finding>) {
    let (http, rabbitmq) = (&config.http, &config.rabbitmq);
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    for (key, limit) in [
        ("http.body_bytes_max", http.body_bytes_max),
        ("http.sessions_max", count(http.sessions_max)),
        ("http.connections_max", count(http.connections_max)),
        ("http.buffered_bytes_max", http.buffered_bytes_max),
        ("rabbitmq.in_flight_max", count(rabbitmq.in_flight_max)),
        ("rabbitmq.in_flight_bytes_max", rabbitmq.in_flight_bytes_max),
        ("rabbitmq.message_bytes_max", rabbitmq.message_bytes_max),
        ("retry.attempts_max", config.retry.attempts_max.into()),
        (
            "journal.backlog_bytes_max",
            config.journal.backlog_bytes_max,
        ),
        ("unrouted.bytes_max", config.unrouted.bytes_max),
    ] {
        if limit == 0 {
            findings.push(Finding::new(key, "a limit of 0 lets nothing through"));
        }
    }
    at_most(
        findings,
        "http.body_bytes_max",
        http.body_bytes_max,
        "rabbitmq.message_bytes_max",
        rabbitmq.message_bytes_max,
    );
    at_most(
        findings,
        "http.body_bytes_max",
        http.body_bytes_max,
        "http.buffered_bytes_max",
        http.buffered_bytes_max,
    );
    at_most(
        findings,
        "http.body_bytes_max",
        http.body_bytes_max,
        "journal.backlog_bytes_max",
        config.journal.backlog_bytes_max,
    );
}

fn at_most(findings: &mut Vec<Finding>, key: &str, value: u64, bound_key: &str, bound: u64) {
    if value > bound {
        let (value, bound) = (format_size(value), format_size(bound));
        findings.push(Finding::new(
            key,
            format!("{value} is more than `{bound_key}` ({bound})"),
        ));
    }
}

fn check_delays(config: &Config, findings: &mut Vec<Finding>) {
    let (http, rabbitmq, retry) = (&config.http, &config.rabbitmq, &config.retry);
    for (key, duration) in [
        ("http.header_timeout", http.header_timeout),
        ("http.body_timeout", http.body_timeout),
        ("rabbitmq.connect_timeout", rabbitmq.connect_timeout),
        ("rabbitmq.confirm_timeout", rabbitmq.confirm_timeout),
        ("rabbitmq.reconnect_delay_min", rabbitmq.reconnect_delay_min),
        ("retry.delay_min", retry.delay_min),
        ("unrouted.ttl", config.unrouted.ttl),
        ("shutdown.grace", config.shutdown.grace),
    ] {
        if duration.is_zero() {
            findings.push(Finding::new(key, "must be longer than 0s"));
        }
    }
    if rabbitmq.heartbeat < Duration::from_secs(1)
        || rabbitmq.heartbeat > Duration::from_secs(u16::MAX.into())
    {
        findings.push(Finding::new(
            "rabbitmq.heartbeat",
            "must be between 1s and 65535s",
        ));
    }
    for (key, shorter, longer) in [
        (
            "rabbitmq.reconnect_delay",
            rabbitmq.reconnect_delay_min,
            rabbitmq.reconnect_delay_max,
        ),
        ("retry.delay", retry.delay_min, retry.delay_max),
    ] {
        if shorter > longer {
            let (shorter, longer) = (format_duration(shorter), format_duration(longer));
            let problem = format!("{shorter} is longer than `{key}_max` ({longer})");
            findings.push(Finding::new(format!("{key}_min"), problem));
        }
    }
}

fn check_broker(config: &Config, findings: &mut Vec<Finding>) {
    let rabbitmq = &config.rabbitmq;
    if rabbitmq.urls.is_empty() {
        let problem = "there is no URL of a broker, such as \"amqp://user:password@host:5672/%2f\"";
        findings.push(Finding::new("rabbitmq.urls", problem));
    }
    for (index, url) in rabbitmq.urls.iter().enumerate() {
        if !is_url(url, &["amqp://", "amqps://"]) {
            let problem = format!(
                "URL number {} must be amqp://… or amqps://… with a host",
                index + 1
            );
            findings.push(Finding::new("rabbitmq.urls", problem));
        }
    }
    if !rabbitmq.management_url.expose().is_empty()
        && !is_url(&rabbitmq.management_url, &["http://", "https://"])
    {
        findings.push(Finding::new(
            "rabbitmq.management_url",
            "must be http://… or https://… with a host",
        ));
    }
    let Tls {
        cert_file,
        key_file,
        ..
    } = &rabbitmq.tls;
    if cert_file.is_some() != key_file.is_some() {
        let (key, other) = if cert_file.is_some() {
            ("cert_file", "key_file")
        } else {
            ("key_file", "cert_file")
        };
        let problem = format!("a client certificate needs both; set `rabbitmq.tls.{other}` too");
        findings.push(Finding::new(format!("rabbitmq.tls.{key}"), problem));
    }
}

fn is_url(url: &Secret, schemes: &[&str]) -> bool {
    let url = url.expose();
    let Some(rest) = schemes.iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    !host.is_empty() && !host.starts_with(':') && !url.contains(char::is_whitespace)
}

fn check_exchanges(config: &Config, findings: &mut Vec<Finding>) {
    let routing = &config.routing;
    check_name("routing.exchange", &routing.exchange, findings);
    check_name(
        "dead_letter.exchange",
        &config.dead_letter.exchange,
        findings,
    );
    if !config.unrouted.exchange.is_empty() {
        check_name("unrouted.exchange", &config.unrouted.exchange, findings);
    }
    for (name, status) in &routing.statuses {
        let key = format!("routing.statuses.{name}");
        if status.exchange.is_none() && status.routing_key.is_none() {
            let problem =
                "the section is empty; set `exchange`, `routing_key` or both, or remove it";
            findings.push(Finding::new(&key, problem));
        }
        if let Some(exchange) = &status.exchange {
            check_name(&format!("{key}.exchange"), exchange, findings);
        }
    }
    let mut kinds = vec![("dead_letter.exchange", &config.dead_letter.exchange)];
    if config.unrouted.exchange == config.dead_letter.exchange {
        findings.push(Finding::new(
            "unrouted.exchange",
            "is also `dead_letter.exchange`; they hold different things",
        ));
    }
    kinds.push(("unrouted.exchange", &config.unrouted.exchange));
    let routed = routing.statuses.iter().filter_map(|(name, status)| {
        status
            .exchange
            .as_ref()
            .map(|exchange| (format!("routing.statuses.{name}.exchange"), exchange))
    });
    for (key, exchange) in
        std::iter::once(("routing.exchange".to_owned(), &routing.exchange)).chain(routed)
    {
        for (kind, holding) in &kinds {
            if exchange == *holding {
                findings.push(Finding::new(
                    &key,
                    format!("is also `{kind}`; events need an exchange of their own"),
                ));
            }
        }
    }
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

fn check_queues(config: &Config, findings: &mut Vec<Finding>) {
    let holding = [&config.dead_letter.exchange, &config.unrouted.exchange];
    let mut names: BTreeSet<&str> = holding.into_iter().map(String::as_str).collect();
    for (index, queue) in config.queues.iter().enumerate() {
        let key = format!("queues[{index}]");
        check_name(&format!("{key}.name"), &queue.name, findings);
        if !queue.name.is_empty() && !names.insert(&queue.name) {
            let problem = format!("there is already a queue `{}`", queue.name);
            findings.push(Finding::new(format!("{key}.name"), problem));
        }
        check_queue(&key, queue, findings);
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

fn check_log_level(level: &str, findings: &mut Vec<Finding>) {
    if level
        .parse::<tracing_subscriber::filter::Targets>()
        .is_err()
    {
        let problem = format!(
            "expected a level (error, warn, info, debug, trace, off) or directives such as \
             \"info,deskbridge::http=debug\", found \"{level}\""
        );
        findings.push(Finding::new("telemetry.log_level", problem));
    }
}
