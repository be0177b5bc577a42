//! Where things are measured: a private broker, a vhost with one queue that takes everything, and
//! bridges of the release binary whose journal lies on a disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::role::{Actor, Role};
use crate::sender::{Answers, Load};
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::vhost::Vhost;
use crate::support::wait::eventually;

pub const EXCHANGE: &str = "chat-sessions";
pub const QUEUES: [&str; 2] = ["quorum", "classic"];
pub const CONNECTIONS: usize = 32;
/// Sessions of a webhook, where nothing else is said.
pub const ARRAY: usize = 10;
/// Between two looks at a backlog.
const PAUSE: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_mins(10);

pub struct Place {
    pub broker: Broker,
    pub vhost: Vhost,
    dir: PathBuf,
}

impl Place {
    /// Starts a broker of our own.
    ///
    /// # Errors
    /// There is none to be had.
    pub async fn make(dir: PathBuf) -> Result<Self, String> {
        let broker = tokio::spawn(Broker::own()).await;
        let broker = broker.map_err(|_| "no RabbitMQ could be started, see above")?;
        let vhost = broker.vhost().await;
        Ok(Self { broker, vhost, dir })
    }

    /// The broker's version.
    pub async fn rabbitmq(&self) -> String {
        let overview = self
            .vhost
            .management(hyper::Method::GET, "overview", &json!(null))
            .await;
        let version = overview.json()["rabbitmq_version"].clone();
        version.as_str().unwrap_or_default().to_owned()
    }

    /// A bridge with an empty journal, not yet started.
    pub fn bridge(&self) -> BridgeBuilder {
        let journal = self.dir.join("bench-journal");
        let _ = std::fs::remove_dir_all(&journal);
        BridgeBuilder::new(&self.vhost)
            .with("telemetry.log_level = \"info\"")
            .journal_in(&journal)
    }

    /// The same with these lines of configuration, started, connected, and subscribed to.
    pub async fn working_bridge(&self, toml: &str, queue: &str) -> Bridge {
        let mut bridge = self.bridge().with(toml).build();
        bridge.start().await;
        bridge.broker_is("connected").await;
        self.subscribe(queue).await;
        bridge
    }

    /// Lets a queue of this kind, and no other one, take everything; the exchange must be there.
    pub async fn subscribe(&self, kind: &str) {
        for queue in QUEUES {
            self.vhost.delete_queue(queue).await; // no error if there is none
        }
        let arguments = json!({"x-queue-type": kind});
        self.vhost.declare_queue(kind, arguments).await;
        self.vhost.bind(kind, EXCHANGE, "#").await;
    }

    /// Waits until so many messages are in a queue.
    pub async fn arrived(&self, queue: &str, sessions: usize) {
        let count = u32::try_from(sessions).expect("a count of messages");
        eventually("everything is in the queue", LONG, || async {
            self.vhost.message_count(queue).await == Some(count)
        })
        .await;
    }

    /// Waits until the bridge has nothing to do, emptying the queue meanwhile: the broker's memory
    /// is not what is measured.
    pub async fn drained(&self, bridge: &Bridge, queue: &str) {
        let begin = Instant::now();
        loop {
            let is_empty = bridge.status().await["backlog"]["events"] == 0;
            self.vhost.purge_queue(queue).await;
            if is_empty {
                return;
            }
            assert!(begin.elapsed() < LONG, "the backlog does not drain");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Sends a load and waits for the last answer.
pub async fn send(load: Load) -> Answers {
    timed(load).await.1
}

/// The same, and when it began.
pub async fn timed(load: Load) -> (Instant, Answers) {
    let mut sender = Actor::start(&Role::Send(load)).await;
    let begin = Instant::now();
    sender.go();
    (begin, sender.result().await)
}
