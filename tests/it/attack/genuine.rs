//! The sender whose webhooks have to be answered all the time: on a connection it keeps and on
//! new ones in turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::bridge::builder::{BridgeBuilder, free_address};
use crate::support::bridge::run::Bridge;
use crate::support::http::Client;
use crate::support::sender::{PATH, SECRET, array_of, session, sign};

const PAUSE: Duration = Duration::from_millis(10);

/// How long each answer took.
pub struct Answers(Vec<Duration>);

/// Posts until it is stopped; panics at anything but a 202 within ten seconds.
pub struct Genuine {
    is_stopped: Arc<AtomicBool>,
    task: JoinHandle<Answers>,
}

impl Genuine {
    pub fn start(bridge: SocketAddr) -> Self {
        Self::every(PAUSE, bridge)
    }

    /// With this pause after each answer.
    pub fn every(pause: Duration, bridge: SocketAddr) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(post(bridge, pause, Arc::clone(&is_stopped)));
        Self { is_stopped, task }
    }

    pub async fn stop(self) -> Answers {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.task
            .await
            .expect("every genuine webhook is answered 202")
    }
}

async fn post(bridge: SocketAddr, pause: Duration, is_stopped: Arc<AtomicBool>) -> Answers {
    let mut answers = Vec::new();
    let mut kept = Client::new(bridge);
    while !is_stopped.load(Ordering::Relaxed) {
        let id = format!("genuine-{}", answers.len());
        let body = array_of(&[session(&id, "created", json!({}))]);
        let signature = sign(SECRET, &body);
        let headers = [("x-dd-signature", &*signature)];
        let begin = Instant::now();
        let ask = async {
            // One that is kept may have had to give way while nothing was asked on it; a new one
            // has no such excuse.
            if answers.len().is_multiple_of(2) {
                let answer = kept.request(Method::POST, PATH, &headers, body.clone());
                if let Ok(answer) = answer.await {
                    return Ok(answer);
                }
            }
            let mut new = Client::new(bridge);
            new.request(Method::POST, PATH, &headers, body).await
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), ask).await;
        let answer = answer
            .unwrap_or_else(|_| panic!("{id} waited for ten seconds"))
            .unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(answer.status, 202, "{id}: {}", answer.text());
        answers.push(begin.elapsed());
        tokio::time::sleep(pause).await;
    }
    answers.sort_unstable();
    Answers(answers)
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

    /// One line for people: how much slower than in calm times.
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

/// A bridge without a broker: nobody waits for one.
pub fn alone() -> BridgeBuilder {
    let nobody = format!("amqp://guest:guest@{}/", free_address());
    BridgeBuilder::at(&nobody).with("telemetry.log_level = \"info\"")
}

/// What the genuine sender finds while nobody attacks.
pub async fn calm(bridge: &Bridge) -> Answers {
    let genuine = Genuine::start(bridge.address());
    tokio::time::sleep(super::size(Duration::from_secs(2), Duration::from_secs(15))).await;
    genuine.stop().await
}
