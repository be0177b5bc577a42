//! Simulated chat sessions: the events that DeskDirector would send for them, step by step. Pure:
//! the same seed gives the same events.

use std::time::Duration;

use jiff::Timestamp;

use super::WebhookKind;
use super::people::{contact, member};
use super::random::Random;
use crate::webhook::session::SessionStatus::{Completed, Created, Handled, Missed};
use crate::webhook::session::{
    Callback, CallbackType, ChatSession, CloseRecord, Lenient, Period, Reference, ReferenceType,
    Report, SessionStatus, SessionType, User,
};

/// Sequences of statuses, each with the percentage of sessions that have it or an earlier one.
const LIFECYCLES: [(u64, &[SessionStatus]); 5] = [
    (64, &[Created, Handled, Completed]),
    (78, &[Created, Missed]),
    (86, &[Created, Missed, SessionStatus::Callback, Completed]),
    (94, &[Created, SessionStatus::Callback, Handled, Completed]),
    (100, &[Created, Completed]),
];
const CALLBACK_NOTES: [&str; 4] = [
    "Please call me back",
    "I am in meetings until three",
    "The printer on the second floor again",
    "Mobile is best",
];
const CLOSE_NOTES: [&str; 4] = [
    "Password reset",
    "Restarted the spooler, prints again",
    "Ordered a new dock",
    "Waiting for the vendor",
];
/// Simulated seconds from one event to the next: a minimum, and a random number below the second.
const STEP_SECONDS: (u64, u64) = (5, 90);

/// The sessions of one connection. No other connection has them, so their events stay in order.
pub(super) struct Sessions {
    random: Random,
    /// Sessions that have not been reported yet.
    upcoming: Vec<SimulatedSession>,
    begun: Vec<SimulatedSession>,
    /// Number of changes that the begun sessions still have to go through.
    changes: usize,
    alive: u64,
    clock: Timestamp,
    number: u64,
    stride: u64,
}

/// One simulated session and its progress.
struct SimulatedSession {
    number: u64,
    is_push: bool,
    contact: User,
    member: User,
    steps: &'static [SessionStatus],
    taken: usize,
    created_at: Timestamp,
    phone: u64,
    call_note: &'static str,
    close_note: Option<&'static str>,
    ticket: Option<u64>,
}

impl Sessions {
    /// `alive` sessions at a time, or more if a webhook needs them. `share` of `shares` keeps the
    /// ids of several connections distinct.
    pub(super) fn new(
        seed: u64,
        start: Timestamp,
        alive: u64,
        (share, shares): (u64, u64),
    ) -> Self {
        let mut sessions = Self {
            random: Random(seed.wrapping_add(share.wrapping_mul(0x5851_f42d_4c95_7f2d))),
            upcoming: Vec::new(),
            begun: Vec::new(),
            changes: 0,
            alive: alive.max(1),
            clock: start,
            number: share,
            stride: shares,
        };
        sessions.upcoming = (0..sessions.alive)
            .map(|_| sessions.new_session())
            .collect();
        sessions
    }

    /// The body of the next webhook with `length` sessions, and which of the two webhooks it is.
    pub(super) fn webhook(&mut self, length: usize) -> (WebhookKind, Vec<u8>) {
        let (upcoming, begun) = (self.upcoming.len() as u64, self.begun.len() as u64);
        let is_new = self.random.below((upcoming + begun).max(1)) < upcoming;
        let kind = if is_new || self.changes < length {
            WebhookKind::New
        } else {
            WebhookKind::Changed
        };
        let events: Vec<ChatSession> = (0..length).map(|_| self.next(kind)).collect();
        let body = serde_json::to_vec(&events).expect("a session is JSON");
        (kind, body)
    }

    fn next(&mut self, kind: WebhookKind) -> ChatSession {
        let (min, more) = STEP_SECONDS;
        self.clock += Duration::from_secs(min + self.random.below(more));
        self.clock += Duration::from_nanos(100 * self.random.below(10_000_000));
        match kind {
            WebhookKind::New => self.begin(),
            WebhookKind::Changed => self.change(),
        }
    }

    fn begin(&mut self) -> ChatSession {
        let mut session = if self.upcoming.is_empty() {
            self.new_session()
        } else {
            let index = self.random.index(self.upcoming.len());
            self.upcoming.swap_remove(index)
        };
        let event = session.step(self.clock);
        self.changes += session.steps.len() - session.taken;
        self.begun.push(session);
        event
    }

    /// A random session takes its next step. A session that is over is replaced by a new one.
    fn change(&mut self) -> ChatSession {
        let index = self.random.index(self.begun.len());
        let session = &mut self.begun[index];
        let event = session.step(self.clock);
        self.changes -= 1;
        if session.taken == session.steps.len() {
            self.begun.swap_remove(index);
            if ((self.begun.len() + self.upcoming.len()) as u64) < self.alive {
                let session = self.new_session();
                self.upcoming.push(session);
            }
        }
        event
    }

