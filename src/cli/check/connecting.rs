//! Connects as `serve` would: to the first broker that takes us, with as many connections and
//! channels as it opens.

use std::time::Duration;

use deskbridge::config::Config;
use deskbridge::forwarder::flow::channels_max;
use deskbridge::rabbitmq::Settings;
use deskbridge::rabbitmq::connection::ConnectError;
use deskbridge::rabbitmq::inspection::{Inspector, Shortage, look_for_room};
use deskbridge::rabbitmq::url::BrokerUrl;

use super::case;
use super::finding::{Finding, Subject, quoted};

/// Channels without which nothing is published: one to declare, one to count, one to publish.
const CHANNELS_MIN: usize = 3;
/// Channels of the connection that probes one route: one to look, one to publish.
const CHANNELS_OF_PROBE: usize = 2;
/// Channels for each queue with a `retry_delay`: to inspect it, to consume, and to publish.
const CHANNELS_OF_RETRY: usize = 6;
/// A broker learns a moment later that a connection has gone.
const AGAIN: Duration = Duration::from_millis(400);
/// Looks for room, until there is some.
const LOOKS_MAX: usize = 3;

/// Who takes us.
pub struct Connected<'a> {
    /// That broker, or the first of them if none does.
    pub url: &'a BrokerUrl,
    /// A connection to it.
    pub inspector: Option<Inspector>,
}

/// The first broker that takes us, what is wrong with it and with those before it; or with all.
pub async fn connect<'a>(
    settings: &'a Settings,
    config: &Config,
    is_running: bool,
    findings: &mut Vec<Finding>,
) -> Connected<'a> {
    let needed = needed(config);
    let mut failed = Vec::new();
    for url in &settings.urls {
        let error = match Inspector::connect(settings, url).await {
            Ok(inspector) => {
                let passed = failed.into_iter().map(|finding: Finding| {
                    finding.unused().losing(
                        "a broker less to go to; `serve` goes on to the next of `rabbitmq.urls`",
                    )
                });
                findings.extend(passed);
                let inspector = if is_running {
                    Some(inspector)
                } else {
                    room(inspector, settings, url, &needed, findings).await
                };
                return Connected { url, inspector };
            }
            Err(error) => error,
        };
        failed.push(if is_running && is_limit(&error.reason()) {
            taken(url, &error.reason())
        } else {
            refusal(url, &error, needed.len())
        });
    }
    let failed = failed
        .into_iter()
        .map(|finding| finding.about([Subject::Broker]));
    findings.extend(failed);
    Connected {
        url: &settings.urls[0],
        inspector: None,
    }
}

/// Connections that `serve` opens, and the channels of each when everything is busy.
fn needed(config: &Config) -> Vec<usize> {
    let routes = case::statuses(config).len() + 1;
    let mut needed = vec![2 + channels_max(routes), CHANNELS_OF_PROBE];
    let retried = config
        .queues
        .iter()
        .filter(|queue| queue.retry_delay.is_some())
        .count();
    if retried > 0 {
        needed.push(retried * CHANNELS_OF_RETRY);
    }
    needed
}

async fn room(
    first: Inspector,
    settings: &Settings,
    url: &BrokerUrl,
    needed: &[usize],
    findings: &mut Vec<Finding>,
) -> Option<Inspector> {
    first.close().await;
    let mut shortage = look_for_room(settings, url, needed).await;
    for _ in 1..LOOKS_MAX {
        if shortage.is_none() {
            break;
        }
        tokio::time::sleep(AGAIN).await;
        shortage = look_for_room(settings, url, needed).await;
    }
    let is_enough = shortage.as_ref().is_none_or(is_enough);
    findings.extend(shortage.map(|shortage| explain(&shortage, url, needed)));
    if !is_enough {
        return None;
    }
    let mut again = Inspector::connect(settings, url).await;
    if again.is_err() {
        tokio::time::sleep(AGAIN).await;
        again = Inspector::connect(settings, url).await;
    }
    match again {
        Ok(inspector) => Some(inspector),
        Err(error) => {
            let finding = refusal(url, &error, needed.len());
            findings.push(finding.about([Subject::Broker]).leaving_unseen());
            None
        }
    }
}

/// Whether something is published nevertheless.
fn is_enough(shortage: &Shortage) -> bool {
    let channels = limit(&shortage.reason).or(shortage.channels);
    shortage.channels.is_some() && channels >= Some(CHANNELS_MIN)
}

