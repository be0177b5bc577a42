//! Connections to RabbitMQ: connects and reconnects, maintains the topology and publishes. This is
//! the only module that uses lapin. It knows nothing about the journal, sessions or the retries of
//! events.
//!
//! [`start`] runs two links, [`Link::Main`] and [`Link::Probe`]. The forwarder sends publish
//! windows through the [`Publisher`] and receives their outcomes, in order, as [`PublisherEvent`]s.
//! `retry_queues` runs next to the links, unknown to the forwarder. It retries messages that
//! consumers rejected.

pub mod certificate_expiry;
pub mod connection;
pub mod consumer;
mod endpoints;
mod headers;
pub mod inspection;
mod link;
mod open_connection;
mod outgoing;
pub mod pem;
pub mod provision;
pub mod publish_probe;
mod publisher;
pub mod queue;
mod queue_depths;
pub mod reply_code;
mod retry_queues;
pub mod snapshot;
mod status_cell;
pub mod tls;
pub mod topology;
pub mod url;
mod version;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::endpoints::Endpoints;
use self::link::{Command, LinkTask, Shared};
pub use self::outgoing::{MessageCopy, OutgoingMessage};
pub use self::retry_queues::REJECTED_WAIT;
use self::status_cell::BrokerStatusCell;
use self::topology::Topology;
use self::topology::declare::Declarer;
use self::url::{BrokerUrl, UrlError};
pub use self::version::Version;
use crate::config::Config;
use crate::config::rabbitmq::Tls;
use crate::config::secrets;
use crate::config::sources::Secret;
use crate::slow_call;
use crate::telemetry::status::BrokerStatus;

/// How to reach the broker, and which topology it must have.
#[derive(Debug, Clone)]
pub struct ConnectConfig {
    /// Brokers to try in turn; at least one.
    pub urls: Vec<BrokerUrl>,
    /// The file that contains the URLs, and their heartbeat. After a refused login it is read again.
    url_file: Option<(PathBuf, Duration)>,
    /// Files with certificates and key; used for `amqps` URLs only.
    pub tls: Tls,
    /// Limit for one connection attempt: TCP, TLS and AMQP handshake together.
    pub connect_timeout: Duration,
    /// Delay before the first reconnection attempt.
    pub reconnect_delay_min: Duration,
    /// Upper bound of the delay between reconnection attempts.
    pub reconnect_delay_max: Duration,
    /// Exchanges, queues and bindings that each connection of the main link declares or checks.
    pub topology: Topology,
    /// Whether to retry messages that consumers rejected. Only the bridge does; commands that
    /// browse queues or publish do not.
    pub retries_rejected: bool,
}

impl ConnectConfig {
    /// Derives the settings from the configuration.
    ///
    /// # Errors
    /// If a URL is not a valid broker URL, or none is configured.
    pub fn from_config(config: &Config) -> Result<Self, UrlError> {
        let rabbitmq = &config.rabbitmq;
        let file = rabbitmq.urls_from.clone();
        Ok(Self {
            urls: parse(&rabbitmq.urls, rabbitmq.heartbeat)?,
            url_file: file.map(|file| (file, rabbitmq.heartbeat)),
            tls: rabbitmq.tls.clone(),
            connect_timeout: rabbitmq.connect_timeout,
            reconnect_delay_min: rabbitmq.reconnect_delay_min,
            reconnect_delay_max: rabbitmq.reconnect_delay_max,
            topology: Topology::plan(config),
            retries_rejected: false,
        })
    }

    /// Reads the file with the URLs again. `None` if there is none, or if it cannot be used, which is
    /// logged.
    async fn read_urls_again(&self) -> Option<Vec<BrokerUrl>> {
        let (file, heartbeat) = self.url_file.clone()?;
        let read = move || {
            let urls = secrets::read_broker_urls(&file).map_err(|error| error.to_string())?;
            parse(&urls, heartbeat).map_err(|error| error.to_string())
        };
        let reading = slow_call::run("rabbitmq.url_file", read);
        let read = match tokio::time::timeout(self.connect_timeout, reading).await {
            Ok(read) => read.unwrap_or_else(|error| Err(error.to_string())),
            Err(_) => Err("the file does not answer".to_owned()),
        };
        read.inspect_err(|reason| {
            tracing::warn!(
                reason,
                "rabbitmq.url_file cannot be used; the last URLs stay in use"
            );
        })
        .ok()
    }

    fn endpoints(&self, count: usize) -> Endpoints {
        let (min, max) = (self.reconnect_delay_min, self.reconnect_delay_max);
        Endpoints::new(count, min, max, Instant::now())
    }
}

fn parse(urls: &[Secret], heartbeat: Duration) -> Result<Vec<BrokerUrl>, UrlError> {
    let parse = |url: &Secret| Ok(BrokerUrl::parse(url.expose())?.with_heartbeat(heartbeat));
    let urls: Vec<_> = urls.iter().map(parse).collect::<Result<_, _>>()?;
    if urls.is_empty() {
        return Err(UrlError::None);
    }
    Ok(urls)
}

/// Sends commands to the links. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    settings: watch::Sender<ConnectConfig>,
    main: mpsc::UnboundedSender<Command>,
    probe: mpsc::UnboundedSender<Command>,
}

impl Publisher {
    /// Publishes a window; never blocks. Each window is answered with one [`PublisherEvent::Done`],
    /// unless the bridge is shutting down. While the main link is down, every outcome of its
    /// windows is [`Outcome::Unknown`]. A window for the probe link makes that link connect.
    ///
    /// The channel is unbounded; the caller bounds it by having at most `in_flight_max` messages
    /// outstanding.
    pub fn publish(&self, window: PublishWindow) {
        let link = window.link;
        self.command(link, Command::Publish(window));
    }

