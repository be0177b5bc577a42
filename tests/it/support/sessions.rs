//! Chat sessions that live while a test does something to the broker, and the judgement of what
//! arrived of them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use hyper::Method;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bridge::run::Bridge;
use super::http::Client;
use super::message::Message;
use super::sender::{PATH, SECRET, session, sign};
use super::vhost::Vhost;
use super::wait::eventually;

const SENDERS: usize = 4;
/// Sessions of one sender; each of its webhooks has the next event of all of them.
const SESSIONS: usize = 5;
const PAUSE: Duration = Duration::from_millis(25);
const LONG: Duration = Duration::from_mins(1);

/// Senders that post until they are stopped.
pub struct Load {
    stop: CancellationToken,
    accepted: Arc<AtomicUsize>,
    answers: Answers,
    senders: Vec<JoinHandle<Sent>>,
}

/// When each answer came, and how long it had taken.
type Answers = Arc<Mutex<Vec<(Instant, Duration)>>>;

/// What was accepted: of every session, the bodies of its events in order.
#[derive(Default)]
pub struct Sent(BTreeMap<String, Vec<Vec<u8>>>);

impl Load {
    /// Starts sessions that have these statuses in turn.
    pub fn on(bridge: &Bridge, statuses: &'static [&'static str]) -> Self {
        let (stop, accepted) = (CancellationToken::new(), Arc::default());
        let answers = Answers::default();
        let senders = (0..SENDERS)
            .map(|sender| {
                let sender = Sender {
                    prefix: format!("load-{sender}"),
                    server: bridge.address(),
                    statuses,
                    stop: stop.clone(),
                    accepted: Arc::clone(&accepted),
                    answers: Arc::clone(&answers),
                };
                tokio::spawn(sender.run())
            })
            .collect();
        Self {
            stop,
            accepted,
            answers,
            senders,
        }
    }

    /// Waits until so many events more have been accepted.
    pub async fn goes_on_for(&self, events: usize) {
        let end = self.accepted.load(Ordering::Relaxed) + events;
        eventually("webhooks are accepted", LONG, || async {
            self.accepted.load(Ordering::Relaxed) >= end || self.has_failed()
        })
        .await;
        assert!(!self.has_failed(), "a sender has ended");
    }

    /// How long 99 of 100 answers took at most, of those that came since then.
    pub fn p99_since(&self, then: Instant) -> Duration {
        let answers = self.answers.lock().unwrap();
        let since = answers.iter().filter(|(came, _)| *came >= then);
        let mut took: Vec<_> = since.map(|(_, took)| *took).collect();
        took.sort_unstable();
        took[(took.len() * 99 / 100).min(took.len() - 1)]
    }

    /// Ends the senders; panics unless every single answer was 202.
    pub async fn stop(self) -> Sent {
        self.stop.cancel();
        let mut all = Sent::default();
        for sender in self.senders {
            all.0.extend(sender.await.expect("every answer is 202").0);
        }
        all
    }

    /// The same; then waits until the bridge has published everything, each event once by its own
    /// count and none as a dead letter.
    pub async fn stop_and_drain(self, bridge: &Bridge) -> Sent {
        let sent = self.stop().await;
        bridge.backlog_is_empty().await;
        let counters = bridge.status().await["counters"].clone();
        assert_eq!(counters["accepted"], json!(sent.count()));
        assert_eq!(
            counters["published"],
            json!(sent.count()),
            "none became a dead letter: {counters}"
        );
        sent
    }

    fn has_failed(&self) -> bool {
        self.senders.iter().any(JoinHandle::is_finished)
    }
}

struct Sender {
    prefix: String,
    server: SocketAddr,
    statuses: &'static [&'static str],
    stop: CancellationToken,
    accepted: Arc<AtomicUsize>,
    answers: Answers,
}

