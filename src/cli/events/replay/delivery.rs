//! Publishes what is fed to it, window by window, over a connection of its own, until everything
//! has an outcome, somebody interrupts it, or the broker does not come back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use deskbridge::config::Config;
use deskbridge::journal::TakeError;
use deskbridge::rabbitmq::{self, Link, Outcome, Publisher, Report, Settings, Window};
use deskbridge::telemetry::status::{BrokerState, BrokerStatus};
use indicatif::ProgressBar;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::feed::Fed;
use super::lanes::{Item, Lanes};
use super::tally::{Ended, Tally};
use crate::cli::output::say;

/// Events read and not yet published, and their bodies.
const LANES_EVENTS_MAX: usize = 4096;
const LANES_BYTES_MAX: usize = 16 << 20;
/// Windows outstanding at a time.
const WINDOWS_MAX: usize = 4;
/// How long to wait for a broker that has gone away meanwhile.
const BROKER_PATIENCE: Duration = Duration::from_secs(30);
/// How often it may go away.
const LOSSES_MAX: u32 = 10;
/// How long what is outstanding may take after an interruption.
const PARTING: Duration = Duration::from_secs(2);
/// Beyond the connect timeouts of all URLs.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// The exchange is missing, or we may not use it.
const CLOSING: [u16; 2] = [403, 404];

/// A connection that publishes.
pub struct Connection {
    publisher: Publisher,
    reports: mpsc::Receiver<Report>,
    status: watch::Receiver<BrokerStatus>,
    stop: CancellationToken,
    links: JoinHandle<()>,
}

impl Connection {
    /// Connects, to any of the brokers.
    ///
    /// # Errors
    /// Why no broker takes us.
    pub async fn open(settings: Settings) -> Result<Self, String> {
        let attempts = u32::try_from(settings.urls.len()).unwrap_or(u32::MAX);
        let patience = settings.connect_timeout.saturating_mul(attempts) + CONNECT_PATIENCE;
        let (sender, reports) = mpsc::channel(256);
        let stop = CancellationToken::new();
        let (publisher, mut status, links) = rabbitmq::start(settings, sender, stop.clone());
        let is_decided = |status: &BrokerStatus| {
            // With several brokers, each has its turn until the time is over.
            is_up(status) || status.reason.is_some() && attempts == 1
        };
        let decided = timeout(patience, status.wait_for(is_decided)).await;
        drop(decided);
        let found = status.borrow().clone();
        let connection = Self {
            publisher,
            reports,
            status,
            stop,
            links,
        };
        if is_up(&found) {
            return Ok(connection);
        }
        connection.close().await;
        let url = found.url.as_deref().unwrap_or("the broker");
        let reason = found.reason.as_deref().unwrap_or("no answer in time");
        Err(format!("{url}: {reason}"))
    }

    /// What is wrong with the topology that was to be declared or checked.
    pub fn findings(&self) -> Vec<String> {
        self.status.borrow().findings.clone()
    }

    /// Ends it politely.
    pub async fn close(self) {
        let Self {
            stop,
            links,
            reports,
            ..
        } = self;
        drop(reports);
        stop.cancel();
        let _ = timeout(CONNECT_PATIENCE, links).await;
    }
}

/// One replay under way.
pub struct Delivery<'c> {
    connection: &'c mut Connection,
    limits: Limits,
    lanes: Lanes,
    windows: HashMap<u64, Vec<Item>>,
    windows_begun: u64,
    /// Exchanges that are missing or forbidden.
    closed: HashMap<Arc<str>, String>,
    is_up: bool,
    is_blocked: bool,
    losses: u32,
    /// When to give up, unless something is confirmed or the broker comes back.
    deadline: Instant,
    tally: Tally,
    progress: ProgressBar,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    events: usize,
    bytes: usize,
    confirm: Duration,
}

impl<'c> Delivery<'c> {
    /// Over an open connection.
    pub fn new(connection: &'c mut Connection, config: &Config, progress: ProgressBar) -> Self {
        let rabbitmq = &config.rabbitmq;
        Self {
            connection,
            limits: Limits {
                events: (rabbitmq.in_flight_max / WINDOWS_MAX).max(1),
                bytes: usize::try_from(rabbitmq.in_flight_bytes_max).unwrap_or(usize::MAX)
                    / WINDOWS_MAX,
                confirm: rabbitmq.confirm_timeout,
            },
            lanes: Lanes::default(),
            windows: HashMap::new(),
            windows_begun: 0,
            closed: HashMap::new(),
            is_up: false,
            is_blocked: false,
            losses: 0,
            deadline: Instant::now() + BROKER_PATIENCE,
            tally: Tally::default(),
            progress,
        }
    }

    /// Publishes everything that is fed, and tells what came of it.
    pub async fn run(
        mut self,
        mut feed: mpsc::Receiver<Result<Vec<Fed>, TakeError>>,
        interrupted: CancellationToken,
    ) -> Tally {
        let mut is_fed = false;
        loop {
            self.start_windows(is_fed);
            if is_fed && self.lanes.events() == 0 && self.windows.is_empty() {
                return self.tally;
            }
            let has_room =
                self.lanes.events() < LANES_EVENTS_MAX && self.lanes.bytes() < LANES_BYTES_MAX;
            let is_waiting = !self.is_up || !self.windows.is_empty();
            tokio::select! {
                biased;
                () = interrupted.cancelled() => return self.part(Ended::Interrupted).await,
                report = self.connection.reports.recv() => match report {
                    Some(report) => self.note(report),
                    None => return self.part(Ended::BrokerAway).await,
                },
                page = feed.recv(), if !is_fed && has_room => match page {
                    Some(Ok(page)) => page.into_iter().for_each(|fed| self.take(fed)),
                    Some(Err(why)) => return self.part(Ended::Unreadable(why)).await,
                    None => is_fed = true,
                },
                () = sleep_until(self.deadline), if is_waiting && !self.is_blocked => {
                    let ended = if self.is_up { Ended::Unconfirmed } else { Ended::BrokerAway };
                    return self.part(ended).await;
                }
            }
            if self.losses > LOSSES_MAX {
                return self.part(Ended::BrokerAway).await;
            }
        }
    }

