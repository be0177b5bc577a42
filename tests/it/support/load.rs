//! DeskDirector under load: connections that post as fast as they are answered, and a ledger of
//! what was acknowledged, for comparison with what subscribers received.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use super::bridge::run::Bridge;
use super::consumer::{Consumer, everything_in};
use super::http::Client;
use super::message::Message;
use super::sender::{PATH, SECRET, array_of, session, sign};
use super::vhost::Vhost;
use super::wait::{SOON, eventually};

/// The connections of [`Load::paced`], and the pause of each after an answer: some 700 events a
/// second.
const PACED_CONNECTIONS: usize = 7;
const PACE: Duration = Duration::from_millis(25);

const STATUSES: [&str; 3] = ["created", "handled", "completed"];

/// Posts until it is stopped. A webhook that did not get a 2xx is not sent again, and its sessions
/// continue under new ids, so the order of each session's steps is known.
pub struct Load {
    progress: Arc<Progress>,
    senders: Vec<JoinHandle<Ledger>>,
}

#[derive(Default)]
struct Progress {
    stopped: AtomicBool,
    accepted: AtomicUsize,
    /// When each answer came, and how long it took.
    answers: Mutex<Vec<(Instant, Duration)>>,
}

/// What was posted and how it was answered.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Events of webhooks that got a 2xx: session and step.
    accepted: BTreeSet<(String, u64)>,
    /// All events that were posted, with their bodies.
    attempted: BTreeMap<(String, u64), Vec<u8>>,
    /// Number of answers by status.
    pub answers: BTreeMap<u16, usize>,
    /// Webhooks that were sent and not answered.
    pub unanswered: usize,
    /// Webhooks that could not be sent because nobody listened.
    pub unsent: usize,
}

impl Load {
    /// Starts posting webhooks of three events each on this number of connections.
    pub fn start(bridge: SocketAddr, connections: usize) -> Self {
        Self::start_as("load", bridge, connections)
    }

    /// As [`Load::start`], with session ids that begin with `name`: for tests with more than one
    /// load.
    pub fn start_as(name: &str, bridge: SocketAddr, connections: usize) -> Self {
        Self::start_with(name, bridge, connections, Duration::ZERO)
    }

    /// Starts a steady load that leaves the bridge time for other work.
    pub fn paced(bridge: &Bridge) -> Self {
        Self::start_with("load", bridge.address(), PACED_CONNECTIONS, PACE)
    }

    fn start_with(name: &str, bridge: SocketAddr, connections: usize, pause: Duration) -> Self {
        let progress = Arc::new(Progress::default());
        let senders = (0..connections)
            .map(|number| {
                let name = format!("{name}-{number}");
                tokio::spawn(send(bridge, name, pause, Arc::clone(&progress)))
            })
            .collect();
        Self { progress, senders }
    }

    /// Events accepted so far.
    pub fn accepted(&self) -> usize {
        self.progress.accepted.load(Ordering::Relaxed)
    }

    /// Waits until this number of further events is accepted.
    pub async fn accepts(&self, more: usize) {
        let goal = self.accepted() + more;
        eventually("webhooks are accepted", 3 * SOON, || async {
            self.accepted() >= goal
        })
        .await;
    }

    /// The 99th percentile of the response times of answers since `then`.
    pub fn p99_since(&self, then: Instant) -> Duration {
        let answers = self.progress.answers.lock().unwrap();
        let since = answers.iter().filter(|(came, _)| *came >= then);
        let mut took: Vec<_> = since.map(|(_, took)| *took).collect();
        took.sort_unstable();
        took[(took.len() * 99 / 100).min(took.len() - 1)]
    }

    /// Stops the load and waits until no event is pending. Panics unless every answer was 202 and
    /// the bridge has counted every event as published exactly once and none as dead-lettered.
    pub async fn stop_and_drain(self, bridge: &Bridge) -> Ledger {
        let ledger = self.stop().await;
        assert!(ledger.is_without_failure(), "{:?}", ledger.answers);
        bridge.backlog_is_empty().await;
        let counters = bridge.status().await["counters"].clone();
        for name in ["accepted", "published"] {
            assert_eq!(counters[name], json!(ledger.len()), "{name}: {counters}");
        }
        ledger
    }

