//! Wires the rooms; starts them in order and stops them in order.
//!
//! Start: journal, broker links, forwarder, then the listeners, so that a webhook that is accepted
//! is held and on its way. Stop: the listeners first, then what can be published is, then the
//! journal is closed; all within `shutdown.grace`, whatever the broker does.

mod reload;
mod stop;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use reload::{Reload, Reloaded};
pub use stop::Signals;

use crate::config::{Config, Loaded};
use crate::forwarder::flow::{Flow, Limits};
use crate::forwarder::retry::Backoff;
use crate::forwarder::{Forwarder, Inputs, Reroute};
use crate::http::admin::Admin;
use crate::http::ingress::Ingress;
use crate::http::refused::Refusals;
use crate::http::server::{self, Stop};
use crate::http::sources::{Source, Sources};
use crate::journal::{self, Failure, Journal, Opened, TakeError};
use crate::rabbitmq::{self, Settings, url::UrlError};
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::status::ReloadStatus;
use crate::webhook::routing::{Routing, TemplateError};
use crate::webhook::signature::Keys;

/// Reports of the broker not yet looked at by the forwarder.
const REPORTS_MAX: usize = 256;
/// Connections the kernel keeps for a listener that is busy.
const LISTEN_BACKLOG: u32 = 4096;

