//! The journal's thread: collects a group, commits it, answers, and hands the results over. Each of
//! these is a separate step, with any other steps in between. Its queue and its handover follow
//! `journal/writer` and `journal/handover`.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use tokio::sync::oneshot;

use super::World;
use super::coverage::Seen;
use super::disk::{Routing, WINDOW_AGE_MAX};
use super::events::Fresh;
use crate::journal::{Committed, Seq, Transition, WriteError, strip_body};

/// Interval of the upkeep when there are no requests, in milliseconds.
pub(super) const TICK: u64 = 500;

pub(super) enum WriterRequest {
    Append(Vec<Fresh>),
    Changes(Vec<Transition>),
    SetRouting(Routing, oneshot::Sender<Result<(), WriteError>>),
    Stop,
}

#[derive(Default)]
pub(super) struct Group {
    changes: Vec<Transition>,
    webhooks: Vec<Vec<Fresh>>,
}

#[derive(Default)]
pub(super) enum Stage {
    #[default]
    Idle,
    /// Waits for the fsync of the commit.
    Committing(Group),
    /// Committed, but not answered. Contains the numbers of all appended events, whether they are
    /// handed over or not.
    Answering(Committed, RangeInclusive<Seq>),
    /// Answered, but not handed over to the forwarder.
    HandingOver(Committed),
    /// The journal is closed.
    Stopped,
}

#[derive(Default)]
pub(super) struct Writer {
    pub(super) inbox: VecDeque<WriterRequest>,
    unsaved: Vec<Transition>,
    pub(super) stage: Stage,
    has_write_error: bool,
    is_stopping: bool,
    pub(super) is_disk_full: bool,
    pub(super) ticked_at: u64,
}

impl Writer {
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::Stopped)
            && self.inbox.is_empty()
            && self.unsaved.is_empty()
    }

    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.stage, Stage::Stopped)
    }

    /// Starts again in a new process on the same disk.
    pub(super) fn restart(&mut self, now: u64) {
        *self = Self {
            is_disk_full: self.is_disk_full,
            ticked_at: now,
            ..Self::default()
        };
    }
}

impl World {
    /// Collects all waiting requests, or only the first ones, as if the rest arrived during the
    /// commit.
    pub(super) fn collect(&mut self) {
        let mut group = Group {
            changes: std::mem::take(&mut self.writer.unsaved),
            webhooks: Vec::new(),
        };
        let waiting = self.writer.inbox.len();
        let many = if self.random.one_in(3) {
            1 + self.random.index(waiting)
        } else {
            waiting
        };
        for _ in 0..many {
            match self.writer.inbox.pop_front() {
                Some(WriterRequest::Append(events)) if self.writer.has_write_error => {
                    self.coverage.saw(Seen::Refused503);
                    self.trace.log(|| format!("503 to {} events", events.len()));
                }
                Some(WriterRequest::Append(events)) => group.webhooks.push(events),
                Some(WriterRequest::Changes(changes)) => group.changes.extend(changes),
                Some(WriterRequest::SetRouting(routing, reply)) => {
                    // The process may have crashed or stopped.
                    let _ = reply.send(self.set_routing(routing));
                }
                Some(WriterRequest::Stop) => {
                    self.writer.is_stopping = true;
                    break;
                }
                None => break,
            }
        }
        self.trace.mark(group.changes.len() as u64);
        if group.changes.is_empty() && group.webhooks.is_empty() {
            self.end_of_group();
        } else {
            self.writer.stage = Stage::Committing(group);
        }
    }

    fn set_routing(&mut self, routing: Routing) -> Result<(), WriteError> {
        let is_done = !self.writer.is_disk_full;
        if is_done {
            self.disk.reroute(routing, self.now);
            self.coverage.saw(Seen::Rerouted);
        } else {
            self.roll_back();
            self.coverage.saw(Seen::RerouteFailed);
        }
        self.trace
            .log(|| format!("the journal reroutes: {is_done}"));
        is_done.then_some(()).ok_or(WriteError::DiskFull)
    }

    /// Ends the commit, successfully or not.
    pub(super) fn land(&mut self) {
        let Stage::Committing(group) = std::mem::take(&mut self.writer.stage) else {
            return;
        };
        if self.writer.is_disk_full {
            self.fail(group);
            return;
        }
        let appended = self.disk.last_seq + 1;
        let committed = self.apply(group);
        self.writer.has_write_error = false;
        self.writer.stage = Stage::Answering(committed, appended..=self.disk.last_seq);
    }

    fn fail(&mut self, group: Group) {
        self.coverage.saw(Seen::CommitFailed);
        self.trace.log(|| {
            let (changes, webhooks) = (group.changes.len(), group.webhooks.len());
            format!("a commit of {changes} changes, {webhooks} webhooks fails: disk full")
        });
        self.writer.unsaved = group.changes;
        self.roll_back();
        self.end_of_group();
    }

    /// Rolls back a transaction.
    fn roll_back(&mut self) {
        self.writer.has_write_error = true;
        if self.disk.tail().is_some() {
            self.coverage.saw(Seen::ReadBackWithTail);
        }
        self.disk.roll_back(self.now);
    }

