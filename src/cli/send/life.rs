//! The lives of chat sessions: what DeskDirector would say about them, step by step. Pure; the same
//! seed says the same.

use deskbridge::webhook::session::{
    Callback, CallbackType, ChatSession, CloseRecord, Company, Lenient, Period, Report,
    SessionType, Status, User, UserId, UserKind,
};
use jiff::{SignedDuration, Timestamp};

use super::random::Random;

const INSTANCE: &str = "simulation";

const CONTACTS: [&str; 8] = [
    "Aroha Ngata",
    "Ben Whitlock",
    "Chiara Moretti",
    "Dmitri Volkov",
    "Elena Fischer",
    "Farid Haddad",
    "Grace Okafor",
    "Hugo Lindqvist",
];
const MEMBERS: [&str; 4] = ["Iris Calder", "Jonas Pell", "Keiko Mori", "Luca Brandt"];
const COMPANIES: [(&str, &str); 5] = [
    ("Kauri Timber Ltd", "KauriTimber"),
    ("Harbour Dental", "HarbourDental"),
    ("Northwind Freight", "NorthwindFreight"),
    ("Summit & Co", "SummitCo"),
    ("Pixel Orchard", "PixelOrchard"),
];

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

/// Sessions of one connection, so that each one's events stay in order.
pub struct Sessions {
    random: Random,
    alive: Vec<Life>,
    start: Timestamp,
    number: u64,
    stride: u64,
}

/// Where one session stands in its life.
struct Life {
    id: String,
    session_type: SessionType,
    creator: User,
    member: User,
    steps: &'static [Status],
    taken: usize,
    created_at: Timestamp,
    now: Timestamp,
}

impl Sessions {
    /// So many sessions alive at a time. `share` of `shares` keeps the ids of several apart.
    pub fn new(seed: u64, start: Timestamp, alive: usize, (share, shares): (u64, u64)) -> Self {
        let random = Random::new(seed.wrapping_add(share.wrapping_mul(0x5851_f42d_4c95_7f2d)));
        let mut sessions = Self {
            random,
            alive: Vec::new(),
            start,
            number: share,
            stride: shares,
        };
        sessions.alive = (0..alive.max(1)).map(|_| sessions.born()).collect();
        sessions
    }

    /// The body of the next webhook.
    pub fn webhook(&mut self, length: usize) -> Vec<u8> {
        let events: Vec<ChatSession> = (0..length).map(|_| self.next()).collect();
        serde_json::to_vec(&events).expect("a session is JSON")
    }

    /// One session takes its next step; one that is over makes room for a new one.
    fn next(&mut self) -> ChatSession {
        let index = usize::try_from(self.random.below(self.alive.len() as u64)).unwrap_or_default();
        let seconds = 5 + self.random.below(600);
        let event = self.alive[index].step(seconds);
        if self.alive[index].is_over() {
            self.alive[index] = self.born();
        }
        event
    }

    fn born(&mut self) -> Life {
        let number = self.number;
        self.number += self.stride;
        let fraction =
            SignedDuration::from_nanos(100 * number.cast_signed().rem_euclid(10_000_000));
        let created_at = self.start + fraction;
        let (name, identifier) = *self.random.pick(&COMPANIES);
        let company = Company {
            entity_id: Lenient::Is((2000 + name.len()).into()),
            name: name.to_owned().into(),
            identifier: identifier.to_owned().into(),
        };
        let creator = user(&mut self.random, &CONTACTS, UserKind::Contact);
        Life {
            id: format!("{}-{number:04}", self.start.as_second()),
            session_type: if self.random.below(8) == 0 {
                SessionType::Push
            } else {
                SessionType::Request
            },
            creator: User {
                company: company.into(),
                ..creator
            },
            member: user(&mut self.random, &MEMBERS, UserKind::Member),
            steps: self.steps(),
            taken: 0,
            created_at,
            now: created_at,
        }
    }

    fn steps(&mut self) -> &'static [Status] {
        let mut drawn = self.random.below(100);
        for (share, steps) in LIVES {
            if drawn < share {
                return steps;
            }
            drawn -= share;
        }
        LIVES[0].1
    }
}

fn user(random: &mut Random, names: &[&str], kind: UserKind) -> User {
    let name = *random.pick(names);
    let number = name.bytes().map(u64::from).sum::<u64>();
    User {
        entity_id: Lenient::Is(number.into()),
        name: name.to_owned().into(),
        user_id: UserId {
            instance: INSTANCE.into(),
            kind,
            number,
        }
        .into(),
        company: Lenient::Absent,
    }
}

impl Life {
    fn is_over(&self) -> bool {
        self.taken == self.steps.len()
    }

