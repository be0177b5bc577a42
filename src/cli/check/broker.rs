//! Connects to the broker as the bridge would, asks it and its management API what is there, and
//! compares that with the configuration. Declares nothing, stores nothing.

use deskbridge::config::Config;
use deskbridge::config::rabbitmq::TopologyMode;
use deskbridge::rabbitmq::Settings;
use deskbridge::rabbitmq::existing::Existing;
use deskbridge::rabbitmq::existing::key::Key;
use deskbridge::rabbitmq::inspection::{Found, Inspector};
use deskbridge::rabbitmq::permitted::{self, Permitted};
use deskbridge::rabbitmq::topology::{Object, Topology};
use deskbridge::rabbitmq::url::BrokerUrl;
use deskbridge::webhook::Reason;
use deskbridge::webhook::routing::Route;

use super::case::{self, Case};
use super::finding::{Finding, Subject};
use super::management::{Management, Told};
use super::permissions::User;
use super::publishing::{self, Asked};
use super::topology::{self, Seen};
use super::{certificates, connecting, exchanges, management, permissions, sharing, statuses};

/// Clocks may differ by so many seconds.
const CLOCK_SECONDS_MAX: i64 = 60;

/// What was found, and what it was found in.
#[derive(Default)]
pub struct Looked {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What exists, if somebody told.
    pub existing: Option<Existing>,
}

/// What would keep messages from the broker, or from its queues. A bridge that runs has its
/// connections already: there need not be room for a second one.
pub async fn look(config: &Config, is_running: bool) -> Looked {
    let settings = match Settings::from_config(config) {
        Ok(settings) => settings,
        Err(error) => {
            let finding = Finding::error(format!("rabbitmq.urls: {error}"))
                .losing("nothing can be published")
                .trying("`amqp://user:password@host:5672/%2f`")
                .about([Subject::Broker]);
            return Looked {
                findings: vec![finding],
                existing: None,
            };
        }
    };
    let declares = config.rabbitmq.topology == TopologyMode::Declare;
    let mut findings =
        certificates::look_at_brokers(&settings.urls, settings.connect_timeout).await;
    let connected = connecting::connect(&settings, config, is_running, &mut findings).await;
    let url = connected.url;
    let told = ask_management(config, url, &mut findings).await;
    let user = User {
        name: url.credentials().0.to_owned(),
        vhost: url.vhost().to_owned(),
        permissions: told.as_ref().and_then(|told| told.permissions.clone()),
        topics: told.as_ref().and_then(|told| told.topics.clone()),
    };
    let mut plan = settings.topology.clone();
    let seen = match connected.inspector {
        Some(inspector) => {
            if let Ok(topology) = inspector.topology(&settings, url).await {
                plan = topology;
            }
            inspect(inspector, &plan, declares, url, &mut findings).await
        }
        None => None,
    };
    let plan = &plan;
    if seen.is_some() {
        findings.extend(topology::retries(plan));
    }
    if let Some(seen) = &seen {
        findings.extend(topology::judge(plan, seen, declares, &user));
        findings.extend(topology::waiting(plan, seen, config, told.is_some()));
    }
    let has_alarm = told.as_ref().is_some_and(|told| !told.alarms.is_empty());
    let existing = told.as_ref().map(|told| told.existing.clone());
    if let Some(told) = told {
        let seen = seen.as_ref();
        findings.extend(judge(config, plan, &user, told, seen));
    }
    // An alarm would hold up the question.
    if seen.is_some() && !has_alarm {
        findings.extend(ask_for_permission(config, &settings, url, &user).await);
    }
    Looked { findings, existing }
}

/// What AMQP tells of the plan; nothing if the connection was lost meanwhile.
async fn inspect(
    inspector: Inspector,
    plan: &Topology,
    declares: bool,
    url: &BrokerUrl,
    findings: &mut Vec<Finding>,
) -> Option<Seen> {
    let seen = ask_for_objects(&inspector, plan, declares).await;
    inspector.close().await;
    match seen {
        Ok(seen) => Some(seen),
        Err(reason) => {
            findings.push(
                Finding::error(format!("{url} ended the connection: {reason}"))
                    .losing("events wait in the journal while it does so")
                    .trying("what the broker says, and its log")
                    .about([Subject::Broker])
                    .leaving_unseen(),
            );
            None
        }
    }
}

async fn ask_for_objects(
    inspector: &Inspector,
    plan: &Topology,
    declares: bool,
) -> Result<Seen, String> {
    let mut seen = Seen {
        found: inspector.look(&plan.objects).await?,
        ..Seen::default()
    };
    let is_missing = |seen: &Seen, name: &str| {
        let mut objects = plan.objects.iter().zip(&seen.found);
        objects.any(|(object, found)| {
            *found == Found::Missing && matches!(object, Object::Queue(queue) if queue.name == name)
        })
    };
    for (index, object) in plan.objects.iter().enumerate().filter(|_| declares) {
        let is_asked = match object {
            Object::Binding(binding) => is_missing(&seen, &binding.queue),
            _ => seen.found[index] == Found::Missing,
        };
        if is_asked && let Permitted::No(_, text) = inspector.may_declare(object).await? {
            seen.denied.insert(index, text);
        }
    }
    Ok(seen)
}

