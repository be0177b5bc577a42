//! Validates limits and delays: none is zero, and no minimum exceeds its maximum.

use std::time::Duration;

use super::super::Config;
use super::super::finding::ConfigFinding;
use super::super::units::{format_duration, format_size};

pub(super) fn check_limits(config: &Config, findings: &mut Vec<ConfigFinding>) {
    let (http, rabbitmq, journal) = (&config.http, &config.rabbitmq, &config.journal);
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    for (key, limit) in [
        ("http.body_bytes_max", http.body_bytes_max),
        ("http.sessions_max", count(http.sessions_max)),
        ("http.connections_max", count(http.connections_max)),
        (
            "http.connections_per_client_max",
            http.connections_per_client_max.map_or(u64::MAX, count),
        ),
        ("http.buffered_bytes_max", http.buffered_bytes_max),
        ("rabbitmq.in_flight_max", count(rabbitmq.in_flight_max)),
        ("rabbitmq.in_flight_bytes_max", rabbitmq.in_flight_bytes_max),
        ("rabbitmq.message_bytes_max", rabbitmq.message_bytes_max),
        ("retry.attempts_max", config.retry.attempts_max.into()),
        ("journal.backlog_bytes_max", journal.backlog_bytes_max),
        ("unrouted.bytes_max", config.unrouted.bytes_max),
    ] {
        if limit == 0 {
            findings.push(ConfigFinding::new(key, "a limit of 0 lets nothing through"));
        }
    }
    let body = http.body_bytes_max;
    for (key, bound) in [
        ("rabbitmq.message_bytes_max", rabbitmq.message_bytes_max),
        ("http.buffered_bytes_max", http.buffered_bytes_max),
        ("journal.backlog_bytes_max", journal.backlog_bytes_max),
    ] {
        if body > bound {
            let (body, bound) = (format_size(body), format_size(bound));
            let problem = format!("{body} is more than `{key}` ({bound})");
            findings.push(ConfigFinding::new("http.body_bytes_max", problem));
        }
    }
}

pub(super) fn check_delays(config: &Config, findings: &mut Vec<ConfigFinding>) {
    let (http, rabbitmq, retry) = (&config.http, &config.rabbitmq, &config.retry);
    for (key, duration) in [
        ("http.header_timeout", http.header_timeout),
        ("http.body_timeout", http.body_timeout),
        ("http.idle_timeout", http.idle_timeout),
        ("rabbitmq.connect_timeout", rabbitmq.connect_timeout),
        ("rabbitmq.confirm_timeout", rabbitmq.confirm_timeout),
        ("rabbitmq.reconnect_delay_min", rabbitmq.reconnect_delay_min),
        ("retry.delay_min", retry.delay_min),
        ("unrouted.ttl", config.unrouted.ttl),
        ("shutdown.grace", config.shutdown.grace),
    ] {
        if duration.is_zero() {
            findings.push(ConfigFinding::new(key, "must be longer than 0s"));
        }
    }
    let heartbeats = Duration::from_secs(1)..=Duration::from_secs(u16::MAX.into());
    if !heartbeats.contains(&rabbitmq.heartbeat) {
        let problem = "must be between 1s and 65535s";
        findings.push(ConfigFinding::new("rabbitmq.heartbeat", problem));
    }
    let reconnect = (rabbitmq.reconnect_delay_min, rabbitmq.reconnect_delay_max);
    for (key, (shorter, longer)) in [
        ("rabbitmq.reconnect_delay", reconnect),
        ("retry.delay", (retry.delay_min, retry.delay_max)),
    ] {
        if shorter > longer {
            let (shorter, longer) = (format_duration(shorter), format_duration(longer));
            let problem = format!("{shorter} is longer than `{key}_max` ({longer})");
            findings.push(ConfigFinding::new(format!("{key}_min"), problem));
        }
    }
}
