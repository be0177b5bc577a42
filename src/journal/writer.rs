//! One thread owns the writing connection. While it waits for the fsync of a commit, it collects
//! the next group. Webhooks and completions share a transaction; answers are sent after its commit.
//!
//! Errors: on a full disk, webhooks are refused until there is room, and changes are kept and
//! written again later. A failed fsync or a damaged database ends the process: the next fsync of
//! the same file would report success for data that is lost, and only a restart replays the WAL.

mod admission;
mod checkpointer;
mod free_space;
mod maintenance;
mod reserve;
mod steady_clock;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::disk_size;
use super::handover::Handover;
use super::interface::{Committed, RouteId, Transition};
use super::locks::{LOCK_PATIENCE, is_locked};
use super::shared::Shared;
use super::store::{REROUTED_EVENTS_MAX, Retention, Store};
use super::{APPEND_PATIENCE, WriteError};
use crate::config;
use crate::failpoint::{self, Failpoint};
use crate::webhook::Webhook;
use crate::webhook::routing::Routing;
use admission::Disk;
use checkpointer::Checkpointer;
use free_space::FreeSpace;
use reserve::Reserve;
use steady_clock::SteadyClock;

/// Webhooks in one transaction, at most.
const GROUP_WEBHOOKS_MAX: usize = 512;
/// The bytes of their bodies, at most, unless a single webhook is larger.
const GROUP_BYTES_MAX: u64 = 8 << 20;
/// Changes in one transaction, at most, unless more were kept after a failure.
const GROUP_CHANGES_MAX: usize = 4096;
/// How long a webhook waits for space on the disk before it is refused.
const ROOM_PATIENCE: Duration = Duration::from_millis(800);
/// The pause between two attempts to make room while a reader prevents the WAL from being reset.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// The period of the regular work (`tick`), and the longest wait for a request.
const TICK: Duration = Duration::from_millis(500);

/// The sender to a caller that waits for an answer of the writer.
type Reply = oneshot::Sender<Result<(), WriteError>>;

/// The caller that waits for the append of a webhook.
pub(super) struct Appender {
    pub(super) since: Instant,
    /// The reservation of the webhook's memory; dropped before the answer is sent.
    pub(super) reserved: Box<dyn Send>,
    pub(super) reply: Reply,
}

impl Appender {
    fn answer(self, result: Result<(), WriteError>) {
        drop(self.reserved);
        // The caller may have dropped the receiver.
        let _ = self.reply.send(result);
    }
}

/// A request to the writer thread.
pub(super) enum WriterRequest {
    Append(Webhook, Appender),
    Changes(Vec<Transition>),
    SetRouting(Arc<Routing>, Reply),
    Stop(oneshot::Sender<()>),
}

/// The limits from the section `[journal]` of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct WriterLimits {
    pub(super) backlog_bytes_max: u64,
    pub(super) disk_free_min: u64,
    pub(super) retention: Retention,
}

impl WriterLimits {
    pub(super) fn of(config: &config::journal::JournalConfig) -> Self {
        Self {
            backlog_bytes_max: config.backlog_bytes_max,
            disk_free_min: config.disk_free_min,
            retention: Retention {
                age_max: config.retention,
                bytes_max: config.retention_bytes,
                shortage: 0,
            },
        }
    }
}

pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) database: PathBuf,
    pub(super) limits: WriterLimits,
    pub(super) requests: Receiver<WriterRequest>,
    pub(super) handover: Handover,
    pub(super) shared: Arc<Shared>,
    pub(super) state: WriterState,
}

/// The state of the writer between two groups.
#[derive(Default)]
pub(super) struct WriterState {
    /// Changes that could not be written yet. Their number is bounded by the events that the
    /// forwarder buffers.
    unsaved: Vec<Transition>,
    disk: Disk,
    free_space: FreeSpace,
    reserve: Reserve,
    checkpointer: Checkpointer,
    /// Whether rows may still need the routes of a new configuration.
    is_rerouting: bool,
    /// Bytes written to the WAL since the last checkpoint, estimated.
    written_bytes: u64,
    /// Whether a checkpoint has failed, and was logged, since the last successful one.
    is_checkpoint_failing: bool,
    ticked: Option<Instant>,
    clock: SteadyClock,
    stopping: Option<oneshot::Sender<()>>,
}

impl WriterState {
    /// The state of a writer that has not written anything yet.
    pub(super) fn of(database: &Path) -> Self {
        Self {
            disk: Disk::of(database),
            reserve: Reserve::of(database),
            checkpointer: Checkpointer::of(database),
            ..Self::default()
        }
    }
}