    fn take(&mut self, fed: Fed) {
        match fed {
            Fed::Item(item) => self.lanes.add(*item),
            Fed::Unsettled => self.tally.unsettled += 1,
            Fed::Reject => self.tally.rejects += 1,
            Fed::Unfit(seq, why) => {
                self.tally.failed(seq, why);
                self.progress.inc(1);
            }
        }
    }

    /// Windows that are large enough to be worth their round trip; any, if nothing is out.
    fn start_windows(&mut self, is_fed: bool) {
        while self.is_up && !self.is_blocked && self.windows.len() < WINDOWS_MAX {
            let is_worth_it = self.windows.is_empty()
                || is_fed
                || self.lanes.ready() >= self.limits.events.div_ceil(2);
            if !is_worth_it {
                return;
            }
            let items = self.lanes.window(self.limits.events, self.limits.bytes);
            let Some(first) = items.first() else { return };
            if let Some(why) = self.closed.get(&first.message.route.exchange).cloned() {
                for item in items {
                    self.fail(&item, why.clone());
                }
                continue;
            }
            if self.windows.is_empty() {
                self.deadline = Instant::now() + self.limits.confirm;
            }
            self.windows_begun += 1;
            self.connection.publisher.publish(Window {
                id: self.windows_begun,
                link: Link::Main,
                ensure_exchange: false,
                messages: items.iter().map(|item| item.message.clone()).collect(),
            });
            self.windows.insert(self.windows_begun, items);
        }
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Up(_) => {
                self.is_up = true;
                self.is_blocked = false;
                self.deadline = Instant::now() + self.limits.confirm;
            }
            Report::Down(_) => {
                self.is_up = false;
                self.is_blocked = false;
                self.losses += 1;
                self.deadline = Instant::now() + BROKER_PATIENCE;
            }
            Report::Blocked(_) => {
                self.is_blocked = true;
                self.progress.suspend(|| {
                    say("the broker takes no messages (an alarm); waiting until it does");
                });
            }
            Report::Unblocked(_) => {
                self.is_blocked = false;
                self.deadline = Instant::now() + self.limits.confirm;
            }
            Report::Progress(_) => self.deadline = Instant::now() + self.limits.confirm,
            Report::Done(id, outcomes) => self.settle(id, outcomes),
        }
    }

    fn settle(&mut self, id: u64, outcomes: Vec<Outcome>) {
        let items = self.windows.remove(&id).unwrap_or_default();
        let is_single = items.len() == 1;
        let mut again = Vec::new();
        for (mut item, outcome) in items.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Delivered => self.deliver(&item),
                Outcome::Returned(text) => self.fail(&item, format!("returned: {text}")),
                Outcome::Nacked => self.fail(&item, "refused by a queue".into()),
                Outcome::ChannelClosed(code, text) if CLOSING.contains(&code) => {
                    let why = format!("{code} {text}");
                    let exchange = item.message.route.exchange.clone();
                    self.closed.insert(exchange, why.clone());
                    self.fail(&item, why);
                }
                Outcome::ChannelClosed(code, text) if is_single => {
                    self.fail(&item, format!("{code} {text}"));
                }
                // One of them has closed it; each alone, it is seen which.
                Outcome::ChannelClosed(..) => {
                    item.is_alone = true;
                    again.push(item);
                }
                Outcome::Unknown => {
                    item.is_in_doubt = true;
                    again.push(item);
                }
            }
        }
        for item in again.into_iter().rev() {
            self.lanes.put_back(item);
        }
        self.deadline = Instant::now() + self.limits.confirm;
    }

    fn deliver(&mut self, item: &Item) {
        self.tally.confirmed += 1;
        self.tally.released.extend(item.is_kept.then_some(item.seq));
        self.lanes.settled(item);
        self.progress.inc(1);
    }

    fn fail(&mut self, item: &Item, why: String) {
        self.tally.failed(item.seq, why);
        self.lanes.settled(item);
        self.progress.inc(1);
    }

    /// Ends early: what is outstanding may still be confirmed, nothing new goes out.
    async fn part(mut self, ended: Ended) -> Tally {
        self.tally.ended = ended;
        let until = Instant::now() + PARTING;
        while !self.windows.is_empty() && self.is_up {
            let report = tokio::time::timeout_at(until, self.connection.reports.recv()).await;
            let Ok(Some(report)) = report else { break };
            self.note(report);
        }
        let out: usize = self.windows.values().map(Vec::len).sum();
        self.tally.unknown = (out + self.lanes.in_doubt()) as u64;
        self.tally
    }
}

fn is_up(status: &BrokerStatus) -> bool {
    matches!(status.state, BrokerState::Connected | BrokerState::Blocked)
}