/// Everything between the exchanges and the consumers, if somebody says where to ask.
async fn ask_management(
    config: &Config,
    url: &BrokerUrl,
    findings: &mut Vec<Finding>,
) -> Option<Told> {
    let address = &config.rabbitmq.management_url;
    if address.expose().is_empty() {
        findings.push(
            Finding::unseen("not looked at: bindings, kinds of queues, overflow, full queues, dead-lettering, delivery limits, TTLs, alternate exchanges, permissions to bind, alarms and the clock")
                .trying("`rabbitmq.management_url = \"http://HOST:15672\"`"),
        );
        return None;
    }
    let ca_file = config.rabbitmq.tls.ca_file.as_deref();
    let asked = match Management::new(address, url, ca_file) {
        Ok(management) => management
            .ask(url.vhost(), url.credentials().0)
            .await
            .map_err(|error| {
                let problem = format!("{} cannot be asked: {error:#}", management.url());
                (problem, management::advice(&error))
            }),
        Err(error) => Err((format!("{error:#}"), "`http://USER:PASSWORD@HOST:15672`")),
    };
    match asked {
        Ok(told) => Some(told),
        Err((problem, advice)) => {
            findings.push(
                Finding::warning(format!("rabbitmq.management_url: {problem}"))
                    .losing("bindings, queues, policies, permissions and alarms were not looked at")
                    .trying(advice)
                    .leaving_unseen(),
            );
            None
        }
    }
}

fn judge(
    config: &Config,
    plan: &Topology,
    user: &User,
    told: Told,
    seen: Option<&Seen>,
) -> Vec<Finding> {
    let Told {
        existing,
        alarms,
        clock_ahead,
        unseen,
        ..
    } = told;
    let mut findings = unseen;
    findings.extend(alarms.iter().map(|alarm| {
        Finding::error(format!("the broker has an alarm: {alarm}"))
            .losing("it takes no message until it is over: events wait in the journal")
            .trying("free what it lacks; `rabbitmq-diagnostics alarms` and `rabbitmq-diagnostics memory_breakdown` show it")
            .about([Subject::Broker])
    }));
    let ahead = clock_ahead.map_or(0, |ahead| ahead.as_secs());
    if ahead.abs() > CLOCK_SECONDS_MAX {
        let (seconds, way) = (ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" });
        findings.push(
            Finding::warning(format!("the clock of this machine is {seconds} s {way} the broker's"))
                .losing("`received-at`, the age of events, TTLs and certificates are judged by a wrong time on one of the two")
                .trying("`timedatectl` on both; start chrony or systemd-timesyncd where it is wrong"),
        );
    }
    let declares = config.rabbitmq.topology == TopologyMode::Declare;
    let denied: Vec<_> = seen
        .iter()
        .flat_map(|seen| seen.denied.keys().copied())
        .collect();
    if declares {
        findings.extend(permissions::judge(user, &existing, plan, &denied));
    }
    findings.extend(exchanges::unbound(&existing, plan, declares));
    let present = existing.clone();
    let existing = if declares {
        let possible = seen.map_or_else(|| plan.clone(), |seen| seen.possible(plan));
        existing.with_missing_of(&possible)
    } else {
        existing
    };
    let case = Case {
        existing: &existing,
        present: &present,
        plan,
        config,
        vhost: &user.vhost,
    };
    findings.extend(exchanges::judge(&case));
    findings.extend(statuses::judge(&case));
    findings.extend(sharing::judge(&case));
    findings
}

/// Whether the broker would take a message of every status, and dead letters.
async fn ask_for_permission(
    config: &Config,
    settings: &Settings,
    url: &BrokerUrl,
    user: &User,
) -> Vec<Finding> {
    let statuses = case::statuses(config).into_iter();
    let mut asked: Vec<_> = statuses
        .map(|status| Asked {
            route: status.route,
            key: status.key,
        })
        .collect();
    let reasons = Reason::ALL.iter().map(|reason| Asked {
        route: Route {
            exchange: config.dead_letter.exchange.as_str().into(),
            routing_key: reason.as_str().into(),
        },
        key: Key::literal(reason.as_str()),
    });
    asked.extend(reasons);
    let routes: Vec<_> = asked.iter().map(|asked| asked.route.clone()).collect();
    match permitted::ask(settings, url, &routes).await {
        Ok(answers) => publishing::judge(&asked, answers, &settings.topology, url, user),
        Err(error) => vec![
            Finding::error(format!(
                "{url} let us in once and not again: {}",
                error.reason()
            ))
            .losing("events wait in the journal while it does so")
            .trying("what the broker says, and its log")
            .about([Subject::Broker])
            .leaving_unseen(),
        ],
    }
}