    /// As [`Load::stop_and_drain`], then checks all messages of this queue, as
    /// [`Ledger::arrived_as`]. Returns the number of duplicates.
    pub async fn arrives_in(self, queue: &str, vhost: &Vhost, bridge: &Bridge) -> usize {
        let ledger = self.stop_and_drain(bridge).await;
        let duplicates = ledger.arrived_as(&everything_in(vhost, queue).await);
        println!("{} events, {duplicates} duplicates", ledger.len());
        duplicates
    }

    /// Stops sending and waits for the outstanding answers.
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

    /// Waits until all accepted events have arrived, then as [`Ledger::arrived_as`].
    pub async fn arrives_at(&self, consumer: &Consumer) -> usize {
        eventually("everything accepted has arrived", 3 * SOON, || async {
            consumer.count() >= self.len() && self.missing(&consumer.all()).is_empty()
        })
        .await;
        self.arrived_as(&consumer.all())
    }

    /// Panics unless these messages, in order of arrival, are what was accepted: every event byte
    /// for byte, no event that was never sent, first deliveries in order within each session,
    /// duplicates with the `message_id` of the first delivery, and different events with different
    /// ids. Returns the number of duplicates.
    pub fn arrived_as(&self, messages: &[Message]) -> usize {
        assert_eq!(self.missing(messages), Vec::<&(String, u64)>::new());
        let mut first = HashMap::new();
        let mut ids = HashMap::new();
        let mut last_step = HashMap::new();
        for message in messages {
            let event = event_of(message);
            let sent = self.attempted.get(&event);
            assert_eq!(sent, Some(&message.body), "{event:?}");
            let owner = ids.entry(message.id()).or_insert_with(|| event.clone());
            assert_eq!(*owner, event, "two events with one message_id");
            let is_first = !first.contains_key(&event);
            let id = *first.entry(event.clone()).or_insert_with(|| message.id());
            assert_eq!(id, message.id(), "{event:?} has two message_ids");
            if is_first {
                let before = last_step.insert(event.0.clone(), event.1);
                assert!(before < Some(event.1), "{event:?} came after {before:?}");
            }
        }
        messages.len() - first.len()
    }

    /// Webhooks of which only some events are among these messages, each by its first event.
    pub fn torn(&self, messages: &[Message]) -> Vec<(String, u64)> {
        let arrived: BTreeSet<_> = messages.iter().map(event_of).collect();
        let firsts = self.attempted.keys().filter(|(id, _)| id.ends_with('a'));
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

    /// Merges another ledger into this one.
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

/// The events of the webhook that begins with this one: two of its session and one of another.
fn webhook_of((id, step): &(String, u64)) -> [(String, u64); 3] {
    let life = id.trim_end_matches('a');
    [("a", *step), ("b", *step), ("a", step + 1)]
        .map(|(name, step)| (format!("{life}{name}"), step))
}

async fn send(
    bridge: SocketAddr,
    sender: String,
    pause: Duration,
    progress: Arc<Progress>,
) -> Ledger {
    let mut ledger = Ledger::default();
    let mut client = Client::new(bridge);
    let (mut life, mut step) = (0, 0);
    while !progress.stopped.load(Ordering::Relaxed) {
        let events = webhook_of(&(format!("{sender}-{life}-a"), step));
        step += 2;
        let sessions = events.each_ref().map(|(id, step)| {
            let status = STATUSES[usize::try_from(*step).unwrap() / 2 % 3];
            session(id, status, json!({"step": step}))
        });
        let bodies = sessions.each_ref().map(|one| one.to_string().into_bytes());
        ledger.attempted.extend(events.iter().cloned().zip(bodies));
        let body = array_of(&sessions);
        let signature = sign(SECRET, &body);
        let begin = Instant::now();
        let answer = client
            .request(Method::POST, PATH, &[("x-dd-signature", &signature)], body)
            .await;
        match &answer {
            Ok(answer) => {
                *ledger.answers.entry(answer.status).or_default() += 1;
                let mut answers = progress.answers.lock().unwrap();
                answers.push((Instant::now(), begin.elapsed()));
            }
            Err(failure) if failure.is::<std::io::Error>() => ledger.unsent += 1,
            Err(_) => ledger.unanswered += 1,
        }
        if answer.is_ok_and(|answer| answer.status == 202) {
            progress.accepted.fetch_add(events.len(), Ordering::Relaxed);
            ledger.accepted.extend(events);
            tokio::time::sleep(pause).await;
        } else {
            (life, step) = (life + 1, 0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    ledger
}

/// Posts the same body `times` times on eight connections; returns the number of answers by status.
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
