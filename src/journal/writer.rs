//! One thread that owns the writing connection. While one commit waits for its fsync the next
//! group collects; appends and settlements share the transaction; answers go out after it.
//!
//! Errors: a full disk refuses webhooks until there is room, settlements are kept and tried
//! again. A failed fsync or a damaged database ends the process: the next fsync of the same file
//! would report success for data that is gone, and only a restart replays the log.

mod disk;
mod reserve;
mod room;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

pub(super) use disk::is_damage;

use super::handover::Handover;
use super::rows::{Change, Committed};
use super::shared::Shared;
use super::store::{LOCK_PATIENCE, Retention, Store, is_locked};
use super::weight;
use super::{APPEND_PATIENCE, AppendError};
use crate::config;
use crate::failpoint::{self, Place};
use crate::webhook::Webhook;
use crate::webhook::routing::Routing;
use disk::Disk;
use reserve::Reserve;
use room::Room;

/// Webhooks in one transaction at most.
const GROUP_WEBHOOKS_MAX: usize = 512;
/// Their bodies together, unless one alone is larger.
const GROUP_BYTES_MAX: u64 = 8 << 20;
/// Changes in one transaction at most, unless more were kept after a failure.
const GROUP_CHANGES_MAX: usize = 4096;
/// How long a webhook waits for room on the disk before it is refused.
const ROOM_PATIENCE: Duration = Duration::from_millis(800);
/// Between two attempts to make room while a reader keeps the log from starting over.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// How often the disk is looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(500);

/// Whoever waits for an answer of the writer.
type Reply = oneshot::Sender<Result<(), AppendError>>;

/// Who waits for the append of a webhook.
pub(super) struct Appender {
    pub(super) since: Instant,
    /// Dropped before the answer: what the webhook's memory was reserved with.
    pub(super) reserved: Box<dyn Send>,
    pub(super) reply: Reply,
}

impl Appender {
    fn answer(self, result: Result<(), AppendError>) {
        drop(self.reserved);
        // The caller may have dropped the receiver.
        let _ = self.reply.send(result);
    }
}

/// What the writer is asked to do.
pub(super) enum Request {
    Append(Webhook, Appender),
    Changes(Vec<Change>),
    SetRouting(Arc<Routing>, Reply),
    Stop(oneshot::Sender<()>),
}

/// The limits of `[journal]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) backlog_bytes_max: u64,
    pub(super) disk_free_min: u64,
    pub(super) retention: Retention,
}

impl Limits {
    pub(super) fn of(config: &config::journal::Journal) -> Self {
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
    pub(super) limits: Limits,
    pub(super) requests: Receiver<Request>,
    pub(super) handover: Handover,
    pub(super) shared: Arc<Shared>,
    pub(super) state: State,
}

/// What the writer remembers between two groups.
#[derive(Default)]
pub(super) struct State {
    /// Changes that are not on the disk yet: bounded by what the forwarder has in its hands.
    unsaved: Vec<Change>,
    disk: Disk,
    room: Room,
    reserve: Reserve,
    /// Written since the last checkpoint, roughly.
    written_bytes: u64,
    ticked: Option<Instant>,
    stopping: Option<oneshot::Sender<()>>,
}

impl State {
    /// Of a writer that has not written anything yet.
    pub(super) fn of(database: &Path) -> Self {
        Self {
            disk: Disk::of(database),
            reserve: Reserve::of(database),
            ..Self::default()
        }
    }
}

/// What goes into one transaction, and who waits for it.
#[derive(Default)]
struct Group {
    changes: Vec<Change>,
    webhooks: Vec<Webhook>,
    bytes: u64,
    /// What the webhooks will take on the disk.
    disk_bytes: u64,
    /// As many as there are webhooks.
    appenders: Vec<Appender>,
}

impl Writer {
    /// Works until asked to stop or until the disk betrays it.
    pub(super) fn run(mut self) {
        self.tick();
        while self.state.stopping.is_none() && !self.shared.has_failed() {
            let group = self.collect();
            self.commit(group);
            let is_time = |ticked: Instant| ticked.elapsed() >= TICK;
            if !self.shared.has_failed() && self.state.ticked.is_none_or(is_time) {
                self.tick();
            }
        }
        self.stop();
    }

