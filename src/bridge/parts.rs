//! Builds the parts of a bridge from its configuration, and starts their tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Bridge, BridgeError, Stops, Tasks, pauses};
use crate::backoff::Backoff;
use crate::config::Config;
use crate::forwarder::flow::{self, Flow};
use crate::forwarder::{Forwarder, Inputs};
use crate::http::admin::Admin;
use crate::http::ingress::Ingress;
use crate::http::limits::{ConnectionLimits, Stop};
use crate::http::refused::RequestRefusals;
use crate::http::server;
use crate::http::sources::Sources;
use crate::journal::archive::Indexer;
use crate::journal::{self, Journal, Opened};
use crate::rabbitmq::{self, ConnectConfig, Publisher};
use crate::telemetry::logging::Logging;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use crate::webhook::routing::Routing;

/// Publisher events queued for the forwarder.
const REPORTS_MAX: usize = 256;
/// Connections that the kernel queues for a busy listener.
const LISTEN_BACKLOG: u32 = 4096;

/// The parts of a bridge whose tasks do not run yet, except the journal's thread.
pub(super) struct Parts {
    started: Instant,
    config: Config,
    routing: Arc<Routing>,
    settings: ConnectConfig,
    listeners: [TcpListener; 2],
    metrics: Arc<Metrics>,
    opened: Opened,
}

impl Parts {
    /// Does everything that can fail: opens the journal and binds the listeners.
    pub(super) fn build(
        config: Config,
        webhooks: Option<std::net::TcpListener>,
    ) -> Result<Self, BridgeError> {
        let routing = super::routing(&config)?;
        let metrics = Arc::new(Metrics::default());
        Ok(Self {
            started: Instant::now(),
            settings: ConnectConfig::from_config(&config)?,
            listeners: [
                match webhooks {
                    Some(inherited) => inherit(inherited, config.http.listen)?,
                    None => listen(config.http.listen, "http.listen")?,
                },
                listen(config.admin.listen, "admin.listen")?,
            ],
            opened: open_journal(&config, routing.clone(), &metrics)?,
            config,
            routing,
            metrics,
        })
    }

    /// Starts all tasks.
    pub(super) fn spawn(self, logging: Option<Logging>) -> Bridge {
        let (config, metrics, journal) = (self.config, self.metrics, self.opened.journal);
        let stops = Stops::default();
        let (reports_sender, reports) = mpsc::channel(REPORTS_MAX);
        let mut settings = self.settings;
        settings.retries_rejected = true;
        let (publisher, broker, links) =
            rabbitmq::start(settings, reports_sender, stops.links.clone());
        let (reroutes, reroutes_receiver) = mpsc::channel(1);
        let traces = Traces::from_environment();
        let forwarder = forwarder(
            &config,
            &self.routing,
            &journal,
            &publisher,
            &metrics,
            &traces,
        );
        let pauses = pauses::watch(&config.journal.dir);
        let inputs = Inputs {
            committed: self.opened.committed,
            reports,
            reroutes: reroutes_receiver,
            pauses: pauses.clone(),
            drain: stops.forwarder_drain.clone(),
            halt: stops.forwarder_halt.clone(),
        };
        let sources = Sources::new(super::sources(&config));
        let reload_status = watch::Sender::default();
        let statuses = watch::Sender::new(super::statuses(&self.routing));
        let admin = Admin {
            journal: journal.clone(),
            metrics: metrics.clone(),
            sources: sources.clone(),
            statuses: statuses.subscribe(),
            broker,
            routes: forwarder.routes.subscribe(),
            retrying: forwarder.retrying.subscribe(),
            pauses,
            reload: reload_status.subscribe(),
            drain: stops.http.drain.clone(),
            started: self.started,
            hosts: config.admin.hosts.clone(),
        };
        let forwarder = tokio::spawn(forwarder.run(inputs));
        let ingress = Ingress::new(
            &config.http,
            sources.clone(),
            journal.clone(),
            metrics.clone(),
            traces.clone(),
        );
        let http = stops.http.clone();
        let webhooks = self.listeners[0].local_addr();
        let routers = (ingress, admin.clone());
        let [public, operators] = serve(&config, self.listeners, routers, http, &metrics);
        log_start(&config, webhooks, journal.totals().backlog_events);
        Bridge {
            failures: journal.failures(),
            indexer: start_indexer(&config),
            config,
            journal,
            sources,
            reroutes,
            reload_status,
            statuses,
            tasks: Tasks {
                public,
                admin: operators,
                forwarder,
                links,
                stops,
            },
            logging,
            traces,
            publisher,
            admin,
        }
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
            "journal database damaged; it was set aside and its readable pending events were copied to a new one"
        );
    }
    let file_system = journal::FileSystem::of(&config.journal.dir);
    if let Some(concern) = file_system.ok().and_then(journal::FileSystem::concern) {
        tracing::warn!(journal = %config.journal.dir.display(), "{concern}");
    }
    Ok(opened)
}