/// The contents of one transaction, and the callers that wait for it.
#[derive(Default)]
struct Group {
    changes: Vec<Transition>,
    webhooks: Vec<Webhook>,
    bytes: u64,
    /// The estimated size of the webhooks on disk.
    disk_bytes: u64,
    /// One per webhook, in the same order.
    appenders: Vec<Appender>,
}

impl Writer {
    /// Runs until it is asked to stop, or until a failure of the disk or the database.
    pub(super) fn run(mut self) {
        self.tick();
        while self.state.stopping.is_none() && !self.shared.has_failed() {
            let group = self.collect();
            self.commit(group);
            self.reroute();
            let is_time = |ticked: Instant| ticked.elapsed() >= TICK;
            if !self.shared.has_failed() && self.state.ticked.is_none_or(is_time) {
                self.tick();
            }
        }
        self.stop();
    }

    /// Waits for a request, then collects all further requests that are queued.
    fn collect(&mut self) -> Group {
        let mut group = Group::default();
        let patience = if self.state.is_rerouting {
            Duration::ZERO
        } else {
            TICK
        };
        let mut next = match self.requests.recv_timeout(patience) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.state.stopping = Some(oneshot::channel().0);
                None
            }
        };
        group.changes = std::mem::take(&mut self.state.unsaved);
        while let Some(request) = next {
            self.accept(request, &mut group);
            if group.is_full() || self.state.stopping.is_some() {
                break;
            }
            next = self.requests.try_recv().ok();
        }
        group
    }

    fn accept(&mut self, request: WriterRequest, group: &mut Group) {
        match request {
            WriterRequest::Append(webhook, appender) => {
                match self.refusal_of(&webhook, group.disk_bytes) {
                    Some(refusal) => appender.answer(Err(refusal)),
                    None => group.add(webhook, appender),
                }
            }
            WriterRequest::Changes(changes) => group.changes.extend(changes),
            WriterRequest::SetRouting(routing, reply) => {
                let result = self.set_routing(&routing);
                self.state.written_bytes += maintenance::COMMIT_BYTES;
                self.state.is_rerouting = true;
                let _ = reply.send(result);
            }
            WriterRequest::Stop(done) => self.state.stopping = Some(done),
        }
    }

    fn set_routing(&mut self, routing: &Arc<Routing>) -> Result<(), WriteError> {
        let began = Instant::now();
        loop {
            match self.store.set_routing(routing.clone()) {
                Err(error) if is_locked(&error) && began.elapsed() < APPEND_PATIENCE => {}
                result => return result.map_err(|error| self.classify_error(&error)),
            }
        }
    }

    /// Reroutes a page of rows between two groups.
    fn reroute(&mut self) {
        if !self.state.is_rerouting || self.shared.has_failed() {
            return;
        }
        match self.store.reroute() {
            Ok(Some(routes)) => {
                self.tell_behind(routes);
                self.written(0, REROUTED_EVENTS_MAX as usize);
            }
            Ok(None) => self.state.is_rerouting = false,
            // The next tick tries again.
            Err(error) => {
                self.state.is_rerouting = false;
                self.classify_error(&error);
            }
        }
    }

    /// Notifies the forwarder of routes with heads that no commit has handed over.
    fn tell_behind(&self, routes: BTreeSet<RouteId>) {
        if !routes.is_empty() {
            self.handover.send(Committed {
                behind: routes.into_iter().collect(),
                ..Committed::default()
            });
        }
    }

    fn commit(&mut self, mut group: Group) {
        if self.shared.has_failed() || !self.is_same_file() {
            // Only webhooks are refused. Events that were accepted earlier are still processed,
            // because a restart would not find them.
            group.refuse(&WriteError::DiskFailing);
        }
        if self.shared.has_failed() || group.changes.is_empty() && group.webhooks.is_empty() {
            return;
        }
        self.shared.set_writing(true);
        let mut result = self.write(&group);
        while let Err(error) = &result
            && self.may_write_again(error, &mut group)
        {
            result = self.write(&group);
        }
        self.shared.set_writing(false);
        match result {
            Ok(committed) => self.committed(group, committed),
            Err(error) => {
                let refusal = self.classify_error(&error);
                group.refuse(&refusal);
                self.state.unsaved = group.changes;
            }
        }
    }

    fn write(&mut self, group: &Group) -> rusqlite::Result<Committed> {
        self.reserve(group.disk_bytes)?;
        let retention = self.retention(group.disk_bytes);
        let now = Timestamp::now();
        self.update_ageing();
        let committed = self
            .store
            .commit(&group.changes, &group.webhooks, now, &retention)?;
        self.verify_commit()?;
        Ok(committed)
    }

    /// Whether to retry a group that could not be written: completed events were deleted to make
    /// room, a reader may let the WAL be reset, or another program may release its lock. Webhooks
    /// that have waited too long are refused.
    fn may_write_again(&mut self, error: &rusqlite::Error, group: &mut Group) -> bool {
        if is_locked(error) {
            let latest = APPEND_PATIENCE.saturating_sub(LOCK_PATIENCE);
            group.refuse_older(latest, &WriteError::Locked);
            return !group.webhooks.is_empty();
        }
        if !admission::is_full(error) || self.store.retained_bytes() == 0 {
            return false;
        }
        group.refuse_older(ROOM_PATIENCE, &WriteError::DiskFull);
        if self.make_room(group.disk_bytes) {
            return true;
        }
        if group.webhooks.is_empty() {
            return false;
        }
        thread::sleep(ROOM_PAUSE);
        true
    }

    fn committed(&mut self, mut group: Group, committed: Committed) {
        self.state.disk.mark_healthy();
        // Frees the memory of large bodies before their senders are answered.
        group.webhooks.clear();
        self.shared.committed(self.store.commit_time);
        // Set before the answers are sent, because a client may query `/readyz` right after one.
        self.shared.set_refusal(self.refusal());
        if self.is_same_file() {
            group.answer(&Ok(()));
        } else {
            group.refuse(&WriteError::DiskFailing);
        }
        self.measure_free_space();
        self.shared.set_refusal(self.refusal());
        let rows = committed.fresh.len() + committed.applied.len();
        self.handover.send(committed);
        self.written(group.bytes, rows);
    }

    fn stop(mut self) {
        if self.shared.has_failed() {
            // Dropping the store would close the database, which writes into it again.
            std::mem::forget(self.store);
            return;
        }
        self.state.checkpointer.end();
        let mut changes = std::mem::take(&mut self.state.unsaved);
        for request in self.requests.try_iter() {
            match request {
                WriterRequest::Changes(more) => changes.extend(more),
                WriterRequest::Append(_, appender) => appender.answer(Err(WriteError::Closed)),
                WriterRequest::SetRouting(_, reply) => drop(reply.send(Err(WriteError::Closed))),
                WriterRequest::Stop(done) => drop(done.send(())),
            }
        }
        let (now, retention) = (Timestamp::now(), self.retention(0));
        let result = self.store.commit(&changes, &[], now, &retention);
        if let Err(error) = result {
            tracing::warn!(
                %error,
                events = changes.len(),
                "the last completions could not be written; these events will be published again"
            );
        }
        failpoint::pass(Failpoint::JournalCloseBefore);
        if let Err(error) = self.store.close() {
            tracing::warn!(%error, "journal close failed; WAL left in place, nothing is lost");
        }
        failpoint::pass(Failpoint::JournalCloseAfter);
        if let Some(done) = self.state.stopping {
            let _ = done.send(());
        }
    }
}

