//! Connects as `serve` would: to the first broker that accepts the connection. Checks that it has
//! room for all connections and channels that `serve` opens.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable};

use super::finding::{Finding, Findings, Severity, Subject};
use super::input::statuses;
use super::remedy::quoted;
use crate::config::Config;
use crate::rabbitmq::connection::ConnectError;
use crate::rabbitmq::inspection::{Inspector, Shortage, check_capacity};
use crate::rabbitmq::url::BrokerUrl;
use crate::rabbitmq::{ConnectConfig, channels_max};

/// Minimum number of channels to publish at all: one to declare, one to count, one to publish.
const CHANNELS_MIN: usize = 3;
/// Channels of the connection that probes one route: one to inspect, one to publish.
const CHANNELS_OF_PROBE: usize = 2;
/// Channels of the connection that each queue with a `retry_delay` has: for inspecting it, consuming
/// and publishing.
const CHANNELS_OF_RETRY: usize = 6;
/// Pause before another attempt: a broker notices the end of a connection with a delay.
const AGAIN: Duration = Duration::from_millis(400);
/// Maximum number of attempts to find room.
const LOOKS_MAX: usize = 3;

/// Connects to the first broker that accepts the connection; the first broker without a connection
/// if none does. Adds findings about it and about those tried before it.
pub async fn connect<'a>(
    settings: &'a ConnectConfig,
    config: &Config,
    is_running: bool,
    list: &mut Findings,
) -> (&'a BrokerUrl, Option<Inspector>) {
    let needed = needed(config);
    let (mut refused, mut connected) = (Vec::new(), None);
    for url in &settings.urls {
        match Inspector::connect(settings, url).await {
            Ok(inspector) => {
                connected = Some((url, inspector));
                break;
            }
            Err(error) => refused.push((url, error)),
        }
    }
    for (url, error) in refused {
        let finding = refusal(url, &error, is_running, needed.len(), list);
        if connected.is_some() {
            finding.severity = Severity::Warning;
            finding.impact(
                "one broker less to fail over to; `serve` goes on to the next of `rabbitmq.urls`",
            );
        } else {
            finding.about([Subject::Broker]);
        }
    }
    match connected {
        None => (&settings.urls[0], None),
        Some((url, inspector)) if is_running => (url, Some(inspector)),
        Some((url, inspector)) => (url, room(inspector, settings, url, &needed, list).await),
    }
}

/// The connections that `serve` opens, each with its maximum number of channels.
fn needed(config: &Config) -> Vec<usize> {
    let routes = statuses(config).len() + 1;
    let queues = config.queues.iter();
    let retried = queues.filter(|queue| queue.retry_delay.is_some());
    let links = [2 + channels_max(routes), CHANNELS_OF_PROBE];
    // A queue opens a second connection only for messages with very large headers.
    let of_retries = retried.map(|_| CHANNELS_OF_RETRY);
    links.into_iter().chain(of_retries).collect()
}

async fn room(
    first: Inspector,
    settings: &ConnectConfig,
    url: &BrokerUrl,
    needed: &[usize],
    list: &mut Findings,
) -> Option<Inspector> {
    first.close().await;
    let again = ConstantBuilder::new().with_delay(AGAIN);
    let room = (|| check_capacity(settings, url, needed))
        .retry(again.with_max_times(LOOKS_MAX - 1))
        .sleep(tokio::time::sleep);
    if let Err(shortage) = room.await {
        explain(&shortage, url, needed, list);
        if !is_enough(&shortage) {
            return None;
        }
    }
    let connecting = (|| Inspector::connect(settings, url))
        .retry(again.with_max_times(1))
        .sleep(tokio::time::sleep);
    let refuse = |error| {
        let finding = refusal(url, &error, false, needed.len(), list);
        finding.about([Subject::Broker]).not_inspected();
    };
    connecting.await.map_err(refuse).ok()
}

/// Whether `serve` can publish despite the shortage.
fn is_enough(shortage: &Shortage) -> bool {
    let channels = limit(&shortage.reason).or(shortage.channels);
    shortage.channels.is_some() && channels >= Some(CHANNELS_MIN)
}