fn start_indexer(config: &Config) -> Option<Indexer> {
    let started = Indexer::start(&config.journal.dir, config.journal.disk_free_min);
    started
        .inspect_err(|error| {
            tracing::warn!(%error, "search index (archive.db): its thread failed to start; searches read the journal");
        })
        .ok()
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

/// A listener on a socket that the service manager has opened.
fn inherit(socket: std::net::TcpListener, address: SocketAddr) -> Result<TcpListener, BridgeError> {
    let listener = socket.set_nonblocking(true);
    let listener = listener.and_then(|()| TcpListener::from_std(socket));
    listener.map_err(|source| BridgeError::Listen {
        address,
        key: "the socket of the service manager",
        source,
    })
}

/// Serves webhooks until `stop`, and operators until the process ends, so that a shutdown can be
/// observed.
fn serve(
    config: &Config,
    [public, operators]: [TcpListener; 2],
    (ingress, admin): (Ingress<Journal>, Admin<Journal>),
    stop: Stop,
    metrics: &Arc<Metrics>,
) -> [JoinHandle<()>; 2] {
    let refusals = |listener| RequestRefusals::of(listener, Arc::clone(metrics));
    let (limits, admin_limits) = (
        ConnectionLimits::of(&config.http),
        ConnectionLimits::of_admin(),
    );
    let public = server::serve(public, ingress.router(), limits, stop, refusals("http"));
    let stop = Stop::default();
    let operators = server::serve(
        operators,
        admin.router(),
        admin_limits,
        stop,
        refusals("admin"),
    );
    [public, operators].map(tokio::spawn)
}

fn log_start(config: &Config, webhooks: io::Result<SocketAddr>, backlog: u64) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %webhooks.unwrap_or(config.http.listen),
        admin = %config.admin.listen,
        journal = %config.journal.dir.display(),
        backlog,
        sources = config.sources.len(),
        "deskbridge started"
    );
}

fn forwarder(
    config: &Config,
    routing: &Arc<Routing>,
    journal: &Journal,
    publisher: &Publisher,
    metrics: &Arc<Metrics>,
    traces: &Traces,
) -> Forwarder {
    let retry = Backoff::random(config.retry.delay_min, config.retry.delay_max);
    Forwarder {
        flow: Flow::new(limits(config), retry),
        journal: journal.clone(),
        publisher: publisher.clone(),
        routing: Arc::new(ArcSwap::new(Arc::clone(routing))),
        metrics: Arc::clone(metrics),
        traces: traces.clone(),
        routes: watch::Sender::default(),
        retrying: watch::Sender::default(),
    }
}

fn limits(config: &Config) -> flow::FlowLimits {
    flow::FlowLimits {
        in_flight_max: config.rabbitmq.in_flight_max,
        in_flight_bytes_max: config.rabbitmq.in_flight_bytes_max,
        message_bytes_max: config.rabbitmq.message_bytes_max,
        confirm_timeout: config.rabbitmq.confirm_timeout,
        attempts_max: config.retry.attempts_max,
    }
}
