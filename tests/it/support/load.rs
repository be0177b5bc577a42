//! DeskDirector under load: connections that post as fast as they are answered, and a ledger of
//! what each answer promised, to be held against what subscribers received.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use super::consumer::Consumer;
use super::http::Client;
use super::message::Message;
use super::sender::{PATH, SECRET, array_of, session, sign};
use super::wait::{SOON, eventually};

const STATUSES: [&str; 3] = ["created", "handled", "completed"];

/// Posts until it is stopped. A webhook without a 2xx is not sent again, and its sessions go on
/// under new ids: so the order of each session's steps is known.
pub struct Load {
    progress: Arc<Progress>,
    senders: Vec<JoinHandle<Ledger>>,
}

#[derive(Default)]
struct Progress {
    stopped: AtomicBool,
    accepted: AtomicUsize,
}

/// What was posted, and what came of it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Events of webhooks answered 2xx: session and step.
    accepted: BTreeSet<(String, u64)>,
    /// All events that were posted.
    attempted: BTreeSet<(String, u64)>,
    /// Answers by status.
    pub answers: BTreeMap<u16, usize>,
    /// Webhooks that were sent and not answered.
    pub unanswered: usize,
    /// Webhooks that could not be sent: nobody listened.
    pub unsent: usize,
}

impl Load {
    /// Webhooks of three events each, on so many connections.
    pub fn start(bridge: SocketAddr, connections: usize) -> Self {
        Self::start_as("load", bridge, connections)
    }

    /// The same with sessions whose ids begin with `name`, if there is more than one load.
    pub fn start_as(name: &str, bridge: SocketAddr, connections: usize) -> Self {
        let progress = Arc::new(Progress::default());
        let senders = (0..connections)
            .map(|number| {
                let name = format!("{name}-{number}");
                tokio::spawn(send(bridge, name, Arc::clone(&progress)))
            })
            .collect();
        Self { progress, senders }
    }

    /// Events accepted so far.
    pub fn accepted(&self) -> usize {
        self.progress.accepted.load(Ordering::Relaxed)
    }

    /// Waits until so many more events are accepted.
    pub async fn accepts(&self, more: usize) {
        let goal = self.accepted() + more;
        eventually("the load gets on", SOON, || async {
            self.accepted() >= goal
        })
        .await;
    }

    /// Sends nothing new, waits for the answers under way.
    pub async fn stop(self) -> Ledger {
        self.progress.stopped.store(true, Ordering::Relaxed);
        let mut all = Ledger::default();
        for sender in self.senders {
            all.add(sender.await.unwrap());
        }
        all
    }
}

impl Ledger {
    /// How many events were accepted.
    pub fn len(&self) -> usize {
        self.accepted.len()
    }

    /// Whether every webhook was answered 202.
    pub fn is_without_failure(&self) -> bool {
        self.unanswered + self.unsent == 0 && self.answers.keys().eq([&202])
    }

    /// Waits until everything accepted has arrived, then checks all of it: nothing invented, in
    /// order per session, repetitions only of the same event with the same `message_id`. Returns
    /// how many there were.
    pub async fn arrives_at(&self, consumer: &Consumer) -> usize {
        eventually("everything accepted has arrived", 3 * SOON, || async {
            consumer.count() >= self.len() && self.missing(&consumer.all()).is_empty()
        })
        .await;
        self.check(&consumer.all())
    }

    /// Webhooks of which some events are among these messages and some are not, by their first.
    pub fn torn(&self, messages: &[Message]) -> Vec<(String, u64)> {
        let arrived: BTreeSet<_> = messages.iter().map(event_of).collect();
        let firsts = self.attempted.iter().filter(|(id, _)| id.ends_with('a'));
        let webhooks = firsts.filter(|(_, step)| step % 2 == 0).map(webhook_of);
        webhooks
            .filter(|events| {
                let held = events.iter().filter(|event| arrived.contains(event));
                ![0, events.len()].contains(&held.count())
            })
            .map(|[first, ..]| first)
            .collect()
    }

