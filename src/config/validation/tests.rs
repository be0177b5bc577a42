//! One case per rule: a section that breaks it, and the expected finding.

use super::findings;
use crate::config::Config;
use crate::config::sources::SourceConfig;

/// A valid configuration with these lines on top.
fn config(toml: &str) -> Config {
    let mut config: Config = toml::from_str(toml).unwrap_or_else(|error| panic!("{error}"));
    if config.sources.is_empty() {
        let source: SourceConfig = toml::from_str("secrets = [\"0123456789abcdef\"]").unwrap();
        config.sources.insert("dd".into(), source);
    }
    config
}

#[track_caller]
fn check(toml: &str, expected: &[&str]) {
    let mut found: Vec<_> = findings(&config(toml))
        .iter()
        .map(ToString::to_string)
        .collect();
    found.sort();
    let starts = |(found, expected): (&String, &&str)| found.starts_with(*expected);
    let all = found.len() == expected.len() && found.iter().zip(expected).all(starts);
    assert!(all, "{toml}\nfound    {found:#?}\nexpected {expected:#?}");
}

/// The line has one finding, which is about its key and begins like this.
#[track_caller]
fn wrong(line: &str, problem: &str) {
    let (key, _) = line.split_once(" = ").unwrap();
    check(line, &[&format!("{key}: {problem}")]);
}

#[test]
fn defaults_with_one_source_have_no_findings() {
    check("", &[]);
    let nothing = findings(&Config::default());
    assert_eq!(nothing.len(), 1);
    assert!(nothing[0].problem.starts_with("there is no source"));
}

#[test]
fn sources_need_url_names_and_16_byte_secrets() {
    let secret = "secrets = [\"0123456789abcdef\"]";
    check(&format!("[sources.a-B_9]\n{secret}"), &[]);
    for (name, key) in [("\"a/b\"", "a/b"), ("\"\"", "")] {
        let expected = format!("sources.{key}: a source is part of a URL");
        check(&format!("[sources.{name}]\n{secret}"), &[&expected]);
    }
    wrong(
        "sources.a = {}",
        "signatures are required and there is no secret",
    );
    check("sources.a.signature = \"none\"", &[]);
    let short = "secret number 1 has 15 bytes";
    wrong("sources.a.secrets = [\"0123456789abcde\"]", short);
    let empty = "secret number 2 has 0 bytes";
    wrong("sources.a.secrets = [\"0123456789abcdef\", \"\"]", empty);
    let awaits = "[sources.a]\nawait_secret = true\n";
    check(&format!("{awaits}secret_files = [\"x\"]"), &[]);
    check(awaits, &["sources.a: `await_secret` waits for a file"]);
}

#[test]
fn limits_are_positive_and_consistent() {
    for key in [
        "http.sessions_max",
        "http.connections_max",
        "http.connections_per_client_max",
        "rabbitmq.in_flight_max",
        "retry.attempts_max",
    ] {
        wrong(&format!("{key} = 0"), "a limit of 0");
    }
    check("http.body_rate_min = 0", &[]);
    check("http.body_bytes_max = \"16MiB\"", &[]);
    let more_than = |line: &str, problem: &str| {
        let expected = format!("http.body_bytes_max: {problem}");
        check(line, &[&expected]);
    };
    more_than(
        "http.body_bytes_max = 16777217\nhttp.buffered_bytes_max = \"1GiB\"",
        "16777217B is more than `rabbitmq.message_bytes_max` (16MiB)",
    );
    for key in ["http.buffered_bytes_max", "journal.backlog_bytes_max"] {
        let problem = format!("10MiB is more than `{key}` (9MiB)");
        more_than(&format!("{key} = \"9MiB\""), &problem);
    }
}

#[test]
fn delays_are_positive_and_ordered() {
    wrong("http.header_timeout = \"0s\"", "must be longer");
    wrong("http.idle_timeout = \"0s\"", "must be longer");
    wrong("rabbitmq.confirm_timeout = \"0s\"", "must be longer");
    wrong("rabbitmq.heartbeat = \"0s\"", "must be between");
    wrong("rabbitmq.heartbeat = \"1d\"", "must be between");
    check("journal.retention = \"0s\"", &[]);
    let problem = "31s is longer than `retry.delay_max` (30s)";
    wrong("retry.delay_min = \"31s\"", problem);
    let problem =
        "rabbitmq.reconnect_delay_min: 200ms is longer than `rabbitmq.reconnect_delay_max` (100ms)";
    check("rabbitmq.reconnect_delay_max = \"100ms\"", &[problem]);
}

