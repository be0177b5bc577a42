//! Logs: text for people or JSON for machines, to standard error. Writing them never blocks and
//! never fails: lines go to one thread through a bounded queue, and what does not fit is counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::foreign;
use crate::config::telemetry::{LogFormat, Telemetry};

/// Lines waiting for standard error to take them.
const QUEUE_LINES_MAX: usize = 1024;

/// A longer line is cut.
const LINE_BYTES_MAX: usize = 8 << 10;

/// How long the end of the process waits for standard error.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Why logging cannot start or change.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is neither a level nor directives.
    #[error("`{level}` is no log level: {reason}")]
    BadLevel {
        /// As configured.
        level: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Somebody else logs in this process already.
    #[error("logging has been started twice")]
    AlreadyStarted,
    /// The thread that writes did not start.
    #[error("starting the thread that writes the log")]
    Thread(#[source] io::Error),
}

/// The running log. Dropping it writes out what is queued, for half a second at most.
#[derive(Debug)]
pub struct Logging {
    level: reload::Handle<EnvFilter, Registry>,
    queue: Queue,
}

/// Starts logging to standard error for the whole process, panics included.
///
/// # Errors
/// A level that cannot be read, or a second start in one process.
pub fn init(config: &Telemetry) -> Result<Logging, LoggingError> {
    let queue = Queue::start(io::stderr())?;
    let (subscriber, level) = subscriber(config, queue.clone())?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|_| LoggingError::AlreadyStarted)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Logging { level, queue })
}

impl Logging {
    /// Changes the level of the running process.
    ///
    /// # Errors
    /// A level that cannot be read; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), LoggingError> {
        let filter = parse_level(level)?;
        self.level
            .reload(filter)
            .map_err(|error| bad_level(level, &error))
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.queue.flush(FLUSH_TIMEOUT);
    }
}

/// Whether `level` can be used: a level, or `tracing` directives.
///
/// # Errors
/// What is wrong with it.
pub fn parse_level(level: &str) -> Result<EnvFilter, LoggingError> {
    // lapin calls every closed channel an error, also those that only ask whether something
    // exists; what matters of it is logged by the room that uses it.
    let directives = if level.contains("lapin") {
        level.to_owned()
    } else {
        format!("{level},lapin=off")
    };
    EnvFilter::try_new(directives).map_err(|error| bad_level(level, &error))
}

fn bad_level(level: &str, reason: &dyn std::error::Error) -> LoggingError {
    LoggingError::BadLevel {
        level: level.to_owned(),
        reason: reason.to_string(),
    }
}

type Level = reload::Handle<EnvFilter, Registry>;

fn subscriber(
    config: &Telemetry,
    queue: Queue,
) -> Result<(impl Subscriber + Send + Sync, Level), LoggingError> {
    let (filter, level) = reload::Layer::new(parse_level(&config.log_level)?);
    let format = config.log_format;
    // Without colours: what makes them could not be told from what a value brings along.
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(Writer { queue, format });
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
    };
    Ok((
        tracing_subscriber::registry().with(filter).with(lines),
        level,
    ))
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let location = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(location, message, "panicked");
}

enum Line {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The way of a line to the thread that writes.
#[derive(Debug, Clone)]
struct Queue {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

impl Queue {
    fn start(sink: impl Write + Send + 'static) -> Result<Self, LoggingError> {
        let (lines, waiting) = sync_channel(QUEUE_LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&waiting, &counted, sink))
            .map_err(LoggingError::Thread)?;
        Ok(Self { lines, dropped })
    }

    /// Returns when everything queued so far is written, or when the time is over.
    fn flush(&self, timeout: Duration) {
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            // Neither a timeout nor a dead thread is worth more than going on.
            let _: Result<(), RecvTimeoutError> = written.recv_timeout(timeout);
        }
    }
}

/// The line with what a terminal would obey or hide escaped, but for its end.
fn escape(format: LogFormat, line: &str) -> String {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let mut line = match format {
        LogFormat::Text => foreign::line(line),
        LogFormat::Json => foreign::json(line),
    }
    .into_owned();
    if line.len() > LINE_BYTES_MAX {
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        line.push('…');
    }
    line.push('\n');
    line
}

/// Takes whole lines.
#[derive(Debug, Clone)]
struct Writer {
    queue: Queue,
    format: LogFormat,
}

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = escape(self.format, &String::from_utf8_lossy(line));
        if self.queue.lines.try_send(Line::Text(text.into())).is_err() {
            self.queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A sink that fails is tried again with the next line: nobody else could be told.
fn write_lines(waiting: &Receiver<Line>, dropped: &AtomicU64, mut sink: impl Write) {
    for line in waiting {
        match line {
            Line::Text(text) => drop(sink.write_all(&text)),
            Line::Flush(done) => drop(
                sink.flush()
                    .and_then(|()| done.send(()).map_err(io::Error::other)),
            ),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(writeln!(sink, "{lost} log lines did not fit and are lost"));
        }
    }
}

#[cfg(test)]
mod tests;
