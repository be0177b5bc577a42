//! The senders. Each owns its sessions and sends one request at a time, repeating the same bytes
//! until the request is accepted or given up. In addition, one request in ten is forged, and some
//! accepted requests are sent once more.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Method;
use tokio::task::JoinHandle;

use crate::event::{Event, FORGED, Script};
use crate::ledger::{Ledger, Outcome};
use crate::random::Random;
use crate::support::http::Client;
use crate::support::sender::{PATH, sign};

const SENDERS: u64 = 12;
/// Number of open sessions per sender.
const SESSIONS: usize = 60;
/// Number of events per session.
const LIFE: u32 = 30;
const ANSWER_MAX: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(25);
/// How much delay a sender makes up for by sending faster; the rest of a longer delay is dropped.
const BEHIND_MAX: Duration = Duration::from_secs(2);
const LARGE_ARRAY: u64 = 500;

/// State that all senders share.
pub struct Desk {
    pub script: Script,
    pub ledger: Arc<Ledger>,
    server: SocketAddr,
    secret: Mutex<String>,
    next_session: AtomicU32,
    next_forged: AtomicU32,
    is_closed: AtomicBool,
    /// Number of answers by status: 202 and 503.
    accepted: AtomicU32,
    refused: AtomicU32,
}

impl Desk {
    pub fn new(script: Script, ledger: &Arc<Ledger>, server: SocketAddr, secret: &str) -> Self {
        Self {
            script,
            ledger: Arc::clone(ledger),
            server,
            secret: Mutex::new(secret.to_owned()),
            next_session: AtomicU32::new(0),
            next_forged: AtomicU32::new(FORGED),
            is_closed: AtomicBool::new(false),
            accepted: AtomicU32::new(0),
            refused: AtomicU32::new(0),
        }
    }

