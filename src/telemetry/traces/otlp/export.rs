//! Exports spans in batches, from a bounded queue in a task of its own. A span that finds the queue
//! full, or whose export fails, is lost and counted: no request waits for the collector.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Maximum time for one export: the default of the specification.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time for the last exports when the bridge stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Minimum time between two log lines about lost spans.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// When a batch is exported, and how many spans may wait.
#[derive(Debug)]
pub(super) struct BatchLimits {
    /// Spans in the queue, each of about 1.5 KiB.
    pub(super) queued_max: usize,
    /// Spans in a batch.
    pub(super) batch_max: usize,
    /// Time after which a smaller batch is exported.
    pub(super) delay: Duration,
}

impl Default for BatchLimits {
    /// The defaults of the specification.
    fn default() -> Self {
        Self {
            queued_max: 2048,
            batch_max: 512,
            delay: Duration::from_secs(5),
        }
    }
}

/// The queue of the exporter, and its task.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    overflowed: Arc<AtomicU64>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// The batch that is being collected, and the spans that were lost.
struct Batches {
    exporter: SpanExporter,
    batch: Vec<SpanData>,
    batch_max: usize,
    overflowed: Arc<AtomicU64>,
    lost: u64,
    reason: String,
    logged_at: Option<Instant>,
}

impl Queue {
    /// Starts the task. Must be called within a tokio runtime.
    pub(super) fn start(exporter: SpanExporter, limits: &BatchLimits) -> Self {
        let (spans, queued) = mpsc::channel(limits.queued_max);
        let (overflowed, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let batches = Batches {
            exporter,
            batch: Vec::new(),
            batch_max: limits.batch_max,
            overflowed: Arc::clone(&overflowed),
            lost: 0,
            reason: String::new(),
            logged_at: None,
        };
        let task = tokio::spawn(batches.run(queued, limits.delay, stop.clone()));
        Self {
            spans,
            overflowed,
            stop,
            task: Mutex::new(Some(task)),
        }
    }

    /// Queues a span, or counts it as lost. Never waits.
    pub(super) fn push(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Exports what is queued, within a second, and ends the task.
    pub(super) async fn flush(&self) {
        self.stop.cancel();
        let task = self.task.lock().ok().and_then(|mut task| task.take());
        let Some(mut task) = task else { return };
        if timeout(FLUSH_TIMEOUT, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("the last spans are lost: the collector did not answer in time");
        }
    }
}

impl Batches {
    async fn run(
        mut self,
        mut queued: mpsc::Receiver<SpanData>,
        delay: Duration,
        stop: CancellationToken,
    ) {
        let mut due = Instant::now();
        let mut is_open = true;
        while is_open {
            let (was_empty, room) = (self.batch.is_empty(), self.batch_max - self.batch.len());
            tokio::select! {
                biased;
                () = stop.cancelled(), if !queued.is_closed() => queued.close(),
                received = queued.recv_many(&mut self.batch, room) => {
                    is_open = received > 0;
                    if was_empty {
                        due = Instant::now() + delay;
                    }
                    if !is_open || self.batch.len() == self.batch_max {
                        self.export().await;
                    }
                }
                () = sleep_until(due), if !was_empty => self.export().await,
            }
        }
        self.log_lost();
    }

    async fn export(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let spans = std::mem::take(&mut self.batch);
        let count = spans.len() as u64;
        let failure = match timeout(EXPORT_TIMEOUT, self.exporter.export(spans)).await {
            Ok(exported) => exported.err().map(|error| error.to_string()),
            Err(_) => Some(format!("no answer within {EXPORT_TIMEOUT:?}")),
        };
        if let Some(failure) = failure {
            self.lost += count;
            self.reason = failure;
        }
        let is_due = self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if is_due {
            self.log_lost();
        }
    }

    fn log_lost(&mut self) {
        let overflowed = self.overflowed.swap(0, Ordering::Relaxed);
        let (lost, reason) = (
            std::mem::take(&mut self.lost),
            std::mem::take(&mut self.reason),
        );
        if lost + overflowed > 0 {
            tracing::warn!(
                lost,
                overflowed,
                reason,
                "spans lost: the collector fails or is too slow"
            );
            self.logged_at = Some(Instant::now());
        }
    }
}
