//! The journal's thread: collects a group, commits it, answers, hands over what it brought, one
//! step at a time, with anything between two of them. Its queue and its hand-over are those of
//! `journal/writer` and `journal/handover`.

use std::collections::VecDeque;

use super::World;
use super::disk::Routing;
use super::events::Fresh;
use super::tally::Seen;
use crate::journal::{Change, Committed};

/// How often the disk is looked at when nothing else happens.
pub(super) const TICK: u64 = 500;

pub(super) enum Request {
    Append(Vec<Fresh>),
    Changes(Vec<Change>),
    SetRouting(Routing),
    Stop,
}

#[derive(Default)]
pub(super) struct Group {
    changes: Vec<Change>,
    webhooks: Vec<Vec<Fresh>>,
}

#[derive(Default)]
pub(super) enum Stage {
    #[default]
    Idle,
    /// Waits for the fsync.
    Committing(Group),
    /// On the disk; nobody was told.
    Answering(Committed),
    /// Answered; the forwarder was not told.
    HandingOver(Committed),
    /// Closed.
    Stopped,
}

#[derive(Default)]
pub(super) struct Writer {
    pub(super) inbox: VecDeque<Request>,
    unsaved: Vec<Change>,
    pub(super) stage: Stage,
    has_write_error: bool,
    is_stopping: bool,
    pub(super) is_disk_full: bool,
    pub(super) ticked_at: u64,
    /// Handed over, not yet looked at.
    pub(super) news: VecDeque<Committed>,
}

impl Writer {
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::Stopped)
            && self.inbox.is_empty()
            && self.unsaved.is_empty()
            && self.news.is_empty()
    }

    pub(super) fn has_to_tick(&self) -> bool {
        matches!(self.stage, Stage::Idle) && (!self.unsaved.is_empty() || self.has_write_error)
    }

    pub(super) fn is_stopped(&self) -> bool {
        matches!(self.stage, Stage::Stopped)
    }

    /// Of a new process on the same disk.
    pub(super) fn restart(&mut self, now: u64) {
        *self = Self {
            is_disk_full: self.is_disk_full,
            ticked_at: now,
            ..Self::default()
        };
    }
}

