//! The module `rabbitmq` under test, with verbs: publish a window, wait for a report.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deskbridge::config::Config;
use deskbridge::config::sources::Secret;
use deskbridge::rabbitmq::{
    self, ConnectConfig, Link, Outcome, PublishWindow, Publisher, PublisherEvent,
};
use deskbridge::telemetry::status::{BrokerState, BrokerStatus};
use deskbridge::webhook::message::{Header, Message};
use deskbridge::webhook::routing::Route;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::wait::SOON;

/// A running publisher and everything it has reported.
pub struct Harness {
    pub publisher: Publisher,
    pub status: watch::Receiver<BrokerStatus>,
    pub shutdown: CancellationToken,
    pub ended: JoinHandle<()>,
    reports: mpsc::Receiver<PublisherEvent>,
    done: HashMap<u64, Vec<Outcome>>,
    next_id: u64,
}

/// The default configuration with quick reconnects.
pub fn config(urls: &[&str]) -> Config {
    let mut config = Config::default();
    config.rabbitmq.urls = urls.iter().map(|url| Secret::new(*url)).collect();
    config.rabbitmq.reconnect_delay_min = Duration::from_millis(50);
    config.rabbitmq.reconnect_delay_max = Duration::from_millis(500);
    config
}

pub fn message(exchange: &str, routing_key: &str, body: &str) -> Message {
    Message {
        route: Arc::new(Route {
            exchange: exchange.into(),
            routing_key: routing_key.into(),
        }),
        message_id: Uuid::new_v4(),
        correlation_id: Some("session-1".into()),
        message_type: "chat-session.completed".into(),
        timestamp_seconds: 1_700_000_000,
        headers: vec![
            ("source", Header::Text("acme".into())),
            ("webhook-index", Header::Integer(3)),
        ],
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

pub fn messages(exchange: &str, routing_key: &str, count: usize) -> Vec<Message> {
    (0..count)
        .map(|n| message(exchange, routing_key, &format!("{{\"n\":{n}}}")))
        .collect()
}

impl Harness {
    /// Starts and waits until the main connection is up.
    pub async fn up(config: &Config) -> Self {
        let mut harness = Self::start(config);
        harness.comes_up(Link::Main).await;
        harness
    }

    pub fn start(config: &Config) -> Self {
        let settings = ConnectConfig::from_config(config).unwrap();
        let (sender, reports) = mpsc::channel(64);
        let shutdown = CancellationToken::new();
        let (publisher, status, ended) = rabbitmq::start(settings, sender, shutdown.clone());
        Self {
            publisher,
            status,
            shutdown,
            ended,
            reports,
            done: HashMap::new(),
            next_id: 0,
        }
    }

    /// Submits a window without waiting for it.
    pub fn submit(&mut self, link: Link, ensure_exchange: bool, messages: Vec<Message>) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        self.publisher.publish(PublishWindow {
            id,
            link,
            ensure_exchange,
            messages: messages.into_iter().map(Into::into).collect(),
        });
        id
    }

    /// Publishes on the main connection and waits for the outcomes.
    pub async fn publish(&mut self, messages: Vec<Message>) -> Vec<Outcome> {
        let id = self.submit(Link::Main, false, messages);
        self.done(id).await
    }

    /// Waits for the outcomes of a window.
    pub async fn done(&mut self, id: u64) -> Vec<Outcome> {
        loop {
            if let Some(outcomes) = self.done.remove(&id) {
                return outcomes;
            }
            self.next_report("done").await;
        }
    }

    /// Waits until this connection is up.
    pub async fn comes_up(&mut self, link: Link) {
        self.reported(
            "up",
            |report| matches!(report, PublisherEvent::Up(up) if *up == link),
        )
        .await;
    }

    /// Waits until this connection is lost.
    pub async fn goes_down(&mut self, link: Link) {
        self.reported(
            "down",
            |report| matches!(report, PublisherEvent::Down(down) if *down == link),
        )
        .await;
    }

    /// Waits for this report; all earlier reports are consumed.
    pub async fn reported(&mut self, what: &str, is_it: impl Fn(&PublisherEvent) -> bool) {
        while !is_it(&self.next_report(what).await) {}
    }

    /// The next report; outcomes are stored for [`Harness::done`].
    pub async fn next_report(&mut self, what: &str) -> PublisherEvent {
        let report = tokio::time::timeout(SOON, self.reports.recv()).await;
        let report =
            report.unwrap_or_else(|_| panic!("waited {SOON:?} in vain for the report {what}"));
        let report = report.expect("the harness runs");
        if let PublisherEvent::Done(id, outcomes) = &report {
            self.done.insert(*id, outcomes.clone());
        }
        report
    }

    /// Whether nothing is reported for this time.
    pub async fn is_silent_for(&mut self, quiet: Duration) -> bool {
        tokio::time::timeout(quiet, self.reports.recv())
            .await
            .is_err()
    }

    /// Waits until the status satisfies this condition.
    pub async fn status_is(
        &mut self,
        what: &str,
        is_it: impl Fn(&BrokerStatus) -> bool,
    ) -> BrokerStatus {
        let waiting = self.status.wait_for(|status| is_it(status));
        if let Ok(status) = tokio::time::timeout(SOON, waiting).await {
            return status.expect("the harness runs").clone();
        }
        panic!(
            "waited {SOON:?} in vain until {what}: {:?}",
            self.status.borrow()
        );
    }

    pub async fn state_is(&mut self, state: BrokerState) -> BrokerStatus {
        self.status_is(&format!("the state is {state:?}"), |status| {
            status.state == state
        })
        .await
    }
}

pub fn all_delivered(outcomes: &[Outcome]) -> bool {
    outcomes
        .iter()
        .all(|outcome| *outcome == Outcome::Delivered)
}
