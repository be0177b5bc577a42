//! `serve`: runs the bridge.

use std::io;
use std::sync::Mutex;
use std::thread::{self, available_parallelism};
use std::time::Duration;

use clap::Args;
use deskbridge::bridge::{Bridge, BridgeError, Reload, Signals};
use deskbridge::config::Config;
use deskbridge::config::layers::Layers;
use deskbridge::telemetry::logging::{self, LoggingError};
use tokio::runtime::{Builder, Runtime};

use super::failure::failed;
use super::{Exit, Layering};

const AFTER_HELP: &str = "\
SIGTERM or SIGINT: stop listening, publish what can be published, exit within shutdown.grace; a \
second one ends at once. SIGHUP: read the configuration again.

Example:
  deskbridge serve --config config/deskbridge.toml";

/// Threads that serve connections and the broker; the journal has one of its own.
const WORKERS_MAX: usize = 4;

/// Threads that read the journal, split large webhooks and look up names.
const BLOCKING_MAX: usize = 16;

/// Such threads stay: a machine that gives no new ones later does not fail a webhook.
const BLOCKING_KEPT: Duration = Duration::from_hours(24 * 365);

const LIMITS_ADVICE: &str = "look at the limits of this process (ulimit -a)";

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Arguments {}

/// Runs the bridge until it is told to stop.
pub fn run(layering: &Layering, _: &Arguments) -> anyhow::Result<Exit> {
    let loaded = layering.load_to_run()?;
    let logging = logging::init(&loaded.config.telemetry).map_err(|why| {
        let advice = match why {
            LoggingError::Thread(_) => LIMITS_ADVICE,
            _ => "a level such as `info` for telemetry.log_level",
        };
        failed("starting the log", why, advice)
    })?;
    for finding in &loaded.awaited {
        tracing::warn!("{finding}");
    }
    let reload = reload(layering.layers());
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        // The first of those that stay.
        let _ = tokio::task::spawn_blocking(|| {}).await;
        let signals = Signals::listen()?;
        Bridge::start(loaded, Some(logging))?
            .run(signals, reload)
            .await
    });
    // What hangs on a frozen broker or a dead disk must not keep the process.
    runtime.shutdown_background();
    result.map(|()| Exit::Done).map_err(explain)
}

fn reload(layers: Layers) -> Reload {
    Box::new(move || {
        Config::load(&layers)
            .map_err(|error| error.findings.iter().map(ToString::to_string).collect())
    })
}

fn runtime() -> anyhow::Result<Runtime> {
    let workers = available_parallelism()
        .map_or(2, usize::from)
        .min(WORKERS_MAX);
    // The runtime would panic; the journal and the first blocking thread come on top.
    let runtime = try_threads(workers + 2).and_then(|()| {
        Builder::new_multi_thread()
            .worker_threads(workers)
            .max_blocking_threads(BLOCKING_MAX)
            .thread_keep_alive(BLOCKING_KEPT)
            .enable_all()
            .build()
    });
    runtime.map_err(|why| failed("starting the runtime", why, LIMITS_ADVICE))
}

/// Whether so many threads can be started at once.
fn try_threads(count: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    let closed = gate.lock();
    thread::scope(|scope| {
        let wait = || drop(gate.lock());
        let start = |_| thread::Builder::new().spawn_scoped(scope, wait).map(drop);
        let started = (0..count).try_for_each(start);
        drop(closed);
        started
    })
}

fn explain(error: BridgeError) -> anyhow::Error {
    let (doing, advice) = match &error {
        BridgeError::Journal { dir, .. } => (
            format!("opening the journal in `{dir}`"),
            "one bridge for each journal.dir, on a local disk that its user can write",
        ),
        BridgeError::Listen { address, key, .. } => (
            format!("listening on {address} (`{key}`)"),
            "is another bridge running? choose another address",
        ),
        BridgeError::Failed(_) | BridgeError::Ended(_) => (
            "running the bridge".to_owned(),
            "a restart: it forwards everything that was answered 2xx",
        ),
        _ => ("starting the bridge".to_owned(), "`deskbridge check`"),
    };
    match error {
        BridgeError::Journal { source, .. } => failed(doing, source, advice),
        BridgeError::Listen { source, .. } => failed(doing, source, advice),
        error => failed(doing, error, advice),
    }
}