/// Why the bridge cannot start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The journal cannot be opened.
    #[error("opening the journal in `{dir}`")]
    Journal {
        /// `journal.dir`.
        dir: String,
        /// Why it failed.
        source: journal::OpenError,
    },
    /// The journal cannot be read.
    #[error("reading the journal")]
    Take(#[from] TakeError),
    /// The journal's disk failed while running. What was answered 2xx is held.
    #[error("the journal failed: {0}")]
    Failed(String),
    /// A part of the bridge has ended by itself. What was answered 2xx is held.
    #[error("{0} ended unexpectedly; the log says why")]
    Ended(&'static str),
    /// An address is taken, or not ours.
    #[error("listening on {address} (`{key}`)")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// By which key of the configuration.
        key: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A broker's URL cannot be read.
    #[error("reading `rabbitmq.urls`")]
    Url(#[from] UrlError),
    /// A key template cannot be read.
    #[error("reading `routing`: {0:?}")]
    Routing(Vec<TemplateError>),
    /// The operating system refuses a signal handler.
    #[error("listening for signals")]
    Signals(#[source] io::Error),
}

/// A running bridge.
pub struct Bridge {
    config: Config,
    journal: Journal,
    sources: Sources,
    reroutes: mpsc::Sender<Reroute>,
    reload_status: watch::Sender<Option<ReloadStatus>>,
    statuses: watch::Sender<Vec<Arc<str>>>,
    failures: watch::Receiver<Option<Failure>>,
    tasks: Tasks,
    logging: Option<Logging>,
    publisher: rabbitmq::Publisher,
}

/// What runs, and how each part is told to end.
struct Tasks {
    public: JoinHandle<()>,
    admin: JoinHandle<()>,
    forwarder: JoinHandle<Result<(), TakeError>>,
    links: JoinHandle<()>,
    http: Stop,
    forwarder_drain: CancellationToken,
    forwarder_halt: CancellationToken,
    links_stop: CancellationToken,
}

impl Bridge {
    /// Opens the journal, binds the listeners and starts everything. Does not wait for a broker.
    /// To be called inside a runtime, which it runs on.
    ///
    /// # Errors
    /// See [`BridgeError`]; nothing runs then.
    pub fn start(loaded: Loaded, logging: Option<Logging>) -> Result<Self, BridgeError> {
        let started = Instant::now();
        let config = loaded.config;
        let routing = routing(&config)?;
        let settings = Settings::from_config(&config)?;
        let public = listen(config.http.listen, "http.listen")?;
        let operators = listen(config.admin.listen, "admin.listen")?;
        let metrics = Arc::new(Metrics::default());
        let opened = open_journal(&config, routing.clone(), &metrics)?;
        let journal = opened.journal;

        let (reports_sender, reports) = mpsc::channel(REPORTS_MAX);
        let links_stop = CancellationToken::new();
        let (publisher, broker, links) =
            rabbitmq::start(settings, reports_sender, links_stop.clone());
        publisher.retry_rejected();

        let (reroutes, reroutes_receiver) = mpsc::channel(1);
        let (routes_sender, routes) = watch::channel(Vec::new());
        let (retrying_sender, retrying) = watch::channel(Vec::new());
        let (forwarder_drain, forwarder_halt) =
            (CancellationToken::new(), CancellationToken::new());
        let forwarder = Forwarder {
            flow: Flow::new(limits(&config), backoff(&config)),
            journal: journal.clone(),
            publisher: publisher.clone(),
            routing: Arc::new(ArcSwap::new(routing.clone())),
            metrics: metrics.clone(),
            routes: routes_sender,
            retrying: retrying_sender,
        };
        let forwarder = tokio::spawn(forwarder.run(Inputs {
            committed: opened.committed,
            reports,
            reroutes: reroutes_receiver,
            drain: forwarder_drain.clone(),
            halt: forwarder_halt.clone(),
        }));

        let sources = Sources::new(sources(&config));
        let http = Stop::default();
        let (reload_status, reload) = watch::channel(None);
        let (statuses, statuses_receiver) = watch::channel(statuses(&routing));
        let admin = Admin {
            journal: journal.clone(),
            metrics: metrics.clone(),
            sources: sources.clone(),
            statuses: statuses_receiver,
            broker,
            routes,
            retrying,
            reload,
            drain: http.drain.clone(),
            started,
            hosts: config.admin.hosts.clone(),
        };
        let refusals = |listener| Refusals::of(listener, Arc::clone(&metrics));
        let [refused, refused_of_admin] = ["http", "admin"].map(refusals);
        let ingress = Ingress::new(&config.http, sources.clone(), journal.clone(), metrics);
        let public = tokio::spawn(server::serve(
            public,
            ingress.router(),
            server::Limits::of(&config.http),
            http.clone(),
            refused,
        ));
        // Operators may look until the end: their listener stops with the process.
        let admin = tokio::spawn(server::serve(
            operators,
            admin.router(),
            server::Limits::of_admin(),
            Stop::default(),
            refused_of_admin,
        ));
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            listen = %config.http.listen,
            admin = %config.admin.listen,
            journal = %config.journal.dir.display(),
            backlog = journal.totals().backlog_events,
            sources = config.sources.len(),
            "deskbridge accepts webhooks"
        );
        Ok(Self {
            failures: journal.failures(),
            config,
            journal,
            sources,
            reroutes,
            reload_status,
            statuses,
            tasks: Tasks {
                public,
                admin,
                forwarder,
                links,
                http,
                forwarder_drain,
                forwarder_halt,
                links_stop,
            },
            logging,
            publisher,
        })
    }
}

fn open_journal(
    config: &Config,
    routing: Arc<Routing>,
    metrics: &Arc<Metrics>,
) -> Result<Opened, BridgeError> {
    let observed = metrics.clone();
    let observe = Box::new(move |elapsed| observed.journal_synced(elapsed));
    let opened = Journal::open(&config.journal, routing, observe).map_err(|source| {
        BridgeError::Journal {
            dir: config.journal.dir.display().to_string(),
            source,
        }
    })?;
    if let Some((path, lost)) = &opened.set_aside {
        tracing::error!(
            set_aside = %path.display(),
            lost_events = lost,
            "the journal's database was damaged; it was set aside, and what could be read of its \
             unsettled events was carried over"
        );
    }
    let file_system = journal::FileSystem::of(&config.journal.dir);
    if let Some(concern) = file_system.ok().and_then(journal::FileSystem::concern) {
        tracing::warn!(journal = %config.journal.dir.display(), "{concern}");
    }
    Ok(opened)
}

fn listen(address: SocketAddr, key: &'static str) -> Result<TcpListener, BridgeError> {
    let bind = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(LISTEN_BACKLOG)
    };
    bind().map_err(|source| BridgeError::Listen {
        address,
        key,
        source,
    })
}

fn routing(config: &Config) -> Result<Arc<Routing>, BridgeError> {
    Routing::new(&config.routing, &config.dead_letter)
        .map(Arc::new)
        .map_err(BridgeError::Routing)
}

fn sources(config: &Config) -> impl Iterator<Item = Source> {
    config.sources.iter().map(|(name, source)| Source {
        name: Arc::from(name.as_str()),
        awaits_secret: source.is_signed() && source.secrets.is_empty(),
        secret_names: secret_names(source),
        keys: match source.signature {
            crate::config::sources::Signature::None => Keys::Unsigned,
            crate::config::sources::Signature::Required => Keys::new(
                source
                    .secrets
                    .iter()
                    .map(|secret| secret.expose().as_bytes()),
            ),
        },
    })
}

fn secret_names(source: &crate::config::sources::Source) -> Vec<Arc<str>> {
    let name = |index| match source.place(index) {
        (_, Some(file)) => file.display().to_string().into(),
        (key, None) => key.into(),
    };
    (0..source.secrets.len()).map(name).collect()
}

fn statuses(routing: &Routing) -> Vec<Arc<str>> {
    routing.statuses().cloned().collect()
}

fn limits(config: &Config) -> Limits {
    Limits {
        in_flight_max: config.rabbitmq.in_flight_max,
        in_flight_bytes_max: config.rabbitmq.in_flight_bytes_max,
        message_bytes_max: config.rabbitmq.message_bytes_max,
        confirm_timeout: config.rabbitmq.confirm_timeout,
        attempts_max: config.retry.attempts_max,
    }
}

fn backoff(config: &Config) -> Backoff {
    let seed = Timestamp::now().as_nanosecond().to_le_bytes();
    let seed = seed
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Backoff::new(config.retry.delay_min, config.retry.delay_max, seed)
}
