//! The lives of chat sessions: what DeskDirector would say about them, step by step. Pure; the same
//! seed says the same.

#[cfg(test)]
mod tests;

use deskbridge::webhook::session::{
    Callback, CallbackType, ChatSession, CloseRecord, Lenient, Period, Reference, ReferenceType,
    Report, SessionType, Status, User,
};
use jiff::{SignedDuration, Timestamp};

use super::people::{contact, member};
use super::random::Random;

/// What sessions go through, and how many of a hundred do.
const LIVES: [(u64, &[Status]); 5] = [
    (64, &[Status::Created, Status::Handled, Status::Completed]),
    (14, &[Status::Created, Status::Missed]),
    (
        8,
        &[
            Status::Created,
            Status::Missed,
            Status::Callback,
            Status::Completed,
        ],
    ),
    (
        8,
        &[
            Status::Created,
            Status::Callback,
            Status::Handled,
            Status::Completed,
        ],
    ),
    (6, &[Status::Created, Status::Completed]),
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
/// Seconds from one event to the next.
const STEP_SECONDS: (u64, u64) = (5, 90);

/// Which of DeskDirector's two webhooks tells an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// *New Chat Session*: every session is `created`.
    New,
    /// *Chat Session Status Changed*.
    Changed,
}

impl Occasion {
    /// What DeskDirector calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "New Chat Session",
            Self::Changed => "Chat Session Status Changed",
        }
    }
}

/// Sessions of one connection, so that each one's events stay in order.
pub struct Sessions {
    random: Random,
    /// Not told of yet.
    unborn: Vec<Life>,
    begun: Vec<Life>,
    /// Changes that those begun have before them.
    changes: usize,
    alive: usize,
    clock: Timestamp,
    number: u64,
    stride: u64,
}

/// Where one session stands in its life.
struct Life {
    number: u64,
    is_push: bool,
    contact: User,
    member: User,
    steps: &'static [Status],
    taken: usize,
    created_at: Timestamp,
    phone: u64,
    call_note: &'static str,
    close_note: Option<&'static str>,
    ticket: Option<u64>,
}

impl Sessions {
    /// So many sessions alive at a time, or as many as a webhook needs. `share` of `shares` keeps
    /// the ids of several apart.
    pub fn new(seed: u64, start: Timestamp, alive: usize, (share, shares): (u64, u64)) -> Self {
        let random = Random::new(seed.wrapping_add(share.wrapping_mul(0x5851_f42d_4c95_7f2d)));
        let mut sessions = Self {
            random,
            unborn: Vec::new(),
            begun: Vec::new(),
            changes: 0,
            alive: alive.max(1),
            clock: start,
            number: share,
            stride: shares,
        };
        sessions.unborn = (0..sessions.alive).map(|_| sessions.conceived()).collect();
        sessions
    }

    /// The body of the next webhook, and which of the two it is.
    pub fn webhook(&mut self, length: usize) -> (Occasion, Vec<u8>) {
        let (unborn, begun) = (self.unborn.len() as u64, self.begun.len() as u64);
        let is_new = self.random.below((unborn + begun).max(1)) < unborn;
        let occasion = if is_new || self.changes < length {
            Occasion::New
        } else {
            Occasion::Changed
        };
        let events: Vec<ChatSession> = (0..length).map(|_| self.next(occasion)).collect();
        let body = serde_json::to_vec(&events).expect("a session is JSON");
        (occasion, body)
    }

    fn next(&mut self, occasion: Occasion) -> ChatSession {
        let (min, more) = STEP_SECONDS;
        let seconds = (min + self.random.below(more)).cast_signed();
        let fraction =
            SignedDuration::from_nanos(100 * self.random.below(10_000_000).cast_signed());
        self.clock += SignedDuration::from_secs(seconds) + fraction;
        match occasion {
            Occasion::New => self.begin(),
            Occasion::Changed => self.change(),
        }
    }

    fn begin(&mut self) -> ChatSession {
        let mut life = match self.draw(self.unborn.len()) {
            Some(index) => self.unborn.swap_remove(index),
            None => self.conceived(),
        };
        let event = life.step(self.clock);
        self.changes += life.steps.len() - life.taken;
        self.begun.push(life);
        event
    }

    /// One session takes its next step; one that is over makes room for a new one.
    fn change(&mut self) -> ChatSession {
        let index = self
            .draw(self.begun.len())
            .expect("a webhook of changes is made when there are enough of them");
        let event = self.begun[index].step(self.clock);
        self.changes -= 1;
        if self.begun[index].is_over() {
            self.begun.swap_remove(index);
            if self.begun.len() + self.unborn.len() < self.alive {
                let life = self.conceived();
                self.unborn.push(life);
            }
        }
        event
    }

    fn draw(&mut self, of: usize) -> Option<usize> {
        let index = (of > 0).then(|| self.random.below(of as u64))?;
        usize::try_from(index).ok()
    }

