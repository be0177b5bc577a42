//! Publishes items over a connection, window by window, and says which outcome each has.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::items::{Item, window};
use crate::config::Config;
use crate::rabbitmq::{
    self, ConnectConfig, Link, Outcome, PublishWindow, Publisher, PublisherEvent, RefusalKind,
};
use crate::telemetry::status::{BrokerState, BrokerStatus};
use crate::webhook::routing::Route;

/// Limits of items that were added and are not yet published: their number, and the bytes of their
/// bodies.
const WAITING_ITEMS_MAX: usize = 4096;
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Maximum number of windows in flight.
const WINDOWS_MAX: usize = 4;
/// Maximum number of messages in flight in a strict delivery.
const STRICT_MESSAGES_MAX: usize = 64;
/// How often the connection may be lost.
const LOSSES_MAX: u32 = 10;
/// How long to wait for a reconnect after the connection was lost.
const BROKER_PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for the outcomes of windows in flight when a delivery ends early.
const PARTING: Duration = Duration::from_secs(2);
/// Added to the connect timeouts of all URLs; also the time limit for closing the connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// What has happened in a delivery.
#[derive(Debug)]
pub enum Step<T> {
    /// These items have an outcome, which is never [`Outcome::Unknown`].
    Done(Vec<(T, Outcome)>),
    /// The broker accepts no messages because of an alarm. Another call of
    /// [`Delivery::next`] waits until it does; a replay of dead letters gives up instead.
    Blocked,
    /// The connection was lost too often, or did not come back within 30 s.
    BrokerAway,
    /// The broker confirmed nothing for `confirm_timeout`.
    Unconfirmed,
}

/// Publishes items; those with the same key one after the other, the others together. A strict
/// delivery publishes all items in their order, one window at a time, and ends when the connection
/// is lost.
pub struct Delivery<T> {
    publisher: Publisher,
    reports: mpsc::Receiver<PublisherEvent>,
    status: watch::Receiver<BrokerStatus>,
    stop: CancellationToken,
    links: JoinHandle<()>,
    is_strict: bool,
    windows_max: usize,
    /// Limits of a window.
    messages_max: usize,
    bytes_max: usize,
    confirm_timeout: Duration,
    waiting: VecDeque<Item<T>>,
    windows: HashMap<u64, Vec<Item<T>>>,
    windows_begun: u64,
    done: Vec<(T, Outcome)>,
    /// Exchanges that have taken a message of this delivery since they last refused one.
    accepting: HashSet<Arc<str>>,
    /// Routes that are missing or forbidden, with the broker's answer.
    closed: HashMap<Arc<Route>, Outcome>,
    is_up: bool,
    is_blocked: bool,
    losses: u32,
    /// When to give up. Every report of the publisher sets it again.
    deadline: Instant,
}