impl Sender {
    async fn run(self) -> Sent {
        let mut client = Client::new(self.server);
        let mut sent = Sent::default();
        for step in 0.. {
            if self.stop.is_cancelled() {
                break;
            }
            let events: Vec<_> = (0..SESSIONS).map(|n| self.event(n, step)).collect();
            let body = array_of_bodies(events.iter().map(|(_, body)| body));
            let signature = sign(SECRET, &body);
            let headers = [("x-dd-signature", signature.as_str())];
            let begin = Instant::now();
            let answer = client.request(Method::POST, PATH, &headers, body).await;
            let answer = answer.unwrap_or_else(|error| panic!("no answer: {error}"));
            assert_eq!(answer.status, 202, "{}", answer.text());
            let now = Instant::now();
            self.answers.lock().unwrap().push((now, now - begin));
            self.accepted.fetch_add(SESSIONS, Ordering::Relaxed);
            for (session, body) in events {
                sent.0.entry(session).or_default().push(body);
            }
            tokio::time::sleep(PAUSE).await;
        }
        sent
    }

    fn event(&self, n: usize, step: usize) -> (String, Vec<u8>) {
        let id = format!("{}-{n}", self.prefix);
        let status = self.statuses[step % self.statuses.len()];
        let event = session(&id, status, json!({"step": step}));
        (id, serde_json::to_vec(&event).unwrap())
    }
}

fn array_of_bodies<'a>(bodies: impl Iterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let bodies: Vec<&[u8]> = bodies.map(Vec::as_slice).collect();
    [b"[".as_slice(), &bodies.join(b",".as_slice()), b"]"].concat()
}

impl Sent {
    /// How many events.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Panics unless these messages, in order of arrival, are what was sent and nothing else:
    /// every event byte for byte, the first delivery of each session's events in order, a
    /// repetition with the `message_id` of the first and no two events with the same one.
    /// Gives the number of repetitions.
    pub fn arrived_as(&self, messages: &[Message]) -> usize {
        let mut next: HashMap<&str, usize> = HashMap::new();
        let mut ids: HashMap<&str, (&str, usize)> = HashMap::new();
        let mut repetitions = 0;
        for message in messages {
            let session = message.correlation_id.as_deref().expect("a session");
            let step = message.json()["step"].as_u64().expect("a step");
            let step = usize::try_from(step).unwrap();
            let bodies = self.0.get(session);
            let bodies = bodies.unwrap_or_else(|| panic!("nobody sent session {session}"));
            assert_eq!(
                bodies.get(step),
                Some(&message.body),
                "{session}: event {step}"
            );
            let next = next.entry(session).or_default();
            assert!(
                step <= *next,
                "{session}: event {step} came before event {next}"
            );
            let event = *ids.entry(message.id()).or_insert((session, step));
            assert_eq!(event, (session, step), "two events have the same id");
            if step == *next {
                *next += 1;
            } else {
                repetitions += 1;
            }
        }
        assert_eq!(
            ids.len(),
            next.values().sum::<usize>(),
            "a repetition had another message_id than the first"
        );
        for (session, bodies) in &self.0 {
            let arrived = next.get(session.as_str()).copied().unwrap_or(0);
            assert_eq!(arrived, bodies.len(), "{session}: the last events are lost");
        }
        repetitions
    }
}

/// Takes everything out of a queue that is there by now, in order.
pub async fn everything_in(vhost: &Vhost, queue: &str) -> Vec<Message> {
    const END: &[u8] = b"the end of the test";
    assert!(vhost.publish("", queue, END).await, "the queue takes it");
    let channel = vhost.channel().await;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..Default::default()
    };
    let mut deliveries = channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .expect("the queue to consume is there");
    let mut messages: Vec<Message> = Vec::new();
    while messages.last().is_none_or(|message| message.body != END) {
        let delivery = tokio::time::timeout(LONG, deliveries.next()).await;
        let delivery = delivery.expect("the end comes within a minute");
        messages.push(delivery.expect("a message").expect("a message").into());
    }
    messages.pop();
    // Else it would go on consuming.
    channel.close(200, "done".into()).await.unwrap();
    messages
}