#[test]
fn urls_need_a_host_and_certificates_a_key() {
    wrong("rabbitmq.urls = []", "there is no broker URL");
    let urls = "rabbitmq.urls = [\"amqps://u:p@[::1]:5671/%2f\", \"http://h\"]";
    check(urls, &["rabbitmq.urls[1]: "]);
    let url = "rabbitmq.management_url = ";
    wrong(&format!("{url}\"host:15672\""), "must be http://…");
    check(&format!("{url}\"http://u:p@host:15672\""), &[]);
    for file in ["cert_file", "key_file"] {
        let line = format!("rabbitmq.tls.{file} = \"c\"");
        wrong(&line, "a client certificate needs both");
    }
    check("rabbitmq.tls.ca_file = \"a\"", &[]);
}

#[test]
fn exchange_names_are_valid_and_distinct() {
    wrong("routing.exchange = \"\"", "the name is empty");
    wrong(
        "routing.exchange = \"amq.topic\"",
        "names that begin with `amq.`",
    );
    let long = format!("dead_letter.exchange = \"{}\"", "x".repeat(256));
    wrong(&long, "the name has 256 bytes");
    check("unrouted.exchange = \"\"", &[]);
    let line = "unrouted.exchange = \"chat-sessions.dead-letter\"";
    wrong(line, "is also `dead_letter.exchange`");
    let line = "routing.statuses.missed.exchange = \"chat-sessions.unrouted\"";
    wrong(line, "is also `unrouted.exchange`");
    wrong("routing.statuses.missed = {}", "the section is empty");
    check("routing.statuses.missed.routing_key = \"{company}\"", &[]);
}

#[test]
fn queues_need_unique_names_and_keys() {
    let queue = |name: &str| format!("[[queues]]\nname = \"{name}\"\nkeys = [\"#\"]\n");
    let first = |more: &str, expected: &str| {
        let expected = format!("queues[0].{expected}");
        check(&(queue("a") + more), &[&expected]);
    };
    check(&(queue("a") + &queue("b")), &[]);
    let twice = "queues[1].name: there is already a queue `a`";
    check(&(queue("a") + &queue("a")), &[twice]);
    let letters = "queues[0].name: there is already a queue";
    check(&queue("chat-sessions.dead-letter"), &[letters]);
    check(&queue(""), &["queues[0].name: the name is empty"]);
    let without_key = "queues[0].keys: no binding key";
    check("[[queues]]\nname = \"a\"", &[without_key]);
    first("delivery_limit = 0", "delivery_limit: must be more than 0");
    first("retry_delay = \"0s\"", "retry_delay: must be more than 0");
    first(
        &("retry_delay = \"1s\"\n".to_owned() + &queue("a.retry")),
        "retry_delay: needs the name `a.retry`, which another key uses already",
    );
    let long = "x".repeat(248);
    let expected = format!(
        "queues[0].name: `{long}.rejected` has 257 bytes, AMQP allows 255; a queue with a `retry_delay` needs it"
    );
    check(&(queue(&long) + "retry_delay = \"1s\""), &[&expected]);
}

#[test]
fn log_level_is_checked() {
    for level in ["info", "WARN", "off", "info,deskbridge::http=debug"] {
        check(&format!("[telemetry]\nlog_level = \"{level}\""), &[]);
    }
    for level in ["loud", "info,deskbridge=loud"] {
        check(
            &format!("[telemetry]\nlog_level = \"{level}\""),
            &["telemetry.log_level: expected a level"],
        );
    }
}

#[test]
fn journal_directory_must_be_explicit() {
    for (dir, problem) in [
        ("", "journal.dir: names no directory"),
        ("~", "journal.dir: `~` begins with `~`"),
        ("~/journal", "journal.dir: `~/journal` begins with `~`"),
        ("~bridge/journal", "journal.dir: `~bridge/journal` begins"),
    ] {
        check(&format!("[journal]\ndir = {dir:?}"), &[problem]);
    }
    for dir in ["/var/lib/deskbridge", "data/~", ".", "./~"] {
        check(&format!("[journal]\ndir = {dir:?}"), &[]);
    }
}
