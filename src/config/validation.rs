//! Validates values beyond their types: ranges, contradictions, names. Pure.

mod broker;
mod limits;
mod sources;
mod topology;

use std::path::{Component, Path};

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::Config;
use super::finding::ConfigFinding;

/// All findings, in no particular order.
pub(super) fn findings(config: &Config) -> Vec<ConfigFinding> {
    let mut findings = Vec::new();
    sources::check_sources(config, &mut findings);
    check_hosts(&config.admin.hosts, &mut findings);
    limits::check_limits(config, &mut findings);
    limits::check_delays(config, &mut findings);
    check_directory(&config.journal.dir, &mut findings);
    broker::check_broker(&config.rabbitmq, &mut findings);
    topology::check_exchanges(config, &mut findings);
    topology::check_queues(config, &mut findings);
    check_log_level(&config.telemetry.log_level, &mut findings);
    findings
}

/// Findings for names that differ only in case. Names are matched without regard to case, so a
/// request, a status or a variable could mean either of them.
pub(super) fn ambiguous_names(config: &Config) -> Vec<ConfigFinding> {
    let sources = config.sources.keys().map(|name| ("sources", name));
    let statuses = config
        .routing
        .statuses
        .keys()
        .map(|name| ("routing.statuses", name));
    let mut names: Vec<_> = sources.chain(statuses).collect();
    names.sort_by_cached_key(|(table, name)| (*table, name.to_lowercase()));
    let pairs = names.windows(2).filter_map(|pair| {
        let [(table, first), (other, second)] = pair else {
            return None;
        };
        let is_same = table == other && first.to_lowercase() == second.to_lowercase();
        let problem = format!("differs from `{table}.{first}` only in case; choose one name");
        is_same.then(|| ConfigFinding::new(format!("{table}.{second}"), problem))
    });
    pairs.collect()
}

fn check_log_level(directives: &str, findings: &mut Vec<ConfigFinding>) {
    // `Targets` accepts a misspelt level as the name of a target.
    let is_level = |word: &str| word.contains('=') || word.trim().parse::<LevelFilter>().is_ok();
    if directives.parse::<Targets>().is_err() || !directives.split(',').all(is_level) {
        let problem = "expected a level (error, warn, info, debug, trace, off) or directives such \
                       as \"info,deskbridge::http=debug\"";
        findings.push(ConfigFinding::new("telemetry.log_level", problem));
    }
}

/// Host names only, as in the `Host` header without its port.
fn check_hosts(hosts: &[String], findings: &mut Vec<ConfigFinding>) {
    for (index, host) in hosts.iter().enumerate() {
        let is_part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_part_of_name) {
            let problem = "expected a host name without scheme, port and path, such as \
                           \"bridge.example.net\"";
            findings.push(ConfigFinding::new(format!("admin.hosts[{index}]"), problem));
        }
    }
}

/// Not empty, and no `~`, which only a shell expands.
fn check_directory(dir: &Path, findings: &mut Vec<ConfigFinding>) {
    let first = dir.components().next();
    let problem = match first {
        None => "names no directory".to_owned(),
        Some(Component::Normal(name)) if name.as_encoded_bytes().starts_with(b"~") => format!(
            "`{}` begins with `~`, which only a shell expands; write the whole path",
            dir.display()
        ),
        Some(_) => return,
    };
    findings.push(ConfigFinding::new("journal.dir", problem));
}

#[cfg(test)]
mod tests;
