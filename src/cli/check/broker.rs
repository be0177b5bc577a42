//! Connects to the broker as the bridge would, asks it and its management API what is there, and
//! compares that with the configuration. Declares nothing, publishes nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use deskbridge::config::Config;
use deskbridge::config::rabbitmq::TopologyMode;
use deskbridge::rabbitmq::permitted::{self, Permitted};
use deskbridge::rabbitmq::topology::Topology;
use deskbridge::rabbitmq::url::BrokerUrl;
use deskbridge::rabbitmq::{self, Settings};
use deskbridge::telemetry::status::{BrokerState, BrokerStatus};
use deskbridge::webhook::Reason;
use deskbridge::webhook::routing::Route;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::case::{self, Case};
use super::line::{DECLARE, Line};
use super::management::{Management, Told};
use super::{certificates, exchanges, management, permissions, statuses};

/// Beyond the connect timeout.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clocks may differ by so many seconds.
const CLOCK_SECONDS_MAX: i64 = 60;

/// What would keep messages from the broker, or from its queues.
pub async fn look(config: &Config) -> Vec<Line> {
    let mut verifying = config.clone();
    verifying.rabbitmq.topology = TopologyMode::Verify;
    let settings = match Settings::from_config(&verifying) {
        Ok(settings) => settings,
        Err(error) => {
            return vec![
                Line::error(format!("rabbitmq.urls: {error}"))
                    .losing("nothing can be published")
                    .trying("`amqp://user:password@host:5672/%2f`"),
            ];
        }
    };
    let declares = config.rabbitmq.topology == TopologyMode::Declare;
    let (url, status, mut lines) = connect_to_any(&settings, declares).await;
    let patience = settings.connect_timeout;
    lines.extend(certificates::look_at_brokers(&settings.urls, patience).await);
    let told = ask_management(config, url, &mut lines).await;
    let is_blocked = status.state == BrokerState::Blocked;
    let has_alarm = told.as_ref().is_some_and(|told| !told.alarms.is_empty());
    if let Some(told) = told {
        lines.extend(judge(config, &settings.topology, url, told));
    }
    // An alarm would hold up the question.
    if status.state == BrokerState::Connected && !is_blocked && !has_alarm {
        lines.extend(ask_for_permission(config, &settings, url).await);
    }
    lines
}

/// The first broker that takes us, as `serve` would find it, and what is wrong with it and with
/// those before it; or with all, and the first of them.
async fn connect_to_any(
    settings: &Settings,
    declares: bool,
) -> (&BrokerUrl, BrokerStatus, Vec<Line>) {
    let mut failed = Vec::new();
    let mut first = None;
    for url in &settings.urls {
        let alone = Settings {
            urls: vec![url.clone()],
            ..settings.clone()
        };
        let status = connect(alone).await;
        let found = lines(&status, declares, url);
        if matches!(status.state, BrokerState::Connected | BrokerState::Blocked) {
            let passed = failed.into_iter().map(|line: Line| {
                line.unused().losing(
                    "a broker less to go to; `serve` goes on to the next of `rabbitmq.urls`",
                )
            });
            return (url, status, passed.chain(found).collect());
        }
        failed.extend(found);
        first.get_or_insert((url, status));
    }
    let (url, status) = first.expect("settings have a URL");
    (url, status, failed)
}

async fn connect(settings: Settings) -> BrokerStatus {
    let patience = settings.connect_timeout + PATIENCE;
    let (reports, _kept) = mpsc::channel(16);
    let stop = CancellationToken::new();
    let (_publisher, mut status, links) = rabbitmq::start(settings, reports, stop.clone());
    let decided = status
        .wait_for(|status| status.state != BrokerState::Connecting || status.reason.is_some());
    let _ = timeout(patience, decided).await;
    let found = status.borrow().clone();
    stop.cancel();
    let _ = timeout(PATIENCE, links).await;
    found
}

/// Everything between the exchanges and the consumers, if somebody says where to ask.
async fn ask_management(config: &Config, url: &BrokerUrl, lines: &mut Vec<Line>) -> Option<Told> {
    let address = &config.rabbitmq.management_url;
    if address.expose().is_empty() {
        lines.push(
            Line::unseen("not looked at: bindings, kinds of queues, overflow, full queues, dead-lettering, delivery limits, TTLs, alternate exchanges, permissions to declare, alarms and the clock")
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
            lines.push(
                Line::warning(format!("rabbitmq.management_url: {problem}"))
                    .losing("bindings, queues, policies, permissions and alarms were not looked at")
                    .trying(advice),
            );
            None
        }
    }
}

fn judge(config: &Config, plan: &Topology, url: &BrokerUrl, told: Told) -> Vec<Line> {
    let Told {
        existing,
        alarms,
        permissions,
        clock_ahead,
        unseen,
    } = told;
    let mut lines = unseen;
    lines.extend(alarms.iter().map(|alarm| {
        Line::error(format!("the broker has an alarm: {alarm}"))
            .losing("it takes no message until it is over: events wait in the journal")
            .trying("free what it lacks; `rabbitmq-diagnostics alarms` and `rabbitmq-diagnostics memory_breakdown` show it")
    }));
    let ahead = clock_ahead.map_or(0, |ahead| ahead.as_secs());
    if ahead.abs() > CLOCK_SECONDS_MAX {
        let (seconds, way) = (ahead.abs(), if ahead > 0 { "ahead of" } else { "behind" });
        lines.push(
            Line::warning(format!("the clock of this machine is {seconds} s {way} the broker's"))
                .losing("`received-at`, the age of events, TTLs and certificates are judged by a wrong time on one of the two")
                .trying("`timedatectl` on both; start chrony or systemd-timesyncd where it is wrong"),
        );
    }
    let declares = config.rabbitmq.topology == TopologyMode::Declare;
    let user = (url.credentials().0, url.vhost());
    if let Some(permissions) = permissions.filter(|_| declares) {
        lines.extend(permissions::judge(&permissions, &existing, plan, user));
    }
    lines.extend(exchanges::unbound(&existing, plan, declares));
    let present = existing.clone();
    let existing = if declares {
        existing.with_missing_of(plan)
    } else {
        existing
    };
    let case = Case {
        existing: &existing,
        present: &present,
        plan,
        config,
        vhost: url.vhost(),
    };
    lines.extend(exchanges::judge(&case));
    lines.extend(statuses::judge(&case));
    lines
}