    fn conceived(&mut self) -> Life {
        let number = self.number;
        self.number += self.stride;
        let random = &mut self.random;
        Life {
            number,
            is_push: random.below(8) == 0,
            contact: contact(random),
            member: member(random),
            steps: steps(random),
            taken: 0,
            created_at: self.clock,
            phone: random.below(100),
            call_note: random.pick::<&str>(&CALLBACK_NOTES),
            close_note: (random.below(2) == 0).then(|| *random.pick(&CLOSE_NOTES)),
            ticket: (random.below(3) == 0).then(|| 10_000 + random.below(90_000)),
        }
    }
}

fn steps(random: &mut Random) -> &'static [Status] {
    let mut drawn = random.below(100);
    for (share, steps) in LIVES {
        if drawn < share {
            return steps;
        }
        drawn -= share;
    }
    LIVES[0].1
}

impl Life {
    fn is_over(&self) -> bool {
        self.taken == self.steps.len()
    }

    /// The session after its next step, taken at that time.
    fn step(&mut self, now: Timestamp) -> ChatSession {
        if self.taken == 0 {
            self.created_at = now;
        }
        let status = self.steps[self.taken].clone();
        let past = self.steps[..self.taken].iter().cloned();
        let past: Vec<Lenient<Status>> = past.map(Lenient::Is).collect();
        self.taken += 1;
        let is_closed = status == Status::Completed;
        let is_answered = is_closed || status == Status::Handled;
        let (creator, guest) = if self.is_push {
            (&self.member, &self.contact)
        } else {
            (&self.contact, &self.member)
        };
        let mut present: Vec<Lenient<User>> = vec![creator.clone().into()];
        let mut invited: Vec<Lenient<User>> = Vec::new();
        if is_answered {
            present.push(guest.clone().into());
        } else if self.is_push {
            invited.push(guest.clone().into());
        }
        ChatSession {
            id: self.id().into(),
            name: self.name().into(),
            session_type: if self.is_push {
                SessionType::Push
            } else {
                SessionType::Request
            }
            .into(),
            report: self.report(is_answered, now).into(),
            callback: when(status == Status::Callback, || self.callback(now)),
            status: status.into(),
            past_status: past.into(),
            creator: creator.clone().into(),
            target_users: invited.into(),
            close_record: when(is_closed, || self.close_record(now)),
            closed_date_time: when(is_closed, || written(now)),
            users: if is_closed {
                vec![self.member.clone().into()]
            } else {
                present.clone()
            }
            .into(),
            participants: present.into(),
            last_message_id: self.last_message_id(now).into(),
            created_date_time: written(self.created_at).into(),
            last_modified_date_time: written(now).into(),
            reference: match self.ticket {
                Some(number) if is_closed => Reference {
                    reference_type: ReferenceType::Ticket.into(),
                    id: number.to_string().into(),
                }
                .into(),
                _ => Lenient::Absent,
            },
        }
    }

    fn id(&self) -> String {
        format!("{}-{:04}", self.created_at.as_second(), self.number)
    }

    fn name(&self) -> String {
        let name = |user: &User| user.name.get().cloned().unwrap_or_default();
        let contact = name(&self.contact);
        if self.is_push {
            return format!("Chat with {contact} from {}", name(&self.member));
        }
        let company = self.contact.company.get();
        let company = company.and_then(|company| company.name.get());
        format!(
            "Chat Request from {contact} at {}",
            company.map_or("", String::as_str)
        )
    }

    fn last_message_id(&self, now: Timestamp) -> String {
        let of = self.contact.user_id.get();
        let of = of.map(ToString::to_string).unwrap_or_default();
        format!("{}-{:X}-{of}", now.as_millisecond(), 0x50 + self.taken)
    }

    fn report(&self, is_answered: bool, now: Timestamp) -> Report {
        if !is_answered {
            return Report::default();
        }
        let seconds = now.duration_since(self.created_at).as_secs();
        Report {
            creator_waited: Lenient::Is((seconds / 4).into()),
            handled_date_time: written(self.created_at + SignedDuration::from_secs(seconds / 4))
                .into(),
            chat_duration: Lenient::Is((seconds - seconds / 4).into()),
        }
    }

    fn callback(&self, now: Timestamp) -> Callback {
        let (from, to) = (SignedDuration::from_hours(1), SignedDuration::from_hours(3));
        let period = Period {
            start: written(now + from).into(),
            end: written(now + to).into(),
        };
        Callback {
            callback_type: if self.phone.is_multiple_of(4) {
                CallbackType::Chat
            } else {
                CallbackType::Phone
            }
            .into(),
            phone: format!("+64 4 555 01{:02}", self.phone).into(),
            note: self.call_note.to_owned().into(),
            preferred_time: vec![period.into()].into(),
        }
    }

    fn close_record(&self, now: Timestamp) -> CloseRecord {
        CloseRecord {
            user: self.member.clone().into(),
            note: match self.close_note {
                Some(note) => note.to_owned().into(),
                None => Lenient::Absent,
            },
            last_modified_date_time: written(now).into(),
        }
    }
}

fn when<T>(is_so: bool, value: impl FnOnce() -> T) -> Lenient<T>
where
    Lenient<T>: From<T>,
{
    if is_so {
        value().into()
    } else {
        Lenient::Absent
    }
}

/// With seven digits of a second, as the sender writes times.
fn written(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%7fZ").to_string()
}