    fn new_session(&mut self) -> SimulatedSession {
        let number = self.number;
        self.number += self.stride;
        let random = &mut self.random;
        SimulatedSession {
            number,
            is_push: random.below(8) == 0,
            contact: contact(random),
            member: member(random),
            steps: steps(random),
            taken: 0,
            created_at: self.clock,
            phone: random.below(100),
            call_note: random.draw(&CALLBACK_NOTES).1,
            close_note: (random.below(2) == 0).then(|| *random.draw(&CLOSE_NOTES).1),
            ticket: (random.below(3) == 0).then(|| 10_000 + random.below(90_000)),
        }
    }
}

fn steps(random: &mut Random) -> &'static [SessionStatus] {
    let drawn = random.below(100);
    let life = LIFECYCLES.iter().find(|(share, _)| drawn < *share);
    life.expect("the shares end with 100").1
}

impl SimulatedSession {
    /// Takes the next step at that time and returns the session after it.
    fn step(&mut self, now: Timestamp) -> ChatSession {
        if self.taken == 0 {
            self.created_at = now;
        }
        let status = self.steps[self.taken].clone();
        let past = self.steps[..self.taken].iter().cloned();
        let past: Vec<_> = past.map(Lenient::Is).collect();
        self.taken += 1;
        let is_closed = status == Completed;
        let is_answered = is_closed || status == Handled;
        let (session_type, creator, guest) = if self.is_push {
            (SessionType::Push, &self.member, &self.contact)
        } else {
            (SessionType::Request, &self.contact, &self.member)
        };
        let user = |user: &User| Lenient::Is(user.clone());
        let (mut present, mut invited) = (vec![user(creator)], Vec::new());
        if is_answered {
            present.push(user(guest));
        } else if self.is_push {
            invited.push(user(guest));
        }
        let reference = self.ticket.map(|number| Reference {
            reference_type: ReferenceType::Ticket.into(),
            id: number.to_string().into(),
        });
        ChatSession {
            id: format!("{}-{:04}", self.created_at.as_second(), self.number).into(),
            name: self.name().into(),
            session_type: session_type.into(),
            report: self.report(is_answered, now).into(),
            reference: lenient(reference.filter(|_| is_closed)),
            callback: lenient((status == SessionStatus::Callback).then(|| self.callback(now))),
            status: status.into(),
            past_status: past.into(),
            creator: user(creator),
            target_users: invited.into(),
            close_record: lenient(is_closed.then(|| self.close_record(now))),
            closed_date_time: lenient(is_closed.then(|| written(now))),
            users: if is_closed {
                vec![user(&self.member)].into()
            } else {
                present.clone().into()
            },
            participants: present.into(),
            last_message_id: self.last_message_id(now).into(),
            created_date_time: written(self.created_at).into(),
            last_modified_date_time: written(now).into(),
        }
    }

    fn name(&self) -> String {
        let name = |name: &Lenient<String>| name.get().cloned().unwrap_or_default();
        let contact = name(&self.contact.name);
        if self.is_push {
            return format!("Chat with {contact} from {}", name(&self.member.name));
        }
        let company = self.contact.company.get();
        let company = company.map(|company| name(&company.name));
        let company = company.unwrap_or_default();
        format!("Chat Request from {contact} at {company}")
    }

    fn last_message_id(&self, now: Timestamp) -> String {
        let contact = self.contact.user_id.get().map_or("", |id| &id.0);
        let number = 0x50 + self.taken;
        format!("{}-{number:X}-{contact}", now.as_millisecond())
    }

    fn report(&self, is_answered: bool, now: Timestamp) -> Report {
        if !is_answered {
            return Report::default();
        }
        let seconds = now.duration_since(self.created_at).as_secs().unsigned_abs();
        let waited = seconds / 4;
        Report {
            creator_waited: Lenient::Is(waited.into()),
            handled_date_time: written(self.created_at + Duration::from_secs(waited)).into(),
            chat_duration: Lenient::Is((seconds - waited).into()),
        }
    }

    fn callback(&self, now: Timestamp) -> Callback {
        let in_hours = |hours| written(now + Duration::from_hours(hours));
        let period = Period {
            start: in_hours(1).into(),
            end: in_hours(3).into(),
        };
        let callback_type = if self.phone.is_multiple_of(4) {
            CallbackType::Chat
        } else {
            CallbackType::Phone
        };
        Callback {
            callback_type: callback_type.into(),
            phone: format!("+64 4 555 01{:02}", self.phone).into(),
            note: self.call_note.to_owned().into(),
            preferred_time: vec![period.into()].into(),
        }
    }

    fn close_record(&self, now: Timestamp) -> CloseRecord {
        CloseRecord {
            user: self.member.clone().into(),
            note: lenient(self.close_note.map(str::to_owned)),
            last_modified_date_time: written(now).into(),
        }
    }
}

fn lenient<T>(value: Option<T>) -> Lenient<T> {
    value.map_or(Lenient::Absent, Lenient::Is)
}

/// A time with seven digits of the second, as DeskDirector writes it.
fn written(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%7fZ").to_string()
}

#[cfg(test)]
mod tests;