/// Whether the broker would take a message of every status, and dead letters.
async fn ask_for_permission(config: &Config, settings: &Settings, url: &BrokerUrl) -> Vec<Line> {
    let mut routes: Vec<Route> = case::statuses(config)
        .into_iter()
        .map(|status| status.route)
        .collect();
    routes.push(Route {
        exchange: config.dead_letter.exchange.as_str().into(),
        routing_key: Reason::Invalid.as_str().into(),
    });
    let answers = match permitted::ask(settings, url, &routes).await {
        Ok(answers) => answers,
        Err(error) => {
            let problem = format!("{url} let us in once and not again: {}", error.reason());
            return vec![
                Line::error(problem)
                    .losing("events wait in the journal while it does so")
                    .trying("is there a limit of connections (`rabbitmqctl list_user_limits`, `list_vhost_limits`)?"),
            ];
        }
    };
    let mut lines = Vec::new();
    let mut told = BTreeSet::new();
    for (route, answer) in routes.iter().zip(answers) {
        // Every status of an exchange is refused in the same words.
        if !told.insert(format!("{answer:?}")) {
            continue;
        }
        let Route {
            exchange,
            routing_key,
        } = route;
        let user = url.credentials().0;
        let what = format!("exchange `{exchange}` (key `{routing_key}`)");
        lines.extend(match answer {
            // A missing exchange is told of elsewhere.
            Permitted::Yes | Permitted::No(404, _) => None,
            Permitted::No(403, text) => {
                let problem = format!("user `{user}` may not write to {what}: {text}");
                let lost = "its route is closed: events wait in the journal";
                let advice = permissions::grant(&settings.topology, (user, url.vhost()));
                Some(Line::error(problem).losing(lost).trying(advice))
            }
            Permitted::No(code, text) => Some(
                Line::error(format!(
                    "{url} would not take a message for {what}: {code} {text}"
                ))
                .losing("its events wait in the journal, or become dead letters")
                .trying("what the broker says"),
            ),
            Permitted::Blocked => Some(blocked(url, "an alarm")),
            Permitted::Unknown(why) => Some(Line::warning(format!(
                "whether {url} would take a message for {what} could not be found out: {why}"
            ))),
        });
    }
    lines
}

fn blocked(url: &BrokerUrl, reason: &str) -> Line {
    Line::error(format!("{url} takes no messages at the moment: {reason}"))
        .losing("events wait in the journal until it is over")
        .trying("free what the broker lacks; `rabbitmq-diagnostics alarms` says what")
}

fn lines(status: &BrokerStatus, declares: bool, url: &BrokerUrl) -> Vec<Line> {
    let reason = status.reason.as_deref().unwrap_or("no answer in time");
    let advice = |usual: &str| status.advice.clone().unwrap_or_else(|| usual.to_owned());
    match status.state {
        BrokerState::Connecting => {
            return vec![
                Line::error(format!("{url} cannot be reached: {reason}"))
                    .losing("events would wait in the journal")
                    .trying(advice(
                        "is it up, and is this its address (`rabbitmq.urls`)?",
                    )),
            ];
        }
        BrokerState::Refused => {
            return vec![
                Line::error(format!("{url} refuses: {reason}"))
                    .losing("events would wait in the journal")
                    .trying(advice("look at user, password and vhost: `rabbitmqctl list_vhosts`, `rabbitmqctl list_permissions -p VHOST`, `rabbitmqctl authenticate_user USER`")),
            ];
        }
        BrokerState::Connected | BrokerState::Blocked => {}
    }
    let mut lines = of_topology(&status.findings, declares);
    if status.state == BrokerState::Blocked {
        lines.push(blocked(url, reason));
    }
    lines
}

/// What `serve` will declare is one line, however much it is.
fn of_topology(findings: &[String], declares: bool) -> Vec<Line> {
    let missing = |finding: &String| finding.strip_suffix(" is missing").map(ToOwned::to_owned);
    let to_declare: Vec<_> = findings
        .iter()
        .filter(|_| declares)
        .filter_map(missing)
        .collect();
    let mut lines = Vec::new();
    if !to_declare.is_empty() {
        let (are, them) = match to_declare.len() {
            1 => ("is", "it"),
            _ => ("are", "them"),
        };
        lines.push(
            Line::warning(format!(
                "{} {are} missing; `serve` declares {them} when it starts, after a reconnect, or on SIGHUP",
                to_declare.join(", ")
            ))
            .losing("until then what it is for goes elsewhere, or waits")
            .trying(DECLARE),
        );
    }
    let others = findings
        .iter()
        .filter(|finding| !(declares && missing(finding).is_some()));
    lines.extend(others.map(|finding| {
        let line = Line::error(finding);
        if missing(finding).is_some() {
            line.losing(
                "with rabbitmq.topology = \"verify\" its events wait until somebody declares it",
            )
            .trying("declare it, or `rabbitmq.topology = \"declare\"`")
        } else {
            line.losing("what it is for may not arrive").trying(
                "what the broker says; `rabbitmqctl list_permissions -p VHOST` if it denies access",
            )
        }
    }));
    lines
}
