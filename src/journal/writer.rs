//! One thread that owns the writing connection. While one commit waits for its fsync the next
//! group collects; appends and settlements share the transaction; answers go out after it.
//!
//! Errors: a full disk refuses webhooks until there is room, settlements are kept and tried
//! again. A failed fsync or a damaged database ends the process: the next fsync of the same file
//! would report success for data that is gone, and only a restart replays the WAL.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{ErrorCode, ffi};
use tokio::sync::{mpsc, oneshot};

use super::rows::{Change, Committed};
use super::shared::Shared;
use super::store::{Group, Retention, Store};
use super::{AppendError, directory};
use crate::webhook::Webhook;
use crate::webhook::routing::Routing;

/// Webhooks in one transaction at most.
const GROUP_WEBHOOKS_MAX: usize = 512;
/// Their bodies together, unless one alone is larger.
const GROUP_BYTES_MAX: u64 = 8 << 20;
/// Changes in one transaction at most.
const GROUP_CHANGES_MAX: usize = 4096;
/// Written bytes between two checkpoints.
const CHECKPOINT_BYTES: u64 = 4 << 20;
/// What a row costs in the WAL beside its body, roughly.
const ROW_BYTES: u64 = 512;
/// How often the disk is looked at when nothing else happens.
const TICK: Duration = Duration::from_millis(500);
/// Pages given back to the file system in one go.
const SHRINK_PAGES: u32 = 1024;

/// What the writer is asked to do.
pub(super) enum Request {
    Append(Webhook, oneshot::Sender<Result<(), AppendError>>),
    Changes(Vec<Change>),
    SetRouting(Arc<Routing>, oneshot::Sender<Result<(), AppendError>>),
    Stop(oneshot::Sender<()>),
}

/// The limits of `[journal]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) backlog_bytes_max: u64,
    pub(super) disk_free_min: u64,
    pub(super) retention: Retention,
}

pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) database: PathBuf,
    pub(super) limits: Limits,
    pub(super) requests: Receiver<Request>,
    pub(super) committed: mpsc::Sender<Committed>,
    pub(super) shared: Arc<Shared>,
    pub(super) state: State,
}

/// What the writer remembers between two groups.
#[derive(Default)]
pub(super) struct State {
    /// Changes that are not on the disk yet: bounded by what the forwarder has in its hands.
    unsaved: Vec<Change>,
    replies: Vec<oneshot::Sender<Result<(), AppendError>>>,
    stopping: Option<oneshot::Sender<()>>,
    written_bytes: u64,
    ticked: Option<Instant>,
    /// The database file as it was opened: device and inode.
    identity: (u64, u64),
    disk_error: Option<AppendError>,
}

impl Writer {
    /// Works until asked to stop or until the disk betrays it.
    pub(super) fn run(mut self) {
        self.state.identity = self.file_identity();
        self.tick();
        while self.state.stopping.is_none() && !self.shared.has_failed() {
            let group = self.collect();
            self.commit(group);
            if self
                .state
                .ticked
                .is_none_or(|ticked| ticked.elapsed() >= TICK)
            {
                self.tick();
            }
        }
        self.stop();
    }