fn explain(shortage: &Shortage, url: &BrokerUrl, needed: &[usize], list: &mut Findings) {
    let reason = &shortage.reason;
    if shortage.channels.is_none() {
        no_room(url, needed.len(), reason, list);
        return;
    }
    let channels: usize = needed.iter().sum();
    let problem =
        format!("{url} has no room for the {channels} channels that `serve` may need: {reason}");
    let finding = if is_enough(shortage) {
        list.warning(problem)
            .impact("the broker closes its connection repeatedly as soon as several routes are busy: events wait in the journal")
    } else {
        list.error(problem)
            .impact("the broker closes its connection as soon as it publishes: events wait in the journal")
            .about([Subject::Broker])
            .not_inspected()
    };
    finding.fix(raise(url, "max-channels", channels));
}

fn no_room<'l>(
    url: &BrokerUrl,
    connections: usize,
    reason: &str,
    list: &'l mut Findings,
) -> &'l mut Finding {
    let connections = connections.max(2);
    list.error(format!(
        "{url} has no room for the {connections} connections that `serve` opens: {reason}"
    ))
    .impact("events wait in the journal, those of a stalled route until there is room")
    .fix(raise(url, "max-connections", connections))
    .about([Subject::Broker])
    .not_inspected()
}

fn raise(url: &BrokerUrl, limit: &str, least: usize) -> String {
    let (vhost, user) = (quoted(url.vhost()), quoted(url.credentials().0));
    format!(
        "`rabbitmqctl list_vhost_limits -p {vhost}` and `rabbitmqctl list_user_limits --user {user}` show the limits; set `{limit}` to {least} or more"
    )
}

fn refusal<'l>(
    url: &BrokerUrl,
    error: &ConnectError,
    is_running: bool,
    connections: usize,
    list: &'l mut Findings,
) -> &'l mut Finding {
    let reason = error.reason();
    let advice = |usual: &str| error.advice().unwrap_or_else(|| usual.to_owned());
    let finding = if is_limit(&reason) && is_running {
        // The running bridge uses all connections that the limit allows.
        return list
            .warning(format!("{url} has no room for the connection of `check`: {reason}"))
            .impact("nothing while the bridge keeps its connections; exchanges and queues were not inspected")
            .fix(raise(url, "max-connections", 3))
            .not_inspected();
    } else if is_limit(&reason) {
        return no_room(url, connections, &reason, list);
    } else if error.is_refusal() {
        list.error(format!("{url} refuses: {reason}"))
            .fix(advice("check user, password and vhost: `rabbitmqctl list_vhosts`, `rabbitmqctl list_permissions -p VHOST`, `rabbitmqctl authenticate_user USER`"))
            .because([Subject::Certificate])
    } else {
        list.error(format!("{url} cannot be reached: {reason}"))
            .fix(advice(
                "start the broker, or correct its address (`rabbitmq.urls`)",
            ))
    };
    finding.impact("events would wait in the journal")
}

/// Whether the reason names a limit, such as `connection limit (1) is reached` or
/// `maximum allowed user limit of (2)`.
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
    use crate::config::queues::QueueConfig;

    #[track_caller]
    fn check(channels: Option<usize>, reason: &str, expected: &str) {
        let url = BrokerUrl::parse("amqp://u:p@rabbit/v").unwrap();
        let reason = reason.into();
        let mut list = Findings::default();
        explain(&Shortage { channels, reason }, &url, &[23, 2], &mut list);
        list.begin_with(&[expected]);
    }

    #[test]
    fn limit_is_an_error_if_nothing_can_be_published() {
        let few = "number of channels opened for user 'u' has reached the maximum allowed user limit of (2)";
        // The number of channels opened before the broker noticed does not matter.
        for opened in [1, 4] {
            check(Some(opened), few, "error: ");
        }
        check(Some(9), &few.replace("(2)", "(10)"), "warning: ");
        check(Some(2), "no more channels", "error: ");
        let refused = "error: amqp://rabbit:5672/v has no room for the 2 connections";
        check(None, "connection limit (1) is reached", refused);
    }

    #[test]
    fn connections_needed_follow_the_configuration() {
        let mut config = Config::default();
        assert_eq!(needed(&config), [2 + 21, 2]);
        let retried = QueueConfig {
            retry_delay: Some(Duration::from_secs(1)),
            ..QueueConfig::default()
        };
        config.queues = vec![retried.clone(), QueueConfig::default()];
        assert_eq!(needed(&config), [2 + 21, 2, 6]);
        config.queues.push(retried);
        assert_eq!(needed(&config), [2 + 21, 2, 6, 6]);
    }
}
