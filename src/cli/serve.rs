//! `serve`: runs the bridge.

use std::io;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::thread::{self, available_parallelism};
use std::time::Duration;

use deskbridge::bridge::{Bridge, BridgeError, ConfigLoader, Signals, StopSignals};
use deskbridge::config::{Loaded, paths};
use deskbridge::journal::OpenError;
use deskbridge::slow_call;
use deskbridge::telemetry::logging::{self, LoggingError};
use listenfd::ListenFd;
use tokio::runtime::{Builder, Runtime};

use super::failure::failed;
use super::output::say;
use super::{ConfigArguments, Exit, LIMITS_ADVICE};

pub const AFTER_HELP: &str = "\
SIGTERM and SIGINT: the bridge stops listening, publishes what it can, and exits with 0 within \
shutdown.grace. What is not published stays in the journal. A second signal ends the process at once.

SIGHUP: the bridge reads its configuration again. It refuses a configuration with an error as a whole; \
the log and /status say why, and which changes need a restart.

Exit codes: 0 stopped by a signal, 1 it could not start or the journal's disk failed, 2 findings in the \
configuration.

Example:
  deskbridge serve --config config/deskbridge.toml";

/// Worker threads for HTTP and the broker. The journal has a thread of its own.
const WORKERS_MAX: usize = 4;

/// Interval at which a file that does not answer is named while the configuration is read.
const READING_WARN: Duration = Duration::from_secs(5);

/// Blocking threads, which read the journal and split large webhooks.
const BLOCKING_MAX: usize = 16;

/// How long an idle blocking thread is kept: practically forever, so that no webhook fails because
/// the machine refuses to start another thread.
const BLOCKING_KEPT: Duration = Duration::from_hours(24 * 365);

/// Runs the bridge until a signal stops it.
pub fn run(layering: &ConfigArguments) -> anyhow::Result<Exit> {
    let webhooks = inherited_socket()?;
    let runtime = runtime()?;
    let result = runtime.block_on(serve(layering, webhooks));
    // Tasks that hang on a frozen broker or a failed disk must not keep the process alive.
    runtime.shutdown_background();
    result.map(|()| Exit::Done)
}

async fn serve(layering: &ConfigArguments, webhooks: Option<TcpListener>) -> anyhow::Result<()> {
    // Starts the first blocking thread, which is kept (`BLOCKING_KEPT`).
    let _ = tokio::task::spawn_blocking(|| {}).await;
    let mut signals = Signals::listen().map_err(explain)?;
    let Some(loaded) = load(layering.clone(), &mut signals.stop).await? else {
        return Ok(());
    };
    let logging = logging::init(&loaded.config.telemetry).map_err(|why| {
        let advice = match why {
            LoggingError::Thread(_) => LIMITS_ADVICE,
            _ => "use a level such as `info` for telemetry.log_level",
        };
        failed("starting the log", why, advice)
    })?;
    for finding in &loaded.missing_secrets {
        tracing::warn!("{finding}");
    }
    // Opening the journal takes long if its disk does not answer, or if much of it has to be copied.
    let start = move || Bridge::start(loaded, Some(logging), webhooks);
    let bridge = tokio::select! {
        started = tokio::task::spawn_blocking(start) => started?.map_err(explain)?,
        () = signals.stop.recv() => return Ok(()),
    };
    bridge
        .run(signals, reload(layering.clone()))
        .await
        .map_err(explain)
}

/// Reads the configuration. Says which file it waits for. `None` if a signal stops it.
async fn load(layering: ConfigArguments, stop: &mut StopSignals) -> anyhow::Result<Option<Loaded>> {
    let mut loading = pin!(slow_call::run("configuration", move || layering.load_to_run()));
    loop {
        tokio::select! {
            loaded = &mut loading => return Ok(Some(loaded??)),
            () = stop.recv() => return Ok(None),
            () = tokio::time::sleep(READING_WARN) => {
                say(format_args!("deskbridge: waiting for {}", paths::being_read()));
            }
        }
    }
}

/// The listening socket that a service manager passes (`LISTEN_FDS`), so that it outlives the process
/// and no connection is refused during a restart.
fn inherited_socket() -> anyhow::Result<Option<TcpListener>> {
    let socket = ListenFd::from_env().take_tcp_listener(0);
    socket.map_err(|why| {
        failed(
            "taking the socket of the service manager",
            why,
            "pass one listening TCP socket, such as that of deskbridge.socket",
        )
    })
}

/// Looks for the configuration file again: it may not have existed at the start.
fn reload(layering: ConfigArguments) -> ConfigLoader {
    Arc::new(move || {
        let loaded = layering.load();
        loaded.map_err(|error| error.findings.iter().map(ToString::to_string).collect())
    })
}

fn runtime() -> anyhow::Result<Runtime> {
    let workers = available_parallelism()
        .map_or(2, usize::from)
        .min(WORKERS_MAX);
    // The runtime panics if it cannot start a thread, so this tries it first. The two more threads
    // are those of the journal and the first blocking thread.
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

/// Fails if the system cannot start this many threads at the same time. The threads end at once.
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
    match error {
        BridgeError::Journal { dir, source } => {
            let advice = match source {
                OpenError::Schema(_) => {
                    "use the release that wrote it, or name another directory (journal.dir)"
                }
                _ => "use one bridge per journal.dir, on a local disk that its user can write to",
            };
            failed(format!("opening the journal in `{dir}`"), source, advice)
        }
        BridgeError::Listen {
            address,
            key,
            source,
        } => failed(
            format!("listening on {address} (`{key}`)"),
            source,
            "end the program that listens there (`ss -ltnp` shows it), or choose another address",
        ),
        BridgeError::JournalStopped(_) | BridgeError::Ended(_) => failed(
            "running the bridge",
            error,
            "restart the bridge; nothing that was answered 2xx is lost",
        ),
        error => failed("starting the bridge", error, "`deskbridge check`"),
    }
}
