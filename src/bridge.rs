//! Wires the modules together, and starts and stops them in order.
//!
//! Start: journal, broker links, forwarder, then the listeners, so that an accepted webhook is
//! stored and its events are forwarded. Stop: close the listeners, publish as many pending events
//! as possible, then close the journal; all within `shutdown.grace`, whatever the broker does.

mod parts;
mod pauses;
mod reload;
mod service;
mod stop;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use reload::{ConfigLoader, LoadResult};
pub use stop::{Signals, StopSignals};

use self::parts::Parts;
use crate::config::sources::Secret;
use crate::config::{Config, Loaded};
use crate::forwarder::Reroute;
use crate::http::admin::Admin;
use crate::http::limits::Stop;
use crate::http::sources::{Source, Sources};
use crate::journal::archive::Indexer;
use crate::journal::{self, Journal, JournalError, JournalFailure};
use crate::rabbitmq::{self, url::UrlError};
use crate::settings;
use crate::telemetry::logging::Logging;
use crate::telemetry::status::ReloadStatus;
use crate::telemetry::traces::Traces;
use crate::webhook::routing::{Routing, TemplateError};
use crate::webhook::signature::Keys;

/// Why the bridge cannot start, or had to stop.
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
    /// The journal cannot continue: its disk failed, its database is damaged, or its thread panicked.
    /// Every event that was answered 2xx is stored.
    #[error("the journal failed: {0}")]
    JournalStopped(String),
    /// A task of the bridge ended by itself. Every event that was answered 2xx is stored.
    #[error("internal error: the task `{0}` stopped; look for `panicked` in the log and report it")]
    Ended(&'static str),
    /// The address is in use, or does not belong to this host.
    #[error("listening on {address} (`{key}`)")]
    Listen {
        /// The address to bind.
        address: SocketAddr,
        /// The configuration key that names the address.
        key: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A broker URL cannot be parsed.
    #[error("reading `rabbitmq.urls`")]
    Url(#[from] UrlError),
    /// A routing key template cannot be parsed.
    #[error("reading `routing`: {0:?}")]
    Routing(Vec<TemplateError>),
    /// The operating system refused a signal handler.
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
    failures: watch::Receiver<Option<JournalFailure>>,
    tasks: Tasks,
    logging: Option<Logging>,
    traces: Traces,
    publisher: rabbitmq::Publisher,
    admin: Admin<Journal>,
    /// `None` if the thread could not be started; searches then read the journal.
    indexer: Option<Indexer>,
}

/// The running tasks, and the tokens that ask each of them to end.
struct Tasks {
    public: JoinHandle<()>,
    admin: JoinHandle<()>,
    forwarder: JoinHandle<Result<(), JournalError>>,
    links: JoinHandle<()>,
    stops: Stops,
}

#[derive(Default)]
struct Stops {
    http: Stop,
    forwarder_drain: CancellationToken,
    forwarder_halt: CancellationToken,
    links: CancellationToken,
}

impl Bridge {
    /// Opens the journal, binds the listeners and starts all tasks. Does not wait for a broker.
    /// Must be called within a tokio runtime. With `webhooks`, a listening socket that outlives the
    /// process, `http.listen` is not bound.
    ///
    /// # Errors
    /// See [`BridgeError`]. Nothing is left running.
    pub fn start(
        loaded: Loaded,
        logging: Option<Logging>,
        webhooks: Option<TcpListener>,
    ) -> Result<Self, BridgeError> {
        Ok(Parts::build(loaded.config, webhooks)?.spawn(logging))
    }
}

fn routing(config: &Config) -> Result<Arc<Routing>, BridgeError> {
    settings::routing(config)
        .map(Arc::new)
        .map_err(BridgeError::Routing)
}

fn sources(config: &Config) -> impl Iterator<Item = Source> {
    config.sources.iter().map(|(name, source)| Source {
        name: Arc::from(name.as_str()),
        awaits_secret: source.is_signed() && source.secrets.is_empty(),
        secret_names: secret_names(source),
        kept_secrets: source
            .kept_secrets()
            .map(|(_, path, _)| path.display().to_string().into())
            .collect(),
        keys: if source.is_signed() {
            Keys::new(source.secrets.iter().map(Secret::expose))
        } else {
            Keys::Unsigned
        },
    })
}

fn secret_names(source: &crate::config::sources::SourceConfig) -> Vec<Arc<str>> {
    let name = |index| match source.secret_origin(index) {
        (_, Some(file)) => file.display().to_string().into(),
        (key, None) => key.into(),
    };
    (0..source.secrets.len()).map(name).collect()
}

fn statuses(routing: &Routing) -> Vec<Arc<str>> {
    routing.statuses().cloned().collect()
}