    /// Applies a group to the disk, whether it will be answered or not.
    fn apply(&mut self, group: Group) -> Committed {
        let mut committed = Committed::default();
        for change in group.changes {
            let ack = self.disk.change(&change);
            self.judge.landed(&change);
            if let crate::journal::TransitionApplied::Completed {
                promoted: Some(_), ..
            } = ack
            {
                self.coverage.saw(Seen::Promoted);
            }
            committed.applied.push(ack);
        }
        for webhook in &group.webhooks {
            for part in webhook.chunks(self.scenario.part_max) {
                let first = self.disk.last_seq + 1;
                let fresh = self.disk.append(part, self.now);
                for (seq, event) in (first..).zip(part) {
                    self.judge.appended(seq, event);
                }
                committed.fresh.extend(fresh);
            }
        }
        let behind = self.disk.renew_window(self.is_ageing(), self.now);
        committed.behind.extend(behind);
        self.trace.mark(committed.fresh.len() as u64);
        self.trace.mark(committed.behind.len() as u64);
        self.trace.log(|| {
            let fresh = committed.fresh.iter();
            let fresh: Vec<_> = fresh
                .map(|queued| {
                    (
                        queued.seq,
                        queued.event.session().unwrap_or("reject"),
                        queued.route_id,
                    )
                })
                .collect();
            let (applied, behind) = (&committed.applied, &committed.behind);
            let (last, tail) = (self.disk.last_seq, self.disk.tail());
            format!(
                "committed {applied:?}, fresh {fresh:?}, behind {behind:?}; {last}, tail {tail:?}"
            )
        });
        committed
    }

    /// Answers 2xx to the senders of the group.
    pub(super) fn answer(&mut self) {
        let stage = std::mem::take(&mut self.writer.stage);
        let Stage::Answering(mut committed, appended) = stage else {
            return;
        };
        for seq in appended {
            self.judge.answered(seq);
            self.coverage.saw(Seen::Appended);
        }
        if self.random.one_in(10) && !committed.fresh.is_empty() {
            // As if there were no memory for bodies during the handover.
            self.coverage.saw(Seen::BodyLeftBehind);
            committed.fresh.iter_mut().for_each(strip_body);
        }
        self.writer.stage = Stage::HandingOver(committed);
    }

    pub(super) fn hand_over(&mut self) {
        if let Stage::HandingOver(committed) = std::mem::take(&mut self.writer.stage) {
            self.forwarder.hand_over(committed);
        }
        self.end_of_group();
    }

    fn end_of_group(&mut self) {
        self.writer.stage = Stage::Idle;
        if self.writer.is_stopping {
            self.stop_writer();
        }
    }

    /// Commits the last changes, unless the disk is full, and closes the journal.
    fn stop_writer(&mut self) {
        let mut changes = std::mem::take(&mut self.writer.unsaved);
        for request in std::mem::take(&mut self.writer.inbox) {
            if let WriterRequest::Changes(more) = request {
                changes.extend(more);
            }
        }
        if self.writer.is_disk_full {
            self.judge.may_repeat();
        } else {
            let webhooks = Vec::new();
            self.apply(Group { changes, webhooks });
        }
        self.writer.stage = Stage::Stopped;
    }

    /// When the next upkeep is due, if there is a reason for one.
    pub(super) fn ticks_at(&self) -> Option<u64> {
        let writer = &self.writer;
        if !matches!(writer.stage, Stage::Idle) {
            return None;
        }
        let next = writer.ticked_at + TICK;
        if !writer.unsaved.is_empty() || writer.has_write_error || self.disk.can_load() {
            return Some(next);
        }
        let since = self.disk.oldest()?.max(self.forwarder.connected_since?);
        Some(next.max(since + WINDOW_AGE_MAX))
    }

    /// Whether old events of the window get rows. Not while the broker is away, because then no
    /// route would make room for another one.
    fn is_ageing(&self) -> bool {
        let since = self.forwarder.connected_since;
        since.is_some_and(|since| self.now >= since + WINDOW_AGE_MAX)
    }

    /// Upkeep: commits pending changes if the disk has room again, and updates the window.
    pub(super) fn tick(&mut self) {
        self.writer.ticked_at = self.now;
        if self.writer.unsaved.is_empty() && self.writer.has_write_error {
            if self.writer.is_disk_full {
                return;
            }
            self.writer.has_write_error = false;
        }
        if self.writer.unsaved.is_empty() && self.disk.can_load() {
            self.coverage.saw(Seen::LoadedByTick);
        }
        self.writer.stage = Stage::Committing(Group {
            changes: std::mem::take(&mut self.writer.unsaved),
            webhooks: Vec::new(),
        });
    }

    /// Crashes the writer. A commit in progress has or has not reached the disk.
    pub(super) fn crash_writer(&mut self) {
        let seen = match std::mem::take(&mut self.writer.stage) {
            Stage::Committing(group) => {
                if !self.writer.is_disk_full && self.random.one_in(2) {
                    self.apply(group);
                }
                Seen::CrashInCommit
            }
            Stage::Answering(..) => Seen::CrashBeforeAnswer,
            Stage::HandingOver(_) => Seen::CrashBeforeHandover,
            Stage::Idle | Stage::Stopped if self.forwarder.applied.is_empty() => Seen::CrashAtRest,
            Stage::Idle | Stage::Stopped => Seen::CrashWithCommits,
        };
        self.coverage.saw(seen);
        self.writer.restart(self.now);
    }
}
