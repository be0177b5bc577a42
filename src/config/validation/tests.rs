//! One row a rule: the section that breaks it, and the finding.

use super::findings;
use crate::config::Config;
use crate::config::sources::Source;

/// A configuration without findings, with these lines over it.
fn config(toml: &str) -> Config {
    let mut config: Config = toml::from_str(toml).unwrap_or_else(|error| panic!("{error}"));
    if config.sources.is_empty() {
        let source: Source = toml::from_str("secrets = [\"0123456789abcdef\"]").unwrap();
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

#[test]
fn the_defaults_with_one_source_have_no_findings() {
    check("", &[]);
    let nothing = findings(&Config::default());
    assert_eq!(nothing.len(), 1);
    assert!(
        nothing[0]
            .to_string()
            .starts_with("sources: there is no source"),
        "{}",
        nothing[0]
    );
}

#[test]
fn sources_have_names_for_a_url_and_secrets_of_16_bytes() {
    let secret = "secrets = [\"0123456789abcdef\"]";
    check(&format!("[sources.a-B_9]\n{secret}"), &[]);
    check(
        &format!("[sources.\"a/b\"]\n{secret}"),
        &["sources.a/b: a source is part of a URL"],
    );
    check(
        &format!("[sources.\"\"]\n{secret}"),
        &["sources.: a source is part of a URL"],
    );
    check(
        "[sources.a]",
        &["sources.a: signatures are required and there is no secret"],
    );
    check("[sources.a]\nsignature = \"none\"", &[]);
    check(
        "[sources.a]\nsecrets = [\"0123456789abcde\"]",
        &["sources.a.secrets: secret number 1 has 15 bytes"],
    );
    check(
        "[sources.a]\nsecrets = [\"0123456789abcdef\", \"\"]",
        &["sources.a.secrets: secret number 2 has 0 bytes"],
    );
    check(
        "[sources.a]\nawait_secret = true\nsecret_files = [\"x\"]",
        &[],
    );
    check(
        "[sources.a]\nawait_secret = true",
        &["sources.a: `await_secret` waits for a file"],
    );
}

#[test]
fn limits_let_something_through_and_do_not_contradict_each_other() {
    check(
        "[http]\nsessions_max = 0",
        &["http.sessions_max: a limit of 0"],
    );
    check(
        "[http]\nconnections_max = 0",
        &["http.connections_max: a limit of 0"],
    );
    check(
        "[http]\nconnections_per_client_max = 0",
        &["http.connections_per_client_max: a limit of 0"],
    );
    check("[http]\nbody_rate_min = 0", &[]);
    check(
        "[rabbitmq]\nin_flight_max = 0",
        &["rabbitmq.in_flight_max: a limit of 0"],
    );
    check(
        "[retry]\nattempts_max = 0",
        &["retry.attempts_max: a limit of 0"],
    );
    check("[http]\nbody_bytes_max = \"16MiB\"", &[]);
    check(
        "[http]\nbody_bytes_max = 16777217\nbuffered_bytes_max = \"1GiB\"",
        &["http.body_bytes_max: 16777217B is more than `rabbitmq.message_bytes_max` (16MiB)"],
    );
    check(
        "[http]\nbuffered_bytes_max = \"9MiB\"",
        &["http.body_bytes_max: 10MiB is more than `http.buffered_bytes_max` (9MiB)"],
    );
    check(
        "[journal]\nbacklog_bytes_max = \"9MiB\"",
        &["http.body_bytes_max: 10MiB is more than `journal.backlog_bytes_max` (9MiB)"],
    );
}

#[test]
fn delays_have_a_length_and_an_order() {
    check(
        "[http]\nheader_timeout = \"0s\"",
        &["http.header_timeout: must be longer"],
    );
    check(
        "[http]\nidle_timeout = \"0s\"",
        &["http.idle_timeout: must be longer"],
    );
    check(
        "[rabbitmq]\nconfirm_timeout = \"0s\"",
        &["rabbitmq.confirm_timeout: must be longer"],
    );
    check(
        "[rabbitmq]\nheartbeat = \"0s\"",
        &["rabbitmq.heartbeat: must be between"],
    );
    check(
        "[rabbitmq]\nheartbeat = \"1d\"",
        &["rabbitmq.heartbeat: must be between"],
    );
    check("[journal]\nretention = \"0s\"", &[]);
    check(
        "[retry]\ndelay_min = \"31s\"",
        &["retry.delay_min: 31s is longer than `retry.delay_max` (30s)"],
    );
    check(
        "[rabbitmq]\nreconnect_delay_max = \"100ms\"",
        &[
            "rabbitmq.reconnect_delay_min: 200ms is longer than `rabbitmq.reconnect_delay_max` (100ms)",
        ],
    );
}

#[test]
fn urls_name_a_host_and_certificates_have_a_key() {
    check("[rabbitmq]\nurls = []", &["rabbitmq.urls: there is no URL"]);
    for url in [
        "http://h",
        "amqp://",
        "amqp://u:p@",
        "amqp://:5672",
        "localhost:5672",
        "amqp://h h",
    ] {
        let toml = format!("[rabbitmq]\nurls = [\"amqps://u:p@[::1]:5671/%2f\", \"{url}\"]");
        check(&toml, &["rabbitmq.urls[1]: "]);
    }
    check(
        "[rabbitmq]\nmanagement_url = \"host:15672\"",
        &["rabbitmq.management_url: must be http://…"],
    );
    check(
        "[rabbitmq]\nmanagement_url = \"http://u:p@host:15672\"",
        &[],
    );
    check(
        "[rabbitmq.tls]\ncert_file = \"c\"",
        &["rabbitmq.tls.cert_file: a client certificate needs both"],
    );
    check(
        "[rabbitmq.tls]\nkey_file = \"k\"",
        &["rabbitmq.tls.key_file: a client certificate needs both"],
    );
    check("[rabbitmq.tls]\nca_file = \"a\"", &[]);
}

#[test]
fn exchanges_have_names_the_broker_takes_and_one_purpose() {
    check(
        "[routing]\nexchange = \"\"",
        &["routing.exchange: the name is empty"],
    );
    check(
        "[routing]\nexchange = \"amq.topic\"",
        &["routing.exchange: names that begin with `amq.`"],
    );
    check(
        &format!("[dead_letter]\nexchange = \"{}\"", "x".repeat(256)),
        &["dead_letter.exchange: the name has 256 bytes"],
    );
    check("[unrouted]\nexchange = \"\"", &[]);
    check(
        "[unrouted]\nexchange = \"chat-sessions.dead-letter\"",
        &["unrouted.exchange: is also `dead_letter.exchange`"],
    );
    check(
        "[routing.statuses.missed]\nexchange = \"chat-sessions.unrouted\"",
        &["routing.statuses.missed.exchange: is also `unrouted.exchange`"],
    );
}

#[test]
fn key_templates_are_read_and_status_sections_say_something() {
    check(
        "[routing]\nrouting_key = \"a.{staus}\"\n[routing.statuses.new]\nrouting_key = \"{\"",
        &[
            "routing.routing_key: unknown placeholder `{staus}`",
            "routing.statuses.new.routing_key: a brace that is not one of a pair",
        ],
    );
    check(
        "[routing.statuses.missed]",
        &["routing.statuses.missed: the section is empty"],
    );
    check(
        "[routing.statuses.missed]\nrouting_key = \"{company}.{status}\"",
        &[],
    );
}

#[test]
fn queues_have_a_name_of_their_own_and_keys() {
    let queue = |name: &str| format!("[[queues]]\nname = \"{name}\"\nkeys = [\"#\"]\n");
    check(&(queue("a") + &queue("b")), &[]);
    check(
        &(queue("a") + &queue("a")),
        &["queues[1].name: there is already a queue `a`"],
    );
    check(
        &queue("chat-sessions.dead-letter"),
        &["queues[0].name: there is already a queue"],
    );
    check(&queue(""), &["queues[0].name: the name is empty"]);
    check(
        "[[queues]]\nname = \"a\"",
        &["queues[0].keys: no binding key"],
    );
    check(
        &(queue("a") + "delivery_limit = 0"),
        &["queues[0].delivery_limit: must be more than 0"],
    );
    check(
        &(queue("a") + "retry_delay = \"0s\""),
        &["queues[0].retry_delay: must be more than 0"],
    );
    check(
        &(queue("a") + "retry_delay = \"1s\"\n" + &queue("a.retry")),
        &["queues[0].retry_delay: needs the name `a.retry`, which is taken by another key"],
    );
    let long = "x".repeat(248);
    check(
        &(queue(&long) + "retry_delay = \"1s\""),
        &[&format!(
            "queues[0].name: `{long}.rejected` has 257 bytes, AMQP allows 255; with a `retry_delay` it is needed too"
        )],
    );
}

#[test]
fn the_log_level_is_one() {
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
fn the_journal_has_a_directory_that_somebody_means() {
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
