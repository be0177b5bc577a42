//! The genuine sender, whose webhooks must be answered throughout an attack. It is not near the
//! bridge: a proxy delays and throttles its connections. It sends bodies of three sizes at the same
//! time, each on a kept connection and on new connections in turn.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hyper::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::http::Client;
use crate::support::proxy::{Direction, Proxy};
use crate::support::sender::{PATH, SECRET, array_of, session, sign};
use crate::support::wait::{SOON, eventually};

const PAUSE: Duration = Duration::from_millis(10);

const BYTES_PER_SECOND: u64 = 2_000_000;

/// The response time of each webhook: from its last byte to the answer, without the delay of both.
pub struct Answers(Vec<Duration>);

/// Posts until it is stopped; panics unless each answer is 202 and comes in time.
pub struct Genuine {
    is_stopped: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    task: JoinHandle<Answers>,
}

impl Genuine {
    pub fn start(bridge: SocketAddr) -> Self {
        Self::every(PAUSE, bridge)
    }

    /// Posts with this pause after each answer.
    pub fn every(pause: Duration, bridge: SocketAddr) -> Self {
        let (is_stopped, answered) = (Arc::default(), Arc::default());
        let (stop, count) = (Arc::clone(&is_stopped), Arc::clone(&answered));
        let lengths = [1_000, 100_000, super::size(400_000, 5_000_000)];
        let task = tokio::spawn(async move {
            let posts = lengths.map(|length| {
                let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
                post(bridge, length, pause, stop, count)
            });
            let mut answers = join_all(posts).await.concat();
            answers.sort_unstable();
            Answers(answers)
        });
        Self {
            is_stopped,
            answered,
            task,
        }
    }

    /// Continues until this number of webhooks is answered; at full scale for this time.
    pub async fn goes_on(&self, webhooks: usize, full: Duration) {
        tokio::time::sleep(super::size(Duration::ZERO, full)).await;
        eventually("genuine webhooks are answered", 3 * SOON, || async {
            self.task.is_finished() || self.answered.load(Ordering::Relaxed) >= webhooks
        })
        .await;
    }

    pub async fn stop(self) -> Answers {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.task
            .await
            .expect("every genuine webhook is answered 202")
    }
}

async fn post(
    bridge: SocketAddr,
    length: usize,
    pause: Duration,
    is_stopped: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) -> Vec<Duration> {
    let delay = Duration::from_millis(super::size(20, 80));
    let proxy = Proxy::to(bridge).await;
    proxy.delay(delay);
    proxy.throttle(BYTES_PER_SECOND);
    let mut answers = Vec::new();
    let mut kept = Client::new(proxy.address());
    while !is_stopped.load(Ordering::Relaxed) {
        let id = format!("genuine-{}-{length}", answers.len());
        let mut body = array_of(&[session(&id, "created", json!({}))]);
        body.resize(length, b' ');
        let signature = sign(SECRET, &body);
        let headers = [("x-dd-signature", &*signature)];
        let is_kept = answers.len().is_multiple_of(2);
        let ask = async {
            // A kept connection may have been evicted while it was idle, so it may reconnect. For a
            // new connection no failure is acceptable.
            if is_kept {
                let answer = kept.request(Method::POST, PATH, &headers, body.clone());
                if let Ok(answer) = answer.await {
                    return Ok(answer);
                }
            }
            let mut new = Client::new(proxy.address());
            new.request(Method::POST, PATH, &headers, body).await
        };
        let mut ask = pin!(tokio::time::timeout(SOON, ask));
        let (mut sent, mut sent_at) = (0, Instant::now());
        let answer = loop {
            tokio::select! {
                answer = &mut ask => break answer,
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
            let bytes = proxy.bytes(Direction::Up);
            if bytes > sent {
                (sent, sent_at) = (bytes, Instant::now());
            }
        };
        let response_time = sent_at.elapsed();
        let answer = answer
            .unwrap_or_else(|_| panic!("{id} was not answered in time"))
            .unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(answer.status, 202, "{id}: {}", answer.text());
        answers.push(response_time.saturating_sub(delay));
        answered.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(pause).await;
    }
    answers
}

impl Answers {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn p99(&self) -> Duration {
        self.0[self.0.len() * 99 / 100]
    }

    pub fn slowest(&self) -> Duration {
        self.0[self.0.len() - 1]
    }

    /// Prints one line: the response times under attack and before it.
    pub fn report(&self, attack: &str, calm: &Self) {
        let ratio = self.p99().as_secs_f64() / calm.p99().as_secs_f64();
        println!(
            "flood: {attack}: {} genuine webhooks, all 202; p99 {:.1?} calm, {:.1?} under attack, \
             ratio {ratio:.2}; the slowest {:.1?}",
            self.count(),
            calm.p99(),
            self.p99(),
            self.slowest()
        );
    }
}

/// A bridge without a broker: these answers do not depend on one.
pub fn alone() -> BridgeBuilder {
    BridgeBuilder::without_broker().with("telemetry.log_level = \"info\"")
}

/// The response times of genuine webhooks before an attack.
pub async fn calm(bridge: &Bridge) -> Answers {
    let genuine = Genuine::start(bridge.address());
    genuine.goes_on(50, Duration::from_secs(15)).await;
    genuine.stop().await
}