impl Group {
    fn is_full(&self) -> bool {
        self.webhooks.len() >= GROUP_WEBHOOKS_MAX
            || self.bytes >= GROUP_BYTES_MAX
            || self.changes.len() >= GROUP_CHANGES_MAX
    }

    fn add(&mut self, webhook: Webhook, appender: Appender) {
        let bodies = webhook.events.iter().map(|event| event.body.len() as u64);
        self.bytes += bodies.sum::<u64>();
        self.disk_bytes += disk_size::of_webhook(&webhook);
        self.webhooks.push(webhook);
        self.appenders.push(appender);
    }

    /// Refuses webhooks that have waited for at least `age`.
    fn refuse_older(&mut self, age: Duration, refusal: &WriteError) {
        let appenders = std::mem::take(&mut self.appenders);
        let webhooks = std::mem::take(&mut self.webhooks);
        (self.bytes, self.disk_bytes) = (0, 0);
        for (appender, webhook) in appenders.into_iter().zip(webhooks) {
            if appender.since.elapsed() >= age {
                appender.answer(Err(refusal.clone()));
            } else {
                self.add(webhook, appender);
            }
        }
    }

    fn refuse(&mut self, refusal: &WriteError) {
        self.webhooks.clear();
        self.answer(&Err(refusal.clone()));
    }

    fn answer(&mut self, result: &Result<(), WriteError>) {
        for appender in self.appenders.drain(..) {
            appender.answer(result.clone());
        }
    }
}