    /// Waits for something to do, then takes what else is there.
    fn collect(&mut self) -> Group {
        let mut group = Group::default();
        let mut next = match self.requests.recv_timeout(TICK) {
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

    fn accept(&mut self, request: Request, group: &mut Group) {
        match request {
            Request::Append(webhook, appender) => {
                match self.refusal_of(&webhook, group.disk_bytes) {
                    Some(refusal) => appender.answer(Err(refusal)),
                    None => group.add(webhook, appender),
                }
            }
            Request::Changes(changes) => group.changes.extend(changes),
            Request::SetRouting(routing, reply) => {
                let result = self.set_routing(&routing);
                self.state.written_bytes += upkeep::COMMIT_BYTES;
                let _ = reply.send(result);
            }
            Request::Stop(done) => self.state.stopping = Some(done),
        }
    }

    fn set_routing(&mut self, routing: &Arc<Routing>) -> Result<(), AppendError> {
        let began = Instant::now();
        loop {
            match self.store.set_routing(routing.clone()) {
                Err(error) if is_locked(&error) && began.elapsed() < APPEND_PATIENCE => {}
                result => return result.map_err(|error| self.blame(&error)),
            }
        }
    }

    fn commit(&mut self, mut group: Group) {
        if self.shared.has_failed() || !self.is_still_there() {
            // What is held already goes on its way: a restart would not find it.
            group.refuse(&AppendError::DiskFailing);
        }
        if self.shared.has_failed() || group.changes.is_empty() && group.webhooks.is_empty() {
            return;
        }
        self.shared.is_writing(true);
        let mut result = self.write(&group);
        while let Err(error) = &result
            && self.may_write_again(error, &mut group)
        {
            result = self.write(&group);
        }
        self.shared.is_writing(false);
        match result {
            Ok(committed) => self.committed(group, committed),
            Err(error) => {
                let refusal = self.blame(&error);
                group.refuse(&refusal);
                self.state.unsaved = group.changes;
            }
        }
    }

    fn write(&mut self, group: &Group) -> rusqlite::Result<Committed> {
        self.reserve(group.disk_bytes)?;
        let retention = self.retention(group.disk_bytes);
        let now = Timestamp::now();
        self.store
            .commit(&group.changes, &group.webhooks, now, &retention)
    }

    /// Whether to write a group again that could not be written: settled events have given way, a
    /// reader may let the log start over, or another program may have released its lock. Webhooks
    /// that have waited too long for that are refused.
    fn may_write_again(&mut self, error: &rusqlite::Error, group: &mut Group) -> bool {
        if is_locked(error) {
            let latest = APPEND_PATIENCE.saturating_sub(LOCK_PATIENCE);
            group.refuse_older(latest, &AppendError::Locked);
            return !group.webhooks.is_empty();
        }
        if !disk::is_full(error) || self.store.retained_bytes() == 0 {
            return false;
        }
        group.refuse_older(ROOM_PATIENCE, &AppendError::DiskFull);
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
        self.state.disk.works();
        // The memory of large bodies is free before their senders are answered.
        group.webhooks.clear();
        self.shared.committed(self.store.commit_time);
        // Before the answers: `/readyz` may be asked right after one.
        self.shared.set_refusal(self.refusal());
        if self.is_still_there() {
            group.answer(&Ok(()));
        } else {
            group.refuse(&AppendError::DiskFailing);
        }
        self.look_at_free_space();
        self.shared.set_refusal(self.refusal());
        let rows = committed.fresh.len() + committed.acks.len();
        self.handover.send(committed);
        self.written(group.bytes, rows);
    }

    fn stop(mut self) {
        if self.shared.has_failed() {
            // Closing the database would write into it once more.
            std::mem::forget(self.store);
            return;
        }
        let mut changes = std::mem::take(&mut self.state.unsaved);
        for request in self.requests.try_iter() {
            match request {
                Request::Changes(more) => changes.extend(more),
                Request::Append(_, appender) => appender.answer(Err(AppendError::Closed)),
                Request::SetRouting(_, reply) => drop(reply.send(Err(AppendError::Closed))),
                Request::Stop(done) => drop(done.send(())),
            }
        }
        let now = Timestamp::now();
        let result = self
            .store
            .commit(&changes, &[], now, &self.limits.retention);
        if let Err(error) = result {
            tracing::warn!(
                %error,
                events = changes.len(),
                "the last settlements could not be written; these events will be published again"
            );
        }
        failpoint::pass(Place::JournalCloseBefore);
        if let Err(error) = self.store.close() {
            tracing::warn!(%error, "closing the journal failed; nothing is lost, its log stays");
        }
        failpoint::pass(Place::JournalCloseAfter);
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
        self.bytes += size(&webhook);
        self.disk_bytes += disk_bytes(&webhook);
        self.webhooks.push(webhook);
        self.appenders.push(appender);
    }

    /// Refuses what has waited that long.
    fn refuse_older(&mut self, age: Duration, refusal: &AppendError) {
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

    fn refuse(&mut self, refusal: &AppendError) {
        self.webhooks.clear();
        self.answer(&Err(refusal.clone()));
    }

    fn answer(&mut self, result: &Result<(), AppendError>) {
        for appender in self.appenders.drain(..) {
            appender.answer(result.clone());
        }
    }
}

fn size(webhook: &Webhook) -> u64 {
    let bodies = webhook.events.iter().map(|event| event.body.len() as u64);
    bodies.sum()
}

fn disk_bytes(webhook: &Webhook) -> u64 {
    let bodies = webhook.events.iter().map(|event| event.body.len() as u64);
    bodies.map(weight::on_disk).sum()
}
