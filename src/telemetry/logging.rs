//! Logs to standard error, as text for people or as JSON for machines. Logging never blocks and
//! never fails: lines pass through a bounded queue to one thread, and lines that do not fit are
//! counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::telemetry::{LogFormat, Telemetry};
use crate::foreign;

/// Lines queued for standard error.
const QUEUE_LINES_MAX: usize = 1024;

/// A longer line is truncated.
const LINE_BYTES_MAX: usize = 8 << 10;

/// How long the process waits for standard error before it ends.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// Why logging cannot be started, or its level cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The configured value is neither a level nor `tracing` directives.
    #[error("`{level}` is not a log level: {reason}")]
    BadLevel {
        /// As configured.
        level: String,
        /// The parser's message.
        reason: String,
    },
    /// The process already has a global `tracing` subscriber.
    #[error("logging has been started twice")]
    AlreadyStarted,
    /// The writing thread could not be started.
    #[error("starting the thread that writes the log")]
    Thread(#[source] io::Error),
}

/// The running log. Dropping it writes the queued lines, for at most half a second.
#[derive(Debug)]
pub struct Logging {
    level: Level,
    queue: LineQueue,
}

type Level = reload::Handle<EnvFilter, Registry>;

/// Starts logging to standard error for the whole process, panics included.
///
/// # Errors
/// The level cannot be parsed, the thread cannot be started, or the process already logs.
pub fn init(config: &Telemetry) -> Result<Logging, LoggingError> {
    let queue = LineQueue::start(io::stderr(), config.log_format)?;
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
    /// The level cannot be parsed; the previous one stays in effect.
    pub fn set_level(&self, level: &str) -> Result<(), LoggingError> {
        let filter = parse_level(level)?;
        self.level
            .reload(filter)
            .map_err(|error| bad_level(level, &error))
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        self.queue.flush_within(FLUSH_TIMEOUT);
    }
}

/// Parses a level or `tracing` directives. Logs of lapin are off unless `level` mentions `lapin`.
///
/// # Errors
/// `level` is neither.
pub fn parse_level(level: &str) -> Result<EnvFilter, LoggingError> {
    // lapin logs every closed channel as an error, also where a passive declare only asked whether
    // something exists. What matters is logged by the module that uses lapin.
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

fn subscriber(
    config: &Telemetry,
    queue: LineQueue,
) -> Result<(impl Subscriber + Send + Sync, Level), LoggingError> {
    let (filter, level) = reload::Layer::new(parse_level(&config.log_level)?);
    // Without colours: their escape sequences could not be distinguished from those in a value.
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(move || queue.clone());
    let lines = match config.log_format {
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

/// The queue of lines for the writing thread. Receives whole lines from `tracing_subscriber`, one
/// per write.
#[derive(Debug, Clone)]
struct LineQueue {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
    format: LogFormat,
}

impl LineQueue {
    fn start(sink: impl Write + Send + 'static, format: LogFormat) -> Result<Self, LoggingError> {
        let (lines, waiting) = sync_channel(QUEUE_LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&waiting, &counted, sink, format))
            .map_err(LoggingError::Thread)?;
        Ok(Self {
            lines,
            dropped,
            format,
        })
    }

    /// Returns when every line queued so far has been written, or after the timeout.
    fn flush_within(&self, timeout: Duration) {
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            // After a timeout or the death of the thread there is nothing better to do than
            // continue.
            let _: Result<(), RecvTimeoutError> = written.recv_timeout(timeout);
        }
    }
}

/// Escapes and truncates a line, except its final line break. Of a JSON line, the values are
/// truncated.
fn escape(format: LogFormat, line: &str) -> String {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let line = match format {
        LogFormat::Text => foreign::line(line),
        LogFormat::Json if line.len() > LINE_BYTES_MAX => {
            return foreign::json(&truncated_json(line)).into_owned() + "\n";
        }
        LogFormat::Json => return foreign::json(line).into_owned() + "\n",
    };
    let end = line.floor_char_boundary(LINE_BYTES_MAX);
    let mark = if end < line.len() { "…" } else { "" };
    format!("{}{mark}\n", &line[..end])
}

/// The object with texts of at most 1,024 bytes, or fewer if the line would still be too long.
fn truncated_json(line: &str) -> String {
    let mut object = serde_json::from_str(line).unwrap_or_default();
    for bytes_max in [1024, 128, 16] {
        truncate_texts(&mut object, bytes_max);
        let line = object.to_string();
        if line.len() <= LINE_BYTES_MAX {
            return line;
        }
    }
    let [timestamp, level] = ["timestamp", "level"].map(|key| &object[key]);
    let message = "a line with too many values was dropped";
    json!({"timestamp": timestamp, "level": level, "message": message}).to_string()
}

fn truncate_texts(value: &mut Value, bytes_max: usize) {
    match value {
        Value::String(text) if text.len() > bytes_max => {
            text.truncate(text.floor_char_boundary(bytes_max));
            text.push('…');
        }
        Value::Array(values) => values
            .iter_mut()
            .for_each(|value| truncate_texts(value, bytes_max)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|value| truncate_texts(value, bytes_max)),
        _ => {}
    }
}

impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = escape(self.format, &String::from_utf8_lossy(line));
        if self.lines.try_send(Line::Text(text.into())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// If the sink fails, the next line is tried again: there is no other place to report the error.
fn write_lines(
    waiting: &Receiver<Line>,
    dropped: &AtomicU64,
    mut sink: impl Write,
    format: LogFormat,
) {
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
            let message = format!("{lost} log lines did not fit and are lost");
            drop(match format {
                LogFormat::Text => writeln!(sink, "{message}"),
                LogFormat::Json => {
                    writeln!(
                        sink,
                        "{}",
                        json!({"timestamp": Timestamp::now(), "level": "WARN", "message": message})
                    )
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
