//! Connects to the broker as the bridge would, and queries it and its management API for what
//! exists. Declares and stores nothing.

use std::collections::BTreeSet;

use super::finding::{Findings, Subject};
use super::input::{self, CheckInput};
use super::management::{self, Management, ManagementAnswer};
use super::permissions::User;
use super::{certificates, connecting, exchanges, publishing, shared_keys, statuses, topology};
use crate::config::Config;
use crate::config::rabbitmq::TopologyMode;
use crate::rabbitmq::ConnectConfig;
use crate::rabbitmq::inspection::{Found, Inspector};
use crate::rabbitmq::publish_probe;
use crate::rabbitmq::snapshot::BrokerSnapshot;
use crate::rabbitmq::snapshot::key::KeyPattern;
use crate::rabbitmq::topology::{Object, Topology};
use crate::rabbitmq::url::BrokerUrl;
use crate::webhook::DeadLetterReason;
use crate::webhook::routing::Route;

/// Adds findings about what would keep messages from the broker or its queues. Returns what exists,
/// if the management API could be queried. A running bridge has its connections already, so the
/// broker need not have room for more.
pub async fn judge(
    config: &Config,
    is_running: bool,
    list: &mut Findings,
) -> Option<BrokerSnapshot> {
    let unusable = |error| {
        list.error(format!("rabbitmq.urls: {error}"))
            .impact("nothing can be published")
            .fix("use a URL such as `amqp://user:password@host:5672/%2f`")
            .about([Subject::Broker]);
    };
    let settings = ConnectConfig::from_config(config).map_err(unusable).ok()?;
    certificates::judge_brokers(&settings, list).await;
    let (url, inspector) = connecting::connect(&settings, config, is_running, list).await;
    let mut input = input_of(config, &settings, url);
    let answer = ask_management(&mut input, url, list).await;
    let mut seen = None;
    if let Some(inspector) = inspector {
        if let Some(finding) = Inspector::version_finding(&settings, url).await {
            list.warning(finding)
                .impact("queues may be missing, or lose or refuse messages")
                .fix("upgrade the broker");
        }
        if let Ok(topology) = inspector.topology(&settings, url).await {
            input.plan = topology;
        }
        match query_topology(&inspector, &input.plan).await {
            Ok(found) => seen = Some(found),
            Err(reason) => unsteady(&format!("{url} ended the connection: {reason}"), list),
        }
        inspector.close().await;
    }
    let routes = routes(config);
    let mut answers = None;
    // During an alarm the broker would not answer a publish.
    if seen.is_some()
        && answer
            .as_ref()
            .is_none_or(|answer| answer.alarms.is_empty())
    {
        let asked = routes.iter().map(|(route, _)| route);
        match publish_probe::ask(&settings, url, asked).await {
            Ok(probed) => answers = Some(probed),
            Err(error) => {
                let problem = "accepted one connection and refused the next one";
                unsteady(&format!("{url} {problem}: {}", error.reason()), list);
            }
        }
    }
    if let Some(seen) = &seen {
        topology::retries(&input.plan, list);
        topology::judge(&input, seen, list);
        topology::waiting(&input, seen, answer.is_some(), list);
    }
    if let Some(answer) = &answer {
        management::judge(answer, list);
        judge_snapshot(&mut input, seen.as_deref().unwrap_or_default(), list);
    }
    if let Some(answers) = answers {
        publishing::judge(&input, url, &routes, answers, list);
    }
    answer.map(|_| input.present)
}

/// What the management API describes, if it can be queried.
pub(super) async fn snapshot(config: &Config) -> Option<BrokerSnapshot> {
    let settings = ConnectConfig::from_config(config).ok()?;
    let url = settings.urls.first()?;
    let mut input = input_of(config, &settings, url);
    let answer = ask_management(&mut input, url, &mut Findings::default()).await;
    answer.map(|_| input.present)
}

fn input_of<'a>(config: &'a Config, settings: &ConnectConfig, url: &BrokerUrl) -> CheckInput<'a> {
    CheckInput {
        config,
        plan: settings.topology.clone(),
        user: User::of(url),
        present: BrokerSnapshot::default(),
        existing: BrokerSnapshot::default(),
    }
}