impl<T> Delivery<T> {
    /// Connects to one of the brokers.
    ///
    /// # Errors
    /// If no broker accepts the connection in time; says why.
    pub async fn open(
        settings: ConnectConfig,
        config: &Config,
        is_strict: bool,
    ) -> Result<Self, String> {
        let attempts = u32::try_from(settings.urls.len()).unwrap_or(u32::MAX);
        let patience = settings.connect_timeout.saturating_mul(attempts) + CONNECT_PATIENCE;
        let (sender, reports) = mpsc::channel(256);
        let stop = CancellationToken::new();
        let (publisher, mut status, links) = rabbitmq::start(settings, sender, stop.clone());
        let is_decided = |status: &BrokerStatus| {
            // With several brokers, one failure decides nothing: each is tried until the timeout.
            is_up(status) || status.reason.is_some() && attempts == 1
        };
        drop(timeout(patience, status.wait_for(is_decided)).await);
        let found = status.borrow().clone();
        let rabbitmq = &config.rabbitmq;
        let bytes_max = usize::try_from(rabbitmq.in_flight_bytes_max).unwrap_or(usize::MAX);
        let (windows_max, messages_max) = if is_strict {
            (1, rabbitmq.in_flight_max.min(STRICT_MESSAGES_MAX))
        } else {
            (WINDOWS_MAX, (rabbitmq.in_flight_max / WINDOWS_MAX).max(1))
        };
        let delivery = Self {
            publisher,
            reports,
            status,
            stop,
            links,
            is_strict,
            windows_max,
            messages_max,
            bytes_max: bytes_max / windows_max,
            confirm_timeout: rabbitmq.confirm_timeout,
            waiting: VecDeque::new(),
            windows: HashMap::new(),
            windows_begun: 0,
            done: Vec::new(),
            accepting: HashSet::new(),
            closed: HashMap::new(),
            is_up: false,
            is_blocked: false,
            losses: 0,
            deadline: Instant::now() + BROKER_PATIENCE,
        };
        if is_up(&found) {
            return Ok(delivery);
        }
        delivery.close().await;
        let url = found.url.as_deref().unwrap_or("the broker");
        let reason = found.reason.as_deref().unwrap_or("no answer in time");
        Err(format!("{url}: {reason}"))
    }

