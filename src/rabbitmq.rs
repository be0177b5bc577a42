//! The broker: one supervisor that connects, keeps the topology and publishes windows. The only
//! room that names lapin. It knows nothing of journals, sessions or retries.
//!
//! [`start`] runs two links, [`Link::Main`] and [`Link::Probe`]. The forwarder hands windows to the
//! [`Publisher`] and is told what became of them, in order, by [`Report`]s. Beside them and unknown to
//! the forwarder, `delayed` sees to messages that consumers rejected.

mod board;
pub mod connection;
pub mod consumer;
mod counts;
mod delayed;
mod endpoints;
pub mod existing;
pub mod inspection;
mod link;
mod live;
pub mod pem;
pub mod permitted;
pub mod presented;
mod publisher;
pub mod queue;
pub mod tls;
pub mod topology;
pub mod url;
pub mod validity;
mod version;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::board::Board;
use self::delayed::DelayedTask;
use self::link::{Command, LinkTask, Shared};
use self::topology::Topology;
use self::topology::declare::Declarer;
use self::url::{BrokerUrl, UrlError};
use crate::config::Config;
use crate::config::rabbitmq::Tls;
use crate::telemetry::status::BrokerStatus;
use crate::webhook::message::Message;

/// How to reach the broker, and what has to exist there.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Brokers to try in turn; at least one.
    pub urls: Vec<BrokerUrl>,
    /// For `amqps` URLs.
    pub tls: Tls,
    /// For one attempt to connect.
    pub connect_timeout: Duration,
    /// First delay before a new connection.
    pub reconnect_delay_min: Duration,
    /// Longest delay before a new connection.
    pub reconnect_delay_max: Duration,
    /// What is declared or checked on every connection.
    pub topology: Topology,
}

impl Settings {
    /// What the configuration says.
    ///
    /// # Errors
    /// If a URL is not one of a broker, or there is none.
    pub fn from_config(config: &Config) -> Result<Self, UrlError> {
        let rabbitmq = &config.rabbitmq;
        let read = |url: &crate::config::sources::Secret| BrokerUrl::parse(url.expose());
        let urls = rabbitmq
            .urls
            .iter()
            .map(read)
            .collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(UrlError::None);
        }
        Ok(Self {
            urls: urls
                .into_iter()
                .map(|url| url.with_heartbeat(rabbitmq.heartbeat))
                .collect(),
            tls: rabbitmq.tls.clone(),
            connect_timeout: rabbitmq.connect_timeout,
            reconnect_delay_min: rabbitmq.reconnect_delay_min,
            reconnect_delay_max: rabbitmq.reconnect_delay_max,
            topology: Topology::plan(config),
        })
    }
}

/// Hands windows to the links. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    main: mpsc::UnboundedSender<Command>,
    probe: mpsc::UnboundedSender<Command>,
    sees_to_rejected: watch::Sender<bool>,
}

impl Publisher {
    /// Publishes a window; never blocks. It is answered by one [`Report::Done`], unless the bridge
    /// is ending. A window for the main link while that is down is answered with nothing but
    /// [`Outcome::Unknown`]; one for the probe link has it connect.
    ///
    /// The queue is bounded by the caller, who has at most `in_flight_max` messages outstanding.
    pub fn publish(&self, window: Window) {
        let link = window.link;
        self.command(link, Command::Publish(window));
    }

    /// Drops a link's connection now: its windows are answered with [`Outcome::Unknown`], then
    /// [`Report::Down`] is sent, then it connects anew. Does nothing while it is down.
    pub fn reconnect(&self, link: Link, reason: String) {
        self.command(link, Command::Reconnect(reason));
    }

    /// Declares or checks another topology, now if there is a connection, and from now on.
    pub fn redeclare(&self, topology: Topology) {
        self.command(Link::Main, Command::Redeclare(topology));
    }

    /// Sees to the rejected messages of consumer queues from now on. Whoever only looks or publishes
    /// leaves them to the bridge.
    pub fn retry_rejected(&self) {
        self.sees_to_rejected.send_replace(true);
    }

    fn command(&self, link: Link, command: Command) {
        let commands = match link {
            Link::Main => &self.main,
            Link::Probe => &self.probe,
        };
        // Fails only after shutdown, when nobody is answered any more.
        let _ = commands.send(command);
    }
}

/// Starts both links, and a third connection when [`Publisher::retry_rejected`] asks for it. They
/// end, politely if the broker lets them and within a second or so, when `shutdown` is cancelled;
/// the handle then completes.
///
/// Reports are sent in order and waited for: a caller that does not take them holds up publishing.
#[must_use]
pub fn start(
    settings: Settings,
    reports: mpsc::Sender<Report>,
    shutdown: CancellationToken,
) -> (Publisher, watch::Receiver<BrokerStatus>, JoinHandle<()>) {
    let declarer = Declarer::new(settings.topology.clone());
    let (sees_to_rejected, is_wanted) = watch::channel(false);
    let shared = Arc::new(Shared {
        settings,
        declarer,
        board: Board::new(),
        reports,
        shutdown,
    });
    let status = shared.board.subscribe();
    let link = |link| {
        let (sender, commands) = mpsc::unbounded_channel();
        (
            sender,
            LinkTask {
                link,
                shared: Arc::clone(&shared),
                commands,
            },
        )
    };
    let (main, main_link) = link(Link::Main);
    let (probe, probe_link) = link(Link::Probe);
    let retries = DelayedTask {
        shared: Arc::clone(&shared),
        is_wanted,
    };
    let links = tokio::spawn(async move {
        tokio::join!(
            main_link.run(),
            probe_link.run(),
            retries.run(),
            validity::keep_reading(shared)
        );
    });
    let publisher = Publisher {
        main,
        probe,
        sees_to_rejected,
    };
    (publisher, status, links)
}

/// Which of the two connections a window travels on. Suspect routes are probed on one of their
/// own, so that what happens to them there disturbs nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// For routes that flow.
    Main,
    /// For one message of a route that is stuck or closed; opened when first needed.
    Probe,
}

/// Messages to one exchange, published together on a channel that carries nothing else until all of
/// them are confirmed (only then are returns attributed with certainty).
#[derive(Debug)]
pub struct Window {
    /// Chosen by the caller, unique in this process.
    pub id: u64,
    /// The connection to use.
    pub link: Link,
    /// Check the exchange on a throw-away channel first (with `topology = "declare"`: declare it
    /// if it is missing).
    pub ensure_exchange: bool,
    /// Not empty, all to the same exchange.
    pub messages: Vec<Message>,
}

/// What the broker did with one message of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acked and not returned.
    Delivered,
    /// No queue takes it: code and text of the broker.
    Returned(String),
    /// Refused.
    Nacked,
    /// The channel was closed by the broker with this code and text before the outcome was known.
    ChannelClosed(u16, String),
    /// The connection is gone; it may or may not have been stored.
    Unknown,
}

/// What the publisher tells the forwarder, in order.
#[derive(Debug)]
pub enum Report {
    /// Connected, topology declared or checked. Windows may be published.
    Up(Link),
    /// Not connected any more; every window of that link has been reported `Done` before.
    Down(Link),
    /// An alarm of the broker stops publishing on this link; outstanding windows wait.
    Blocked(Link),
    /// The alarm is over.
    Unblocked(Link),
    /// Some message of this window was confirmed (a few a second per window at most).
    Progress(u64),
    /// Every message of the window has an outcome, in the window's order.
    Done(u64, Vec<Outcome>),
}