/// Findings about what the management API describes.
fn judge_snapshot(input: &mut CheckInput<'_>, seen: &[Found], list: &mut Findings) {
    let mut existing = input.present.clone();
    if input.declares() {
        let denied = topology::denied(&input.plan, seen);
        existing = existing.with_missing_of(&topology::possible(&input.plan, &denied));
        topology::judge_permissions(input, &denied, list);
    }
    input.existing = existing;
    topology::judge_bindings(input, list);
    exchanges::judge(input, list);
    statuses::judge(input, list);
    shared_keys::judge(input, list);
}

/// Adds the finding that the broker does not keep its connections.
fn unsteady(problem: &str, list: &mut Findings) {
    list.error(problem)
        .impact("events wait in the journal as long as it does so")
        .fix("look for the cause in the broker's log at this time; `rabbitmq-diagnostics check_running` says whether it is still starting")
        .about([Subject::Broker])
        .not_inspected();
}

/// What AMQP reports about each object of the plan, and whether `serve` may declare what is missing.
async fn query_topology(inspector: &Inspector, plan: &Topology) -> Result<Vec<Found>, String> {
    let mut seen = inspector.query(&plan.objects).await?;
    if plan.mode == TopologyMode::Verify {
        return Ok(seen);
    }
    let objects = plan.objects.iter().zip(&seen);
    let missing = objects.filter_map(|(object, found)| match object {
        Object::Queue(queue) if *found == Found::Missing => Some(queue.name.as_str()),
        _ => None,
    });
    let missing: BTreeSet<_> = missing.collect();
    for (object, found) in plan.objects.iter().zip(&mut seen) {
        let is_asked = match object {
            Object::Binding(binding) => missing.contains(binding.queue.as_str()),
            _ => *found == Found::Missing,
        };
        if is_asked && let Some(text) = inspector.denied(object).await? {
            *found = Found::Denied(text);
        }
    }
    Ok(seen)
}

/// Queries the management API for everything between the exchanges and the consumers, which it adds
/// to the case. Adds a finding and returns `None` if `rabbitmq.management_url` is not set or cannot
/// be queried.
async fn ask_management(
    input: &mut CheckInput<'_>,
    url: &BrokerUrl,
    list: &mut Findings,
) -> Option<ManagementAnswer> {
    let rabbitmq = &input.config.rabbitmq;
    let address = &rabbitmq.management_url;
    if address.expose().is_empty() {
        list.note("not inspected: bindings, queue types, overflow, full queues, dead-lettering, delivery limits, TTLs, alternate exchanges, permissions to bind, alarms and the clock")
            .fix("set `rabbitmq.management_url = \"http://HOST:15672\"`")
            .not_inspected();
        return None;
    }
    let ca_file = rabbitmq.tls.ca_file.as_deref();
    let (problem, fix) = match Management::new(address, url, ca_file) {
        Ok(management) => match management.ask(input, list).await {
            Ok(answer) => return Some(answer),
            Err(error) => (
                format!("{} cannot be queried: {error:#}", management.url()),
                management::advice(&error),
            ),
        },
        Err(error) => (
            format!("{error:#}"),
            "use `http://USER:PASSWORD@HOST:15672`",
        ),
    };
    list.warning(format!("rabbitmq.management_url: {problem}"))
        .impact("bindings, queues, policies, permissions and alarms were not inspected")
        .fix(fix)
        .not_inspected();
    None
}

/// The routes of all statuses and of dead letters, with the common part of their keys.
fn routes(config: &Config) -> Vec<(Route, KeyPattern)> {
    let statuses = input::statuses(config).into_iter();
    let statuses = statuses.map(|status| (status.route, status.key));
    let reasons = DeadLetterReason::ALL.iter().map(|reason| {
        let route = Route {
            exchange: config.dead_letter.exchange.as_str().into(),
            routing_key: reason.as_str().into(),
        };
        (route, KeyPattern::literal(reason.as_str()))
    });
    statuses.chain(reasons).collect()
}