    /// What is wrong with the topology that was declared or verified.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        self.status.borrow().findings.clone()
    }

    /// Why the connection was lost last.
    #[must_use]
    pub fn reason(&self) -> String {
        let reason = self.status.borrow().reason.clone();
        reason.unwrap_or_else(|| "the connection to the broker was lost".into())
    }

    /// Closes the connection properly, within 2 s.
    pub async fn close(self) {
        drop(self.reports);
        self.stop.cancel();
        let _ = timeout(CONNECT_PATIENCE, self.links).await;
    }

    /// Adds an item behind the others.
    pub fn add(&mut self, item: Item<T>) {
        self.waiting.push_back(item);
    }

    /// Drops the items that were not published yet.
    pub fn drop_waiting(&mut self) {
        self.waiting.retain(|item| item.is_in_doubt);
    }

    /// Whether more items should be added.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let bodies = self.waiting.iter().map(|item| item.message.body().len());
        self.waiting.len() < WAITING_ITEMS_MAX && bodies.sum::<usize>() < WAITING_BYTES_MAX
    }

    /// Whether all items have an outcome, and [`Delivery::next`] has returned it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.windows.is_empty() && self.done.is_empty()
    }

    /// Publishes what it can and waits until something has happened. Cancel safe.
    pub async fn next(&mut self) -> Step<T> {
        loop {
            self.start_windows();
            if !self.done.is_empty() {
                return Step::Done(std::mem::take(&mut self.done));
            }
            let losses_max = if self.is_strict { 0 } else { LOSSES_MAX };
            if self.losses > losses_max {
                return Step::BrokerAway;
            }
            let was_blocked = self.is_blocked;
            let is_waiting = !self.is_up || !self.windows.is_empty();
            tokio::select! {
                biased;
                report = self.reports.recv() => match report {
                    Some(report) => self.note(report),
                    None => return Step::BrokerAway,
                },
                () = sleep_until(self.deadline), if is_waiting && !self.is_blocked => {
                    return if self.is_up { Step::Unconfirmed } else { Step::BrokerAway };
                }
            }
            if self.is_blocked && !was_blocked {
                return Step::Blocked;
            }
        }
    }

    /// Publishes nothing new, and waits up to 2 s for the outcomes of what is in flight.
    pub async fn finish(&mut self) -> Vec<(T, Outcome)> {
        let until = Instant::now() + PARTING;
        while !self.windows.is_empty() && self.is_up {
            let report = timeout_at(until, self.reports.recv()).await;
            let Ok(Some(report)) = report else { break };
            self.note(report);
        }
        std::mem::take(&mut self.done)
    }

    /// Number of messages that were published without a known outcome.
    pub fn in_doubt(&self) -> usize {
        let in_flight: usize = self.windows.values().map(Vec::len).sum();
        in_flight + self.waiting.iter().filter(|item| item.is_in_doubt).count()
    }

    fn start_windows(&mut self) {
        while self.is_up && !self.is_blocked && self.windows.len() < self.windows_max {
            let in_flight = || self.windows.values().flatten();
            // After the broker has closed a channel, lapin may still send messages of the window,
            // and the broker closes the connection then. So an exchange first gets one message, and
            // the others when that one has an outcome.
            let messages_max = |exchange: &Arc<str>| {
                if self.accepting.contains(exchange) {
                    return self.messages_max;
                }
                let mut exchanges = in_flight().map(|item| &item.message.route().exchange);
                usize::from(!exchanges.any(|one| one == exchange))
            };
            let busy = in_flight().filter_map(|item| item.key.clone()).collect();
            let (bytes_max, is_strict) = (self.bytes_max, self.is_strict);
            let waiting = &mut self.waiting;
            let window = window(waiting, busy, messages_max, bytes_max, is_strict);
            if window.is_empty() {
                return;
            }
            let mut items = Vec::with_capacity(window.len());
            for item in window {
                match self.closed.get(item.message.route()) {
                    Some(outcome) => self.done.push((item.token, outcome.clone())),
                    None => items.push(item),
                }
            }
            if items.is_empty() {
                continue;
            }
            if self.windows.is_empty() {
                self.deadline = Instant::now() + self.confirm_timeout;
            }
            self.windows_begun += 1;
            self.publisher.publish(PublishWindow {
                id: self.windows_begun,
                link: Link::Main,
                ensure_exchange: false,
                messages: items.iter().map(|item| item.message.clone()).collect(),
            });
            self.windows.insert(self.windows_begun, items);
        }
    }

    fn note(&mut self, report: PublisherEvent) {
        self.deadline = Instant::now() + self.confirm_timeout;
        match report {
            PublisherEvent::Up(_) => {
                self.is_up = true;
                self.is_blocked = false;
            }
            PublisherEvent::Down(_) => {
                self.is_up = false;
                self.is_blocked = false;
                self.losses += 1;
                self.deadline = Instant::now() + BROKER_PATIENCE;
            }
            PublisherEvent::Blocked(_) => self.is_blocked = true,
            PublisherEvent::Unblocked(_) => self.is_blocked = false,
            PublisherEvent::Progress(_) => {}
            PublisherEvent::Done(id, outcomes) => self.done(id, outcomes),
        }
    }

    fn done(&mut self, id: u64, outcomes: Vec<Outcome>) {
        let items = self.windows.remove(&id).unwrap_or_default();
        let is_single = items.len() == 1;
        let mut again = Vec::new();
        for (mut item, outcome) in items.into_iter().zip(outcomes) {
            let route = Arc::clone(item.message.route());
            match &outcome {
                Outcome::ChannelClosed { kind, .. } => {
                    self.accepting.remove(&route.exchange);
                    if !is_single {
                        // One of the messages was refused. Publishing each alone shows which one.
                        item.is_alone = true;
                        item.is_in_doubt = true;
                        again.push(item);
                        continue;
                    }
                    if matches!(kind, RefusalKind::RouteMissing | RefusalKind::Forbidden) {
                        self.closed.insert(route, outcome.clone());
                    }
                }
                Outcome::Unknown => {
                    // The connection is lost, which is reported next.
                    self.is_up = false;
                    item.is_in_doubt = true;
                    again.push(item);
                    continue;
                }
                Outcome::Delivered | Outcome::Returned(_) | Outcome::Nacked => {
                    self.accepting.insert(Arc::clone(&route.exchange));
                }
            }
            self.done.push((item.token, outcome));
        }
        for item in again.into_iter().rev() {
            self.waiting.push_front(item);
        }
    }
}

fn is_up(status: &BrokerStatus) -> bool {
    matches!(status.state, BrokerState::Connected | BrokerState::Blocked)
}