impl World {
    /// Takes what waits, or the first part of it: the rest comes while this one is committed.
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
                Some(Request::Append(events)) if self.writer.has_write_error => {
                    self.tally.saw(Seen::Refused503);
                    self.story
                        .tell(|| format!("503 to {} events", events.len()));
                }
                Some(Request::Append(events)) => group.webhooks.push(events),
                Some(Request::Changes(changes)) => group.changes.extend(changes),
                Some(Request::SetRouting(routing)) => self.set_routing(routing),
                Some(Request::Stop) => {
                    self.writer.is_stopping = true;
                    break;
                }
                None => break,
            }
        }
        self.story.mark(group.changes.len() as u64);
        if group.changes.is_empty() && group.webhooks.is_empty() {
            self.end_of_group();
        } else {
            self.writer.stage = Stage::Committing(group);
        }
    }

    fn set_routing(&mut self, routing: Routing) {
        let is_done = !self.writer.is_disk_full;
        if is_done {
            self.disk.reroute(routing);
            self.tally.saw(Seen::Rerouted);
        } else {
            self.writer.has_write_error = true;
            self.tally.saw(Seen::RerouteFailed);
        }
        self.story
            .tell(|| format!("the journal reroutes: {is_done}"));
        self.forwarder.rerouted = Some(is_done);
    }

    /// The commit returns.
    pub(super) fn land(&mut self) {
        let Stage::Committing(group) = std::mem::take(&mut self.writer.stage) else {
            return;
        };
        if self.writer.is_disk_full {
            self.fail(group);
            return;
        }
        let committed = self.apply(group);
        self.writer.has_write_error = false;
        self.writer.stage = Stage::Answering(committed);
    }

    fn fail(&mut self, group: Group) {
        self.tally.saw(Seen::CommitFailed);
        self.story.tell(|| {
            let (changes, webhooks) = (group.changes.len(), group.webhooks.len());
            format!("a commit of {changes} changes, {webhooks} webhooks fails: disk full")
        });
        self.writer.unsaved = group.changes;
        self.writer.has_write_error = true;
        self.end_of_group();
    }

    /// The group is on the disk, whether anybody hears of it or not.
    fn apply(&mut self, group: Group) -> Committed {
        let mut committed = Committed::default();
        for change in group.changes {
            let ack = self.disk.change(&change);
            self.judge.landed(&change);
            if let crate::journal::Ack::Settled {
                promoted: Some(_), ..
            } = ack
            {
                self.tally.saw(Seen::Promoted);
            }
            committed.acks.push(ack);
        }
        for fresh in group.webhooks.iter().flatten() {
            let held = self.disk.append(fresh, &self.maker);
            self.judge.appended(held.seq, fresh);
            committed.fresh.push(held);
        }
        self.judge.counters_add_up(&self.disk);
        self.story.mark(committed.fresh.len() as u64);
        self.story.tell(|| {
            let fresh = committed.fresh.iter();
            let fresh: Vec<_> = fresh
                .map(|held| {
                    (
                        held.seq,
                        held.event.session().unwrap_or("reject"),
                        held.route_id,
                    )
                })
                .collect();
            format!("committed {:?}, fresh {fresh:?}", committed.acks)
        });
        committed
    }

    /// The senders of the group hear their 2xx.
    pub(super) fn answer(&mut self) {
        let Stage::Answering(mut committed) = std::mem::take(&mut self.writer.stage) else {
            return;
        };
        for held in &committed.fresh {
            self.judge.answered(held.seq);
            self.tally.saw(Seen::Appended);
        }
        if self.random.one_in(10) && !committed.fresh.is_empty() {
            // No memory for bodies on their way.
            self.tally.saw(Seen::BodyLeftBehind);
            committed
                .fresh
                .iter_mut()
                .for_each(super::forwarder::leave_body);
        }
        self.writer.stage = Stage::HandingOver(committed);
    }

    /// Waits for room in the queue, unless nobody takes from it any more.
    pub(super) fn can_hand_over(&self) -> bool {
        self.writer.news.len() < self.scenario.handover_max || self.forwarder.has_ended
    }

    pub(super) fn hand_over(&mut self) {
        if let Stage::HandingOver(committed) = std::mem::take(&mut self.writer.stage)
            && !self.forwarder.has_ended
        {
            self.writer.news.push_back(committed);
        }
        self.end_of_group();
    }

    fn end_of_group(&mut self) {
        self.writer.stage = Stage::Idle;
        if self.writer.is_stopping {
            self.stop_writer();
        }
    }

    /// The last changes, as far as the disk takes them.
    fn stop_writer(&mut self) {
        let mut changes = std::mem::take(&mut self.writer.unsaved);
        for request in std::mem::take(&mut self.writer.inbox) {
            if let Request::Changes(more) = request {
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

    /// Now and then: is the disk back?
    pub(super) fn tick(&mut self) {
        self.writer.ticked_at = self.now;
        if !self.writer.unsaved.is_empty() {
            self.writer.stage = Stage::Committing(Group {
                changes: std::mem::take(&mut self.writer.unsaved),
                webhooks: Vec::new(),
            });
        } else if !self.writer.is_disk_full {
            self.writer.has_write_error = false;
        }
    }

    /// The process is gone; a commit that was under way landed or did not.
    pub(super) fn crash_writer(&mut self) {
        let seen = match std::mem::take(&mut self.writer.stage) {
            Stage::Committing(group) => {
                if !self.writer.is_disk_full && self.random.one_in(2) {
                    self.apply(group);
                }
                Seen::CrashInCommit
            }
            Stage::Answering(_) => Seen::CrashBeforeAnswer,
            Stage::HandingOver(_) => Seen::CrashBeforeHandover,
            Stage::Idle | Stage::Stopped if self.writer.news.is_empty() => Seen::CrashAtRest,
            Stage::Idle | Stage::Stopped => Seen::CrashWithNews,
        };
        self.tally.saw(seen);
        self.writer.restart(self.now);
    }
}