fn explain(shortage: &Shortage, url: &BrokerUrl, needed: &[usize]) -> Finding {
    let reason = &shortage.reason;
    if shortage.channels.is_none() {
        return no_room(url, needed.len(), reason);
    }
    let channels: usize = needed.iter().sum();
    let problem =
        format!("{url} has no room for the {channels} channels that `serve` may need: {reason}");
    let finding = if is_enough(shortage) {
        Finding::warning(problem)
            .losing("its connection, again and again, as soon as several routes are busy: events wait in the journal")
    } else {
        Finding::error(problem)
            .losing("its connection as soon as it publishes: events wait in the journal")
            .about([Subject::Broker])
            .leaving_unseen()
    };
    finding.trying(raise(url, "max-channels", channels))
}

fn no_room(url: &BrokerUrl, connections: usize, reason: &str) -> Finding {
    let connections = connections.max(2);
    Finding::error(format!(
        "{url} has no room for the {connections} connections that `serve` opens: {reason}"
    ))
    .losing("events wait in the journal, those of a stuck route for as long as it lasts")
    .trying(raise(url, "max-connections", connections))
    .about([Subject::Broker])
    .leaving_unseen()
}

fn raise(url: &BrokerUrl, limit: &str, least: usize) -> String {
    format!(
        "`rabbitmqctl list_vhost_limits -p {}` and `rabbitmqctl list_user_limits --user {}` show the limits; `{limit}` at {least} or more",
        quoted(url.vhost()),
        quoted(url.credentials().0)
    )
}

/// The bridge has the connections that there are.
fn taken(url: &BrokerUrl, reason: &str) -> Finding {
    Finding::warning(format!("{url} has no room for the connection of `check`: {reason}"))
        .losing("nothing while the bridge keeps its connections; its exchanges and queues were not looked at")
        .trying(raise(url, "max-connections", 3))
        .leaving_unseen()
}

fn refusal(url: &BrokerUrl, error: &ConnectError, connections: usize) -> Finding {
    let reason = error.reason();
    if is_limit(&reason) {
        return no_room(url, connections, &reason);
    }
    let advice = |usual: &str| error.advice().unwrap_or_else(|| usual.to_owned());
    let finding = if error.is_refusal() {
        Finding::error(format!("{url} refuses: {reason}"))
            .trying(advice("look at user, password and vhost: `rabbitmqctl list_vhosts`, `rabbitmqctl list_permissions -p VHOST`, `rabbitmqctl authenticate_user USER`"))
            .because([Subject::Certificate])
    } else {
        Finding::error(format!("{url} cannot be reached: {reason}")).trying(advice(
            "is it up, and is this its address (`rabbitmq.urls`)?",
        ))
    };
    finding.losing("events would wait in the journal")
}

/// `connection limit (1) is reached`, `maximum allowed user limit of (2)`
fn is_limit(reason: &str) -> bool {
    reason.contains(" limit ")
}

fn limit(reason: &str) -> Option<usize> {
    let (_, after) = reason.rsplit_once('(')?;
    after.split_once(')')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(connections: usize, channels: Option<usize>, reason: &str) -> String {
        let url = BrokerUrl::parse("amqp://u:p@rabbit/v").unwrap();
        let shortage = Shortage {
            connections,
            channels,
            reason: reason.into(),
        };
        explain(&shortage, &url, &[23, 2]).to_string()
    }

    #[test]
    fn a_limit_is_an_error_where_nothing_is_published() {
        let few = "number of channels opened for user 'u' has reached the maximum allowed user limit of (2)";
        let enough = few.replace("(2)", "(10)");
        // How many were opened before the broker noticed does not matter.
        for opened in [1, 4] {
            let shown = shown(1, Some(opened), few);
            assert!(shown.starts_with("error: "), "{shown}");
        }
        assert!(shown(1, Some(9), &enough).starts_with("warning: "));
        assert!(shown(1, Some(2), "no more channels").starts_with("error: "));
        let refused = shown(1, None, "connection limit (1) is reached");
        assert!(
            refused.contains("no room for the 2 connections"),
            "{refused}"
        );
    }

    #[test]
    fn what_serve_opens_follows_the_configuration() {
        let mut config = Config::default();
        assert_eq!(needed(&config), [2 + 21, 2]);
        config.queues.push(deskbridge::config::queues::Queue {
            retry_delay: Some(Duration::from_secs(1)),
            ..deskbridge::config::queues::Queue::default()
        });
        assert_eq!(needed(&config), [2 + 21, 2, 6]);
    }
}