    /// Waits for something to do, then takes what else is there.
    fn collect(&mut self) -> Group {
        let mut group = Group {
            changes: std::mem::take(&mut self.state.unsaved),
            webhooks: vec![],
        };
        let mut bytes = 0;
        let mut next = match self.requests.recv_timeout(TICK) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.state.stopping = Some(oneshot::channel().0);
                None
            }
        };
        while let Some(request) = next {
            self.accept(request, &mut group, &mut bytes);
            let is_full = group.webhooks.len() >= GROUP_WEBHOOKS_MAX
                || bytes >= GROUP_BYTES_MAX
                || group.changes.len() >= GROUP_CHANGES_MAX;
            if is_full || self.state.stopping.is_some() {
                break;
            }
            next = self.requests.try_recv().ok();
        }
        group
    }

    fn accept(&mut self, request: Request, group: &mut Group, bytes: &mut u64) {
        match request {
            Request::Append(webhook, reply) => match self.refusal(&webhook, *bytes) {
                Some(refusal) => drop(reply.send(Err(refusal))),
                None => {
                    *bytes += size(&webhook);
                    group.webhooks.push(webhook);
                    self.state.replies.push(reply);
                }
            },
            Request::Changes(changes) => group.changes.extend(changes),
            Request::SetRouting(routing, reply) => {
                let result = self
                    .store
                    .set_routing(routing)
                    .map_err(|error| self.blame(&error));
                let _ = reply.send(result);
            }
            Request::Stop(done) => self.state.stopping = Some(done),
        }
    }

    fn refusal(&self, webhook: &Webhook, group_bytes: u64) -> Option<AppendError> {
        let backlog = self.store.backlog_bytes() + group_bytes + size(webhook);
        if backlog > self.limits.backlog_bytes_max {
            return Some(AppendError::BacklogFull);
        }
        self.state.disk_error.clone()
    }

    fn commit(&mut self, group: Group) {
        if group.changes.is_empty() && group.webhooks.is_empty() {
            return;
        }
        match self
            .store
            .commit(&group, Timestamp::now(), &self.limits.retention)
        {
            Ok(committed) if self.is_still_there() => self.committed(&group, committed),
            Ok(_) => {
                self.state.unsaved = group.changes;
                self.answer(&Err(AppendError::DiskFailing));
            }
            Err(error) => {
                self.state.unsaved = group.changes;
                let refusal = self.blame(&error);
                self.answer(&Err(refusal));
            }
        }
    }

    fn committed(&mut self, group: &Group, committed: Committed) {
        self.state.disk_error = None;
        self.shared
            .publish(self.store.totals(), self.store.commit_time);
        self.shared.set_refusal(self.standing_refusal());
        self.answer(&Ok(()));
        self.state.written_bytes += group.webhooks.iter().map(size).sum::<u64>()
            + ROW_BYTES * (committed.fresh.len() + committed.acks.len()) as u64;
        // Waits only for a task that never waits for this thread. Without one there is nobody to
        // tell: the forwarder has ended.
        let _ = self.committed.blocking_send(committed);
        if self.state.written_bytes >= CHECKPOINT_BYTES {
            self.checkpoint();
        }
    }

    fn answer(&mut self, result: &Result<(), AppendError>) {
        for reply in self.state.replies.drain(..) {
            // A sender that went away does not want to know.
            let _ = reply.send(result.clone());
        }
    }

    fn checkpoint(&mut self) {
        match self.store.checkpoint() {
            Ok(true) => self.state.written_bytes = 0,
            // A reader is in the way: again a little later.
            Ok(false) => self.state.written_bytes = CHECKPOINT_BYTES / 2,
            Err(error) => drop(self.blame(&error)),
        }
    }

    /// Looks at the disk, at what is old and at what could not be written before.
    fn tick(&mut self) {
        self.state.ticked = Some(Instant::now());
        if !self.is_still_there() {
            return;
        }
        self.state.disk_error = self.free_space_error();
        let group = Group {
            changes: std::mem::take(&mut self.state.unsaved),
            webhooks: Vec::new(),
        };
        let result = self
            .store
            .commit(&group, Timestamp::now(), &self.limits.retention);
        match result {
            Ok(committed) if !committed.acks.is_empty() => self.committed(&group, committed),
            Ok(_) => self.probe(),
            Err(error) => {
                self.state.unsaved = group.changes;
                drop(self.blame(&error));
            }
        }
        self.housekeeping();
        self.shared.set_refusal(self.standing_refusal());
    }

    /// After a failure: is the disk back?
    fn probe(&mut self) {
        if self
            .shared
            .refusal()
            .is_some_and(|refusal| refusal != AppendError::BacklogFull)
            && let Err(error) = self.store.probe()
        {
            drop(self.blame(&error));
        }
    }

    fn housekeeping(&mut self) {
        let oldest = self.store.oldest().unwrap_or_default();
        self.shared.set_oldest(oldest);
        if let Err(error) = self.store.shrink(SHRINK_PAGES) {
            drop(self.blame(&error));
        }
        self.shared.publish(self.store.totals(), Duration::ZERO);
    }

    fn standing_refusal(&self) -> Option<AppendError> {
        if self.store.backlog_bytes() >= self.limits.backlog_bytes_max {
            return Some(AppendError::BacklogFull);
        }
        self.state.disk_error.clone()
    }

    fn free_space_error(&self) -> Option<AppendError> {
        let free = directory::free_bytes(self.database.parent()?).ok()?;
        (free < self.limits.disk_free_min).then_some(AppendError::DiskFull)
    }

    /// A journal whose file was removed or replaced would go on writing into nothing.
    fn is_still_there(&mut self) -> bool {
        if self.file_identity() == self.state.identity {
            return true;
        }
        if self.state.disk_error != Some(AppendError::DiskFailing) {
            tracing::error!(
                database = %self.database.display(),
                "the journal's file was removed or replaced; webhooks are refused until a restart"
            );
        }
        self.state.disk_error = Some(AppendError::DiskFailing);
        self.shared.set_refusal(Some(AppendError::DiskFailing));
        false
    }

    fn file_identity(&self) -> (u64, u64) {
        fs::metadata(&self.database).map_or((0, 0), |found| (found.dev(), found.ino()))
    }

    /// What an error means for webhooks; ends the writer if it cannot be survived.
    fn blame(&mut self, error: &rusqlite::Error) -> AppendError {
        let refusal = match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => AppendError::DiskFull,
            _ => AppendError::DiskFailing,
        };
        if self.state.disk_error.as_ref() != Some(&refusal) {
            tracing::error!(%error, "writing the journal failed; webhooks are refused until it works");
        }
        self.state.disk_error = Some(refusal.clone());
        self.shared.set_refusal(Some(refusal.clone()));
        if is_fatal(error) {
            if is_damage(error) {
                super::damage::suspect(&self.database);
            }
            self.shared.fail(error.to_string(), is_damage(error));
        }
        refusal
    }

    fn stop(mut self) {
        if self.shared.has_failed() {
            self.answer(&Err(AppendError::DiskFailing));
            // Closing the database would write into it once more.
            std::mem::forget(self.store);
            return;
        }
        let changes = std::mem::take(&mut self.state.unsaved);
        let changes = self
            .requests
            .try_iter()
            .fold(changes, |mut changes, request| {
                match request {
                    Request::Changes(more) => changes.extend(more),
                    Request::Append(_, reply) | Request::SetRouting(_, reply) => {
                        drop(reply.send(Err(AppendError::Closed)));
                    }
                    Request::Stop(done) => drop(done.send(())),
                }
                changes
            });
        let group = Group {
            changes,
            webhooks: Vec::new(),
        };
        if let Err(error) = self
            .store
            .commit(&group, Timestamp::now(), &self.limits.retention)
        {
            tracing::warn!(
                %error,
                events = group.changes.len(),
                "the last settlements could not be written; these events will be published again"
            );
        }
        if let Ok(true) = self.store.checkpoint() {}
        drop(self.store);
        if let Some(done) = self.state.stopping {
            let _ = done.send(());
        }
    }
}

fn size(webhook: &Webhook) -> u64 {
    webhook
        .events
        .iter()
        .map(|event| event.body.len() as u64)
        .sum()
}

fn is_fatal(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    is_damage(error)
        || matches!(
            code,
            Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
        )
}

/// Whether SQLite reports a damaged database.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}