    /// The session after its next step, so many seconds after the last one.
    fn step(&mut self, seconds: u64) -> ChatSession {
        if self.taken > 0 {
            self.now += SignedDuration::from_secs(seconds.cast_signed());
        }
        let status = self.steps[self.taken].clone();
        let past: Vec<Lenient<Status>> = self.steps[..self.taken]
            .iter()
            .cloned()
            .map(Lenient::Is)
            .collect();
        self.taken += 1;
        let is_closed = status == Status::Completed;
        let is_answered = is_closed || status == Status::Handled;
        let present = if is_answered {
            vec![self.creator.clone().into(), self.member.clone().into()]
        } else {
            vec![self.creator.clone().into()]
        };
        let creator = self.creator.name.get().map_or("", String::as_str);
        let company = self
            .creator
            .company
            .get()
            .and_then(|company| company.name.get())
            .map_or("", String::as_str);
        ChatSession {
            id: self.id.clone().into(),
            name: format!("Chat Request from {creator} at {company}").into(),
            session_type: self.session_type.clone().into(),
            report: self.report(is_answered).into(),
            callback: if status == Status::Callback {
                self.callback().into()
            } else {
                Lenient::Absent
            },
            status: status.into(),
            past_status: past.into(),
            creator: self.creator.clone().into(),
            target_users: Vec::new().into(),
            close_record: if is_closed {
                self.close_record().into()
            } else {
                Lenient::Absent
            },
            closed_date_time: if is_closed {
                written(self.now).into()
            } else {
                Lenient::Absent
            },
            users: present.clone().into(),
            participants: present.into(),
            last_message_id: format!("{}-1-{}", self.now.as_millisecond(), self.id).into(),
            created_date_time: written(self.created_at).into(),
            last_modified_date_time: written(self.now).into(),
            reference: Lenient::Absent,
        }
    }

    fn report(&self, is_answered: bool) -> Report {
        if !is_answered {
            return Report::default();
        }
        let seconds = self.now.duration_since(self.created_at).as_secs();
        Report {
            creator_waited: Lenient::Is((seconds / 4).into()),
            handled_date_time: written(self.created_at + SignedDuration::from_secs(seconds / 4))
                .into(),
            chat_duration: Lenient::Is((seconds - seconds / 4).into()),
        }
    }

    fn callback(&self) -> Callback {
        let (from, to) = (SignedDuration::from_hours(1), SignedDuration::from_hours(3));
        let period = Period {
            start: written(self.now + from).into(),
            end: written(self.now + to).into(),
        };
        Callback {
            callback_type: CallbackType::Phone.into(),
            phone: "+64 4 555 0100".to_owned().into(),
            note: "Please call me back".to_owned().into(),
            preferred_time: vec![period.into()].into(),
        }
    }

    fn close_record(&self) -> CloseRecord {
        CloseRecord {
            user: self.member.clone().into(),
            note: Lenient::Absent,
            last_modified_date_time: written(self.now).into(),
        }
    }
}

/// With seven digits of a second, as the sender writes times.
fn written(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%7fZ").to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn sessions(seed: u64, alive: usize, share: (u64, u64)) -> Sessions {
        Sessions::new(seed, "2026-03-01T08:00:00Z".parse().unwrap(), alive, share)
    }

    #[test]
    fn every_session_lives_from_created_on_and_remembers_where_it_was() {
        let mut sessions = sessions(1, 5, (0, 1));
        let mut lives: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let body = sessions.webhook(500);
        let events: Vec<ChatSession> = serde_json::from_slice(&body).unwrap();
        for event in &events {
            let life = lives.entry(event.id.get().unwrap().clone()).or_default();
            let past: Vec<String> = event
                .past_status
                .get()
                .unwrap()
                .iter()
                .map(|status| status.get().unwrap().to_string())
                .collect();
            assert_eq!(past, *life);
            life.push(event.status.get().unwrap().to_string());
        }
        assert!(lives.values().all(|life| life[0] == "created"));
        let ended =
            |life: &Vec<String>| ["completed", "missed"].contains(&life.last().unwrap().as_str());
        assert!(lives.values().filter(|life| !ended(life)).count() <= 5);
        for status in ["created", "handled", "missed", "completed", "callback"] {
            assert!(
                lives
                    .values()
                    .any(|life| life.iter().any(|step| step == status)),
                "no {status}"
            );
        }
    }

    #[test]
    fn the_same_seed_says_the_same_and_shares_never_meet() {
        let body = |seed, share| sessions(seed, 3, share).webhook(50);
        assert_eq!(body(7, (0, 2)), body(7, (0, 2)));
        assert_ne!(body(7, (0, 2)), body(8, (0, 2)));
        let ids = |share| -> Vec<String> {
            let events: Vec<ChatSession> = serde_json::from_slice(&body(7, share)).unwrap();
            events
                .iter()
                .map(|event| event.id.get().unwrap().clone())
                .collect()
        };
        let (one, other) = (ids((0, 2)), ids((1, 2)));
        assert!(one.iter().all(|id| !other.contains(id)));
    }

    #[test]
    fn times_are_written_as_the_sender_writes_them() {
        let time: Timestamp = "2018-06-28T05:18:26.9468948Z".parse().unwrap();
        assert_eq!(written(time), "2018-06-28T05:18:26.9468948Z");
        assert_eq!(
            written("2018-06-28T05:18:26Z".parse().unwrap()),
            "2018-06-28T05:18:26.0000000Z"
        );
    }
}
