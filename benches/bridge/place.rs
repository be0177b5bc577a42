//! The environment of the measurements: a private broker, a vhost with one queue that receives
//! everything, and bridges of the release binary whose journal is on a disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cost;
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
/// Sessions per webhook, unless stated otherwise.
pub const ARRAY: usize = 10;
/// Interval between polls of the backlog.
const PAUSE: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_mins(10);

pub struct Place {
    pub broker: Broker,
    pub vhost: Vhost,
    /// The directory of the journals, on the measured disk.
    pub dir: PathBuf,
}

impl Place {
    /// Starts a private broker.
    ///
    /// # Errors
    /// No broker could be started.
    pub async fn make(dir: PathBuf) -> Result<Self, String> {
        let broker = tokio::spawn(Broker::own_with("")).await;
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

    /// The directory of the usual journal.
    pub fn journal(&self) -> PathBuf {
        self.dir.join("bench-journal")
    }

    /// A bridge with an empty journal, not started.
    pub fn bridge(&self) -> BridgeBuilder {
        self.bridge_in(&self.journal())
    }

    /// As [`Place::bridge`], with its journal in this directory.
    pub fn bridge_in(&self, journal: &Path) -> BridgeBuilder {
        let _ = std::fs::remove_dir_all(journal);
        BridgeBuilder::new(&self.vhost)
            .with("telemetry.log_level = \"info\"")
            .journal_in(journal)
    }

    /// As [`Place::bridge`], with these lines of configuration, started and connected, and with a
    /// queue for its messages.
    pub async fn working_bridge(&self, toml: &str, queue: &str) -> Bridge {
        let mut bridge = self.bridge().with(toml).build();
        bridge.start().await;
        bridge.broker_is("connected").await;
        self.subscribe(queue).await;
        bridge
    }

    /// Makes a queue of this type the only one and binds it to everything; the exchange must exist.
    pub async fn subscribe(&self, kind: &str) {
        for queue in QUEUES {
            self.vhost.delete_queue(queue).await; // no error if it does not exist
        }
        let arguments = json!({"x-queue-type": kind});
        self.vhost.declare_queue(kind, arguments).await;
        self.vhost.bind(kind, EXCHANGE, "#").await;
    }

    /// Waits until exactly this number of messages is in a queue.
    pub async fn arrived(&self, queue: &str, sessions: usize) {
        let count = u32::try_from(sessions).expect("a count of messages");
        eventually("everything is in the queue", LONG, || async {
            self.vhost.message_count(queue).await == Some(count)
        })
        .await;
    }

    /// Waits until the bridge has no pending events. The queue is emptied meanwhile, because the
    /// broker's memory is not measured.
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

/// Waits until no event is pending and the background work is done: the archive is up to date.
pub async fn finished(bridge: &Bridge) {
    bridge.backlog_is_empty().await;
    cost::at_rest(bridge.pid()).await;
}

/// Sends a load and waits for the last answer.
pub async fn send(load: Load) -> Answers {
    timed(load).await.1
}

/// As [`send`], also with the start time.
pub async fn timed(load: Load) -> (Instant, Answers) {
    let mut sender = Actor::start(&Role::Send(load)).await;
    let begin = Instant::now();
    sender.go();
    (begin, sender.result().await)
}