    /// Requests accepted so far.
    pub fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Number of 503 answers so far.
    pub fn refused(&self) -> u32 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Signs all further requests with this secret.
    pub fn use_secret(&self, secret: &str) {
        secret.clone_into(&mut self.secret.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn secret(&self) -> String {
        self.secret
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// The number of a new session.
    pub fn new_session(&self) -> u32 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// The body of a webhook with these events.
    pub fn body(&self, events: &[Event]) -> Vec<u8> {
        let bodies: Vec<_> = events
            .iter()
            .map(|event| self.script.body(*event))
            .collect();
        [b"[", bodies.join(&b", "[..]).as_slice(), b"]"].concat()
    }

    /// Sends a request once; returns the outcome, or `None` if nobody listened.
    pub async fn send(&self, client: &mut Client, request: usize, body: &[u8]) -> Option<Outcome> {
        let begin = self.ledger.now();
        let signature = sign(&self.secret(), body);
        let outcome = post(client, self.server, &signature, body).await?;
        match outcome {
            Outcome::Ok => drop(self.accepted.fetch_add(1, Ordering::Relaxed)),
            Outcome::Fail(503) => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        self.ledger.attempted(request, begin, outcome);
        Some(outcome)
    }

    fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Relaxed)
    }
}

async fn post(
    client: &mut Client,
    server: SocketAddr,
    signature: &str,
    body: &[u8],
) -> Option<Outcome> {
    let headers = [("x-dd-signature", signature)];
    let sending = client.request(Method::POST, PATH, &headers, body.to_vec());
    match tokio::time::timeout(ANSWER_MAX, sending).await {
        Ok(Ok(answer)) if (200..300).contains(&answer.status) => Some(Outcome::Ok),
        Ok(Ok(answer)) => Some(Outcome::Fail(answer.status)),
        Ok(Err(failure)) if failure.is::<std::io::Error>() => None,
        Ok(Err(_)) => Some(Outcome::Info),
        Err(_) => {
            *client = Client::new(server);
            Some(Outcome::Info)
        }
    }
}

/// The running senders.
pub struct Producers {
    desk: Arc<Desk>,
    senders: Vec<JoinHandle<()>>,
}

impl Producers {
    /// Starts the senders; together they send this number of events per second.
    pub fn start(desk: &Arc<Desk>, rate: u32) -> Self {
        let senders = (0..SENDERS)
            .map(|number| {
                let sender = Sender::new(Arc::clone(desk), number, rate);
                tokio::spawn(sender.run())
            })
            .collect();
        Self {
            desk: Arc::clone(desk),
            senders,
        }
    }

    /// Stops sending new requests and waits for outstanding answers.
    pub async fn stop(self) {
        self.desk.is_closed.store(true, Ordering::Relaxed);
        for sender in self.senders {
            sender.await.expect("a sender does not panic");
        }
    }
}

struct Sender {
    desk: Arc<Desk>,
    random: Random,
    client: Client,
    /// Each open session with its last event.
    sessions: Vec<Event>,
    event_takes: Duration,
    next_at: Instant,
}

impl Sender {
    fn new(desk: Arc<Desk>, number: u64, rate: u32) -> Self {
        let client = Client::new(desk.server);
        let mut random = Random::new(desk.script.seed, 1000 + number);
        let sessions = (0..SESSIONS)
            .map(|_| Event {
                session: desk.new_session(),
                seq: 0,
            })
            .collect();
        let senders = u32::try_from(SENDERS).expect("a few");
        let event_takes = Duration::from_secs(1) * senders / rate.max(1);
        let start = random.exponential(Duration::from_millis(100));
        Self {
            desk,
            random,
            client,
            sessions,
            event_takes,
            next_at: Instant::now() + start,
        }
    }

    async fn run(mut self) {
        while self.desk.is_open() {
            let now = Instant::now();
            self.next_at = self.next_at.max(now.checked_sub(BEHIND_MAX).unwrap_or(now));
            tokio::time::sleep_until(self.next_at.into()).await;
            let events = self.next_events();
            self.next_at += self.event_takes * u32::try_from(events.len()).expect("few");
            self.deliver(events).await;
            if self.random.percent(10) {
                self.forge().await;
            }
        }
    }

    /// Mostly one or two events, sometimes many, sometimes several of one session.
    fn next_events(&mut self) -> Vec<Event> {
        let count = match self.random.below(1000) {
            0..400 => 1,
            400..600 => 2,
            600..995 => 3 + zipf(&mut self.random, 60),
            _ => LARGE_ARRAY,
        };
        (0..count).map(|_| self.next_event()).collect()
    }

    fn next_event(&mut self) -> Event {
        let position = self.random.index(SESSIONS);
        let session = &mut self.sessions[position];
        if session.seq == LIFE {
            *session = Event {
                session: self.desk.new_session(),
                seq: 0,
            };
        }
        session.seq += 1;
        *session
    }

    async fn deliver(&mut self, events: Vec<Event>) {
        let body = self.desk.body(&events);
        let request = self.desk.ledger.request(events);
        let mut patience = if self.random.percent(10) { 1 } else { 30 };
        while patience > 0 {
            match self.desk.send(&mut self.client, request, &body).await {
                Some(Outcome::Ok) => {
                    if self.random.percent(2) {
                        self.desk.send(&mut self.client, request, &body).await;
                    }
                    return;
                }
                Some(_) => patience -= 1,
                None => {}
            }
            if !self.desk.is_open() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends a request that is not signed with the secret.
    async fn forge(&mut self) {
        let event = Event {
            session: self.desk.next_forged.fetch_add(1, Ordering::Relaxed),
            seq: 1,
        };
        let mut body = self.desk.body(&[event]);
        let secret = self.desk.secret();
        let signature = match self.random.below(5) {
            0 => sign("another secret altogether", &body),
            1 => {
                let signature = sign(&secret, &body);
                body.push(b'\n');
                signature
            }
            2 => String::new(),
            3 => sign(&secret, b""),
            _ => {
                let right = sign(&secret, &body);
                right[..right.len() - 2].to_owned()
            }
        };
        let outcome = post(&mut self.client, self.desk.server, &signature, &body).await;
        let code = match outcome {
            Some(Outcome::Ok) => 202,
            Some(Outcome::Fail(code)) => code,
            Some(Outcome::Info) => 0,
            None => return,
        };
        *self.desk.ledger.history().forged.entry(code).or_default() += 1;
    }
}

/// A number below `bound`; small numbers are frequent, large ones rare.
fn zipf(random: &mut Random, bound: u32) -> u64 {
    let exponent = random.fraction() * f64::from(bound).ln();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the bound"
    )]
    let number = exponent.exp() as u64;
    number - 1
}
