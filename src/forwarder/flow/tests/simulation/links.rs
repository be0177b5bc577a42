//! The two connections, as `rabbitmq/link` runs them: commands are queued, windows are refused
//! while there is no connection, and every window of a lost connection is reported before the loss.

use std::collections::VecDeque;

use super::World;
use super::broker::Sent;
use super::coverage::Seen;
use crate::journal::QueuedEvent;
use crate::rabbitmq::{Link, Outcome, PublisherEvent};

pub(super) const LINKS: [Link; 2] = [Link::Main, Link::Probe];

pub(super) enum Command {
    Publish(u64, Vec<QueuedEvent>),
    Reconnect,
}

pub(super) enum State {
    /// Down. The main link connects at this time, the probe link when a window requests it.
    Down(u64),
    /// The probe link is connecting for this window.
    Connecting(u64, Vec<QueuedEvent>),
    Up,
}

pub(super) struct LinkTask {
    pub(super) commands: VecDeque<Command>,
    pub(super) state: State,
    pub(super) windows: Vec<Sent>,
    /// Whether the broker reads nothing from this connection.
    pub(super) is_blocked: bool,
}

impl LinkTask {
    pub(super) fn new() -> Self {
        Self {
            commands: VecDeque::new(),
            state: State::Down(0),
            windows: Vec::new(),
            is_blocked: false,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }
}

pub(super) fn index(link: Link) -> usize {
    usize::from(link == Link::Probe)
}

impl World {
    pub(super) fn link(&mut self, link: Link) -> &mut LinkTask {
        &mut self.links[index(link)]
    }

    pub(super) fn report(&mut self, report: PublisherEvent) {
        // It does not listen after its end.
        let _ = self.forwarder.reports.try_send(report);
    }

    /// Whether a connection attempt can end. Before it, queued commands are refused.
    pub(super) fn can_connect(&self, link: Link) -> bool {
        let task = &self.links[index(link)];
        match &task.state {
            State::Down(due) => link == Link::Main && self.now >= *due && task.commands.is_empty(),
            State::Connecting(..) => true,
            State::Up => false,
        }
    }

    pub(super) fn can_be_commanded(&self, link: Link) -> bool {
        let task = &self.links[index(link)];
        !task.commands.is_empty() && !matches!(task.state, State::Connecting(..))
    }

    /// Processes the next command.
    pub(super) fn command(&mut self, link: Link) {
        let Some(command) = self.link(link).commands.pop_front() else {
            return;
        };
        let is_up = self.link(link).is_up();
        match command {
            Command::Publish(id, events) if is_up => {
                let sent = Sent::new(id, events);
                self.link(link).windows.push(sent);
            }
            Command::Publish(id, events) if link == Link::Probe => {
                self.link(link).state = State::Connecting(id, events);
            }
            Command::Publish(id, events) => self.refuse(id, events.len()),
            Command::Reconnect if is_up => self.lose(link),
            Command::Reconnect => {}
        }
    }

    /// Ends an attempt to connect.
    pub(super) fn connect(&mut self, link: Link) {
        let fails = self.broker.is_unreachable || self.broker.is_frozen;
        let delay = 10 + self.random.below(200);
        let due = self.now + delay;
        self.trace.log(|| format!("{link:?} connects: {}", !fails));
        let before = std::mem::replace(&mut self.link(link).state, State::Down(due));
        let asked_by = match before {
            State::Connecting(id, events) => Some((id, events)),
            State::Down(_) | State::Up => None,
        };
        if fails {
            self.coverage.saw(Seen::ConnectFailed);
            if let Some((id, events)) = asked_by {
                self.refuse(id, events.len());
                self.refuse_waiting(link);
            }
            return;
        }
        self.link(link).state = State::Up;
        self.link(link).is_blocked = false;
        self.report(PublisherEvent::Up(link));
        if let Some((id, events)) = asked_by {
            let sent = Sent::new(id, events);
            self.link(link).windows.push(sent);
        }
        if self.broker.is_alarmed {
            self.block(link);
        }
    }

    pub(super) fn block(&mut self, link: Link) {
        if self.link(link).is_up() && !self.link(link).is_blocked {
            self.link(link).is_blocked = true;
            self.coverage.saw(Seen::Blocked);
            self.report(PublisherEvent::Blocked(link));
        }
    }

    pub(super) fn unblock(&mut self, link: Link) {
        if std::mem::take(&mut self.link(link).is_blocked) {
            self.report(PublisherEvent::Unblocked(link));
        }
    }

    /// Loses the connection. It is unknown which of its unconfirmed messages the broker has or will
    /// have.
    pub(super) fn lose(&mut self, link: Link) {
        if !self.link(link).is_up() {
            return;
        }
        self.coverage.saw(Seen::ConnectionLost);
        self.trace.log(|| format!("{link:?} is lost"));
        let mut windows = std::mem::take(&mut self.link(link).windows);
        while !windows.is_empty() {
            let which = self.random.index(windows.len());
            let sent = windows.swap_remove(which);
            self.refuse(sent.id, sent.events.len());
            self.abandon(sent);
        }
        let delay = 1 + self.random.below(100);
        let due = self.now + delay;
        let task = self.link(link);
        (task.state, task.is_blocked) = (State::Down(due), false);
        self.report(PublisherEvent::Down(link));
    }

    /// Loses the connection because the process has ended; nothing is reported.
    pub(super) fn crash_link(&mut self, link: Link) {
        let task = std::mem::replace(self.link(link), LinkTask::new());
        if !task.windows.is_empty() {
            self.coverage.saw(Seen::CrashWithWindow);
        }
        for sent in task.windows {
            self.abandon(sent);
        }
    }

    fn refuse(&mut self, id: u64, events: usize) {
        self.report(PublisherEvent::Done(id, vec![Outcome::Unknown; events]));
    }

    fn refuse_waiting(&mut self, link: Link) {
        for command in std::mem::take(&mut self.link(link).commands) {
            if let Command::Publish(id, events) = command {
                self.refuse(id, events.len());
            }
        }
    }
}
