//! What is wrong with the values as a whole, beyond their types. Pure.

mod broker;
mod hosts;
mod journal;
mod limits;
mod sources;
mod topology;

use tracing_subscriber::filter::{LevelFilter, Targets};

use super::Config;
use super::finding::Finding;

/// Every finding, in no particular order.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    sources::check_sources(config, &mut findings);
    hosts::check_hosts(&config.admin.hosts, &mut findings);
    limits::check_limits(config, &mut findings);
    limits::check_delays(config, &mut findings);
    journal::check_directory(&config.journal.dir, &mut findings);
    broker::check_broker(&config.rabbitmq, &mut findings);
    topology::check_exchanges(config, &mut findings);
    topology::check_queues(config, &mut findings);
    check_log_level(&config.telemetry.log_level, &mut findings);
    findings
}

fn check_log_level(directives: &str, findings: &mut Vec<Finding>) {
    // `Targets` takes a word that is no level for the name of a target.
    let is_level = |word: &str| word.contains('=') || word.trim().parse::<LevelFilter>().is_ok();
    if directives.parse::<Targets>().is_err() || !directives.split(',').all(is_level) {
        let problem = "expected a level (error, warn, info, debug, trace, off) or directives such \
                       as \"info,deskbridge::http=debug\"";
        findings.push(Finding::new("telemetry.log_level", problem));
    }
}

#[cfg(test)]
mod tests;
