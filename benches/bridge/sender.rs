//! The part of DeskDirector, in a process of its own: requests are signed and built in memory
//! before the measurement starts, and of the answers only the status is read. Every answer must be
//! 202.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bodies::{Elements, Shape};
use crate::cost::Cost;
use crate::role;
use crate::statistics::quantile;
use crate::support::sender::signed_head;

/// What is sent, and how.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    pub server: SocketAddr,
    pub sessions: usize,
    /// Sessions per request.
    pub array: usize,
    pub connections: usize,
    pub shape: Shape,
    pub pace: Pace,
}

/// When the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// As soon as the previous request on the same connection was answered.
    Full,
    /// As `Full`, but requests are built while sending: for more of them than should be in memory.
    FullUnprepared,
    /// This number of sessions per second, independent of the answers; requests are built while
    /// sending. Response times count from when a request was due.
    Paced(f64),
    /// As `Paced`, until it is stopped.
    UntilStopped(f64),
}

impl Load {
    pub fn new(server: SocketAddr, sessions: usize, array: usize, connections: usize) -> Self {
        Self {
            server,
            sessions,
            array,
            connections,
            shape: Shape::default(),
            pace: Pace::Full,
        }
    }
}

/// The results of a load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answers {
    pub sessions: usize,
    /// Total bytes of all bodies.
    pub bytes: usize,
    pub took: Duration,
    /// CPU time of the sender itself.
    pub cpu: Duration,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
    /// When each request was sent, or was due if it was late: microseconds since 1970.
    pub sent_us: Vec<u64>,
}

impl Answers {
    pub fn rate(&self) -> f64 {
        crate::statistics::float(self.sessions) / self.took.as_secs_f64()
    }
}

/// Microseconds since 1970.
pub fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let micros = since.expect("a clock after 1970").as_micros();
    u64::try_from(micros).expect("a clock before the year 500000")
}

/// Runs this role.
pub fn play(load: &Load) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answers = runtime.expect("a runtime").block_on(send(load));
    role::say(&answers);
}

async fn send(load: &Load) -> Answers {
    let work = Arc::new(Work::new(load));
    role::wait_for_go();
    if let Pace::UntilStopped(_) = load.pace {
        let work = Arc::clone(&work);
        std::thread::spawn(move || {
            role::wait_for_line();
            work.is_stopped.store(true, Ordering::Relaxed);
        });
    }
    let pid = std::process::id();
    let (cost, begin) = (Cost::of(pid), Instant::now());
    let workers: Vec<_> = (0..load.connections)
        .map(|_| tokio::spawn(connection(Arc::clone(&work), begin)))
        .collect();
    let mut replies = Vec::new();
    for worker in workers {
        replies.extend(worker.await.expect("a sender ends well"));
    }
    let (elapsed, cpu) = (begin.elapsed(), cost.since(pid));
    replies.sort_unstable_by_key(|reply: &Reply| reply.number);
    let mut took: Vec<_> = replies.iter().map(|reply| reply.took).collect();
    took.sort_unstable();
    let milliseconds = |part| quantile(&took, part).as_secs_f64() * 1e3;
    let requests = work.next.load(Ordering::Relaxed).min(work.requests);
    Answers {
        sessions: (requests * load.array).min(work.sessions),
        bytes: work.bytes.load(Ordering::Relaxed),
        took: elapsed,
        cpu,
        p50_ms: milliseconds(0.5),
        p99_ms: milliseconds(0.99),
        p999_ms: milliseconds(0.999),
        max_ms: milliseconds(1.0),
        sent_us: replies.into_iter().map(|reply| reply.sent_us).collect(),
    }
}

/// State that all connections share.
struct Work {
    load: Load,
    elements: Elements,
    sessions: usize,
    requests: usize,
    prepared: Vec<Vec<u8>>,
    next: AtomicUsize,
    bytes: AtomicUsize,
    is_stopped: AtomicBool,
}

impl Work {
    fn new(load: &Load) -> Self {
        let sessions = match load.pace {
            Pace::UntilStopped(_) => usize::MAX / 2,
            Pace::Full | Pace::FullUnprepared | Pace::Paced(_) => load.sessions,
        };
        let mut work = Self {
            load: load.clone(),
            elements: Elements::new(load.shape.clone()),
            sessions,
            requests: sessions.div_ceil(load.array),
            prepared: Vec::new(),
            next: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
        };
        if load.pace == Pace::Full {
            work.prepared = (0..work.requests).map(|n| work.request(n)).collect();
        }
        work
    }

    /// A complete, signed request.
    fn request(&self, number: usize) -> Vec<u8> {
        let first = number * self.load.array;
        let end = (first + self.load.array).min(self.sessions);
        let body = self.elements.array(first..end);
        self.bytes.fetch_add(body.len(), Ordering::Relaxed);
        [signed_head(&body).as_bytes(), &body].concat()
    }

    /// The number of the next request, and when it is due.
    fn take(&self) -> Option<(usize, Duration)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.requests || self.is_stopped.load(Ordering::Relaxed) {
            self.next.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let due = match self.load.pace {
            Pace::Full | Pace::FullUnprepared => Duration::ZERO,
            Pace::Paced(sessions_per_second) | Pace::UntilStopped(sessions_per_second) => {
                let first = crate::statistics::float(number * self.load.array);
                Duration::from_secs_f64(first / sessions_per_second)
            }
        };
        Some((number, due))
    }
}

/// The answer to a request.
struct Reply {
    number: usize,
    sent_us: u64,
    took: Duration,
}

async fn connection(work: Arc<Work>, begin: Instant) -> Vec<Reply> {
    let mut stream = TcpStream::connect(work.load.server)
        .await
        .expect("somebody listens");
    stream.set_nodelay(true).expect("a socket option");
    let is_paced = matches!(work.load.pace, Pace::Paced(_) | Pace::UntilStopped(_));
    let mut replies = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    while let Some((number, due)) = work.take() {
        let made;
        let request = if let Some(prepared) = work.prepared.get(number) {
            prepared
        } else {
            made = work.request(number);
            &made
        };
        let due = begin + due;
        let is_late = Instant::now() >= due;
        tokio::time::sleep_until(due.into()).await;
        let since = if is_paced && is_late {
            due
        } else {
            Instant::now()
        };
        let sent_us = micros(SystemTime::now() - since.elapsed());
        stream.write_all(request).await.expect("sent");
        read_answer(&mut stream, &mut buffer).await;
        replies.push(Reply {
            number,
            sent_us,
            took: since.elapsed(),
        });
    }
    replies
}

/// Reads one complete answer; any status but 202 ends the process.
pub async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..]).await.expect("an answer");
        assert!(read > 0, "the connection was closed without an answer");
        length += read;
        // The body is one JSON object, and no string in a 202 without problems contains a brace.
        if buffer[..length].ends_with(b"}") {
            break;
        }
    }
    let answer = &buffer[..length];
    assert!(
        answer.starts_with(b"HTTP/1.1 202"),
        "{}",
        String::from_utf8_lossy(answer)
    );
}