    /// Accepted events that are not among these messages.
    pub fn missing(&self, messages: &[Message]) -> Vec<&(String, u64)> {
        let arrived: BTreeSet<_> = messages.iter().map(event_of).collect();
        self.accepted
            .iter()
            .filter(|event| !arrived.contains(event))
            .collect()
    }

    fn check(&self, messages: &[Message]) -> usize {
        let mut first = HashMap::new();
        let mut ids = HashMap::new();
        let mut last_step = HashMap::new();
        for message in messages {
            let event = event_of(message);
            assert!(self.attempted.contains(&event), "{event:?} was never sent");
            let owner = ids.entry(message.id()).or_insert_with(|| event.clone());
            assert_eq!(*owner, event, "two events with one message_id");
            let copy = first.entry(event.clone()).or_insert(message);
            assert_eq!(copy.id(), message.id(), "{event:?} has two message_ids");
            assert_eq!(copy.body, message.body, "{event:?} has two bodies");
            if std::ptr::eq(*copy, message) {
                let before = last_step.insert(event.0.clone(), event.1);
                assert!(before < Some(event.1), "{event:?} came after {before:?}");
            }
        }
        messages.len() - first.len()
    }

    /// Takes over what another one has.
    pub fn add(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        self.attempted.extend(other.attempted);
        self.unanswered += other.unanswered;
        self.unsent += other.unsent;
        for (status, count) in other.answers {
            *self.answers.entry(status).or_default() += count;
        }
    }
}

fn event_of(message: &Message) -> (String, u64) {
    let body = message.json();
    let id = body["id"].as_str().unwrap().to_owned();
    (id, body["step"].as_u64().unwrap())
}

/// One session twice in a webhook, and one beside it; by the first event.
fn webhook_of((id, step): &(String, u64)) -> [(String, u64); 3] {
    let life = id.trim_end_matches('a');
    [("a", *step), ("b", *step), ("a", step + 1)]
        .map(|(name, step)| (format!("{life}{name}"), step))
}

async fn send(bridge: SocketAddr, sender: String, progress: Arc<Progress>) -> Ledger {
    let mut ledger = Ledger::default();
    let mut client = Client::new(bridge);
    let (mut life, mut step) = (0, 0);
    while !progress.stopped.load(Ordering::Relaxed) {
        let events = webhook_of(&(format!("{sender}-{life}-a"), step));
        step += 2;
        ledger.attempted.extend(events.iter().cloned());
        let body = array_of(&events.each_ref().map(|(id, step)| {
            let status = STATUSES[usize::try_from(*step).unwrap() / 2 % 3];
            session(id, status, json!({"step": step}))
        }));
        let signature = sign(SECRET, &body);
        let answer = client
            .request(Method::POST, PATH, &[("x-dd-signature", &signature)], body)
            .await;
        match &answer {
            Ok(answer) => *ledger.answers.entry(answer.status).or_default() += 1,
            Err(failure) if failure.is::<std::io::Error>() => ledger.unsent += 1,
            Err(_) => ledger.unanswered += 1,
        }
        if answer.is_ok_and(|answer| answer.status == 202) {
            progress.accepted.fetch_add(events.len(), Ordering::Relaxed);
            ledger.accepted.extend(events);
        } else {
            (life, step) = (life + 1, 0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    ledger
}

/// Posts one body so many times on eight connections: how often each status was the answer.
pub async fn post_many(bridge: SocketAddr, body: &[u8], times: usize) -> BTreeMap<u16, usize> {
    let left = Arc::new(AtomicUsize::new(times));
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let (left, body, mut client) = (Arc::clone(&left), body.to_vec(), Client::new(bridge));
            let signature = sign(SECRET, &body);
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                        left.checked_sub(1)
                    })
                    .is_ok()
                {
                    let headers = [("x-dd-signature", &*signature)];
                    let answer = client.request(Method::POST, PATH, &headers, body.clone());
                    statuses.push(answer.await.expect("an answer").status);
                }
                statuses
            })
        })
        .collect();
    let mut answers = BTreeMap::new();
    for sender in senders {
        for status in sender.await.unwrap() {
            *answers.entry(status).or_default() += 1;
        }
    }
    answers
}