    /// Drops a link's connection immediately. Its outstanding windows are answered with
    /// [`Outcome::Unknown`], then [`PublisherEvent::Down`] is sent, then the link reconnects. Has
    /// no effect while the link is down.
    pub fn reconnect(&self, link: Link, reason: String) {
        self.command(link, Command::Reconnect(reason));
    }

    /// Replaces the settings from the next connection on. A connection to a broker that is no longer
    /// among the URLs is dropped.
    pub fn configure(&self, mut settings: ConnectConfig) {
        self.settings.send_if_modified(|current| {
            settings.retries_rejected = current.retries_rejected;
            let is_other = settings.urls != current.urls;
            *current = settings;
            is_other
        });
    }

    /// Replaces the topology. It is declared or checked immediately if the main link is connected,
    /// and on every later connection.
    pub fn redeclare(&self, topology: Topology) {
        self.command(Link::Main, Command::Redeclare(topology));
    }

    fn command(&self, link: Link, command: Command) {
        let commands = match link {
            Link::Main => &self.main,
            Link::Probe => &self.probe,
        };
        // Fails only after shutdown, when no command is answered.
        let _ = commands.send(command);
    }
}

/// Starts both links. With [`ConnectConfig::retries_rejected`], also opens one connection for each queue
/// whose rejected messages the bridge retries. When `shutdown` is cancelled, the connections are
/// closed, with `connection.close` if the broker answers, within about a second. The handle then
/// completes.
///
/// Events are sent in order and with backpressure: a caller that does not receive them from
/// `reports` stops publishing.
#[must_use]
pub fn start(
    settings: ConnectConfig,
    reports: mpsc::Sender<PublisherEvent>,
    shutdown: CancellationToken,
) -> (Publisher, watch::Receiver<BrokerStatus>, JoinHandle<()>) {
    let declarer = Declarer::new(settings.topology.clone());
    let settings = watch::Sender::new(settings);
    let shared = Arc::new(Shared {
        settings: settings.clone(),
        declarer,
        status: BrokerStatusCell::new(),
        reports,
        shutdown,
    });
    let status = shared.status.subscribe();
    let link = |link| {
        let (sender, commands) = mpsc::unbounded_channel();
        let shared = Arc::clone(&shared);
        let task = LinkTask {
            link,
            shared,
            commands,
        };
        (sender, task)
    };
    let (main, main_link) = link(Link::Main);
    let (probe, probe_link) = link(Link::Probe);
    let links = tokio::spawn(async move {
        tokio::join!(
            main_link.run(),
            probe_link.run(),
            retry_queues::keep_retrying(&shared),
            certificate_expiry::keep_reading(&shared)
        );
    });
    let publisher = Publisher {
        settings,
        main,
        probe,
    };
    (publisher, status, links)
}

/// The connection that a window is published on. Stalled and unavailable routes are probed on a
/// connection of their own, so that a failure of theirs does not affect other routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// For healthy routes.
    Main,
    /// For half-open probes of stalled or unavailable routes; connects on demand.
    Probe,
}

/// Unconfirmed windows of a healthy route: one is filled while others are confirmed, and a quarter
/// of `in_flight_max` is left to the other routes.
pub const WINDOWS_PER_ROUTE_MAX: usize = 3;
/// Unconfirmed windows of all routes. Each needs a channel.
pub const WINDOWS_MAX: usize = 32;

/// The number of channels that this many routes need when all of them are busy.
#[must_use]
pub fn channels_max(routes: usize) -> usize {
    WINDOWS_MAX.min(routes.saturating_mul(WINDOWS_PER_ROUTE_MAX))
}

/// Messages to one exchange, published together on a channel that carries nothing else until all of
/// them are confirmed. Only then can returns be attributed with certainty.
#[derive(Debug)]
pub struct PublishWindow {
    /// Chosen by the caller, unique in this process.
    pub id: u64,
    /// The connection to publish on.
    pub link: Link,
    /// Whether to check first, on a separate channel, that the exchange exists. With
    /// `topology = "declare"`, a missing exchange is declared.
    pub ensure_exchange: bool,
    /// At least one message; all to the same exchange.
    pub messages: Vec<OutgoingMessage>,
}

/// The result of publishing one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acked and not returned.
    Delivered,
    /// Returned because no queue is bound: reply code and text of the broker.
    Returned(String),
    /// Rejected by the broker (`basic.nack`), for example because a queue is full.
    Nacked,
    /// The broker closed the channel of the window and said why, before the outcome of this message
    /// was known. It does not say which message is the cause.
    ChannelClosed {
        /// What the broker refused.
        kind: RefusalKind,
        /// The broker's text.
        reason: String,
    },
    /// The connection was lost; the broker may or may not have stored the message.
    Unknown,
}

/// What the broker refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The exchange does not exist.
    RouteMissing,
    /// Publishing to the exchange is not permitted.
    Forbidden,
    /// The message exceeds the broker's size limit.
    TooLarge,
    /// Anything else.
    Other,
}

/// Events that the links report to the forwarder, in order.
#[derive(Debug, Clone)]
pub enum PublisherEvent {
    /// The link is connected, and the main link has declared or checked the topology. Windows can
    /// be published.
    Up(Link),
    /// The link has lost its connection. `Done` was reported for each of its windows before.
    Down(Link),
    /// An alarm of the broker blocks publishing on this link (`connection.blocked`); outstanding
    /// windows wait.
    Blocked(Link),
    /// The alarm has been cleared (`connection.unblocked`).
    Unblocked(Link),
    /// At least one more message of this window was confirmed; at most five of these a second for
    /// each window.
    Progress(u64),
    /// All messages of the window have an outcome, listed in the window's order.
    Done(u64, Vec<Outcome>),
}
