//! The parts of a run: a broker, the network to it, a bridge, senders and consumers. Queries work
//! also while any of them is down.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::consumer::{Consumers, name_of};
use crate::event::{EXCHANGES, ROUTES, Script};
use crate::ledger::{Ledger, Queue};
use crate::producer::Desk;
use crate::support::bridge::builder::BridgeBuilder;
use crate::support::bridge::run::Bridge;
use crate::support::broker::Broker;
use crate::support::http::get;
use crate::support::metrics::Metrics;
use crate::support::proxy::Proxy;
use crate::support::sender::SECRET;
use crate::support::vhost::Vhost;

/// A user of its own for the bridge, so that the bridge can be locked out without the consumers.
pub const USER: &str = "bridge";
pub const PASSWORD: &str = "bridge";
/// A queue bound to everything, without a consumer, for deletion.
pub const SACRIFICE: &str = "sacrifice";
pub const IN_FLIGHT_MAX: u64 = 128;

const ASK_MAX: Duration = Duration::from_secs(2);
const START_MAX: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

pub struct Stage {
    pub broker: Arc<Broker>,
    pub vhost: Vhost,
    pub proxy: Proxy,
    pub ledger: Arc<Ledger>,
    pub desk: Arc<Desk>,
    pub consumers: Consumers,
    bridge: Mutex<Bridge>,
    pub admin: SocketAddr,
    pid: AtomicU32,
    starts: AtomicU64,
}

impl Stage {
    /// Starts and connects everything; nothing has been sent yet.
    pub async fn set(broker: Arc<Broker>, seed: u64) -> Self {
        let (script, ledger) = (Script { seed }, Arc::new(Ledger::new()));
        let vhost = broker.vhost().await;
        vhost.user(USER, PASSWORD).await;
        // Without an alternate exchange: the bridge finds it and leaves it unchanged.
        vhost.declare_exchange("bare", "topic", json!({})).await;
        let proxy = Proxy::to(vhost.amqp_address()).await;
        let url = format!(
            "amqp://{USER}:{PASSWORD}@{}/{}",
            proxy.address(),
            vhost.name
        );
        let mut bridge = configured(&url).build();
        bridge.start().await;
        bridge.broker_is("connected").await;
        declare_queues(&vhost).await;
        let consumers = Consumers::start(&vhost.amqp_url, script, &ledger);
        let desk = Desk::new(script, &ledger, bridge.address(), SECRET);
        Self {
            admin: bridge.admin_address(),
            pid: AtomicU32::new(bridge.pid()),
            starts: AtomicU64::new(1),
            bridge: Mutex::new(bridge),
            desk: Arc::new(desk),
            broker,
            vhost,
            proxy,
            ledger,
            consumers,
        }
    }

    /// Exclusive access to the bridge process, for as long as the guard lives.
    pub async fn bridge(&self) -> MutexGuard<'_, Bridge> {
        self.bridge.lock().await
    }

    /// Starts the bridge, which must be down.
    pub async fn start(&self, bridge: &mut Bridge) {
        bridge.start().await;
        self.pid.store(bridge.pid(), Ordering::Relaxed);
        self.starts.fetch_add(1, Ordering::Relaxed);
    }

    /// As [`Stage::start`], for a bridge without room for webhooks, which reports that it is not
    /// ready.
    pub async fn start_full(&self, bridge: &mut Bridge) {
        bridge.spawn();
        self.pid.store(bridge.pid(), Ordering::Relaxed);
        self.starts.fetch_add(1, Ordering::Relaxed);
        until(START_MAX, async || self.status().await.is_some()).await;
    }

    /// The process id of the last start.
    pub fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed)
    }

    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// `/status`, if the bridge answers.
    pub async fn status(&self) -> Option<Value> {
        let asking = get(self.admin, "/status");
        let answer = tokio::time::timeout(ASK_MAX, asking).await.ok()?.ok()?;
        serde_json::from_slice(&answer.body).ok()
    }

    /// `/metrics`, if the bridge answers.
    pub async fn metrics(&self) -> Option<Metrics> {
        let asking = get(self.admin, "/metrics");
        let answer = tokio::time::timeout(ASK_MAX, asking).await.ok()?.ok()?;
        (answer.status == 200).then(|| Metrics::parse(&answer.text()))
    }

    /// Waits until the bridge reports this state of the broker.
    pub async fn broker_is(&self, state: &str, within: Duration) -> Result<String, String> {
        let is_so = async || Some(self.status().await?["broker"]["state"] == state);
        let found = until(within, async || is_so().await.unwrap_or(false)).await;
        found
            .then(|| format!("the bridge says that the broker is {state}"))
            .ok_or_else(|| format!("the bridge never said that the broker is {state}"))
    }

    /// Restores the bindings of this exchange.
    pub async fn bind(&self, exchange: &str) {
        for queue in queues_of(exchange) {
            self.vhost.bind(&queue, exchange, "#").await;
        }
    }

    /// Removes all bindings of this exchange, that of the queue for everything last: so each event
    /// is either in that queue or unrouted, and never only in a queue that does not show its order.
    pub async fn unbind(&self, exchange: &str) {
        for queue in queues_of(exchange).iter().rev() {
            self.vhost.unbind(queue, exchange, "#").await;
        }
    }
}

fn configured(url: &str) -> BridgeBuilder {
    BridgeBuilder::at(url)
        .with(if std::env::var_os("CHAOS_VERBOSE").is_some() {
            // With this retention the journal shows after the run what became of each event.
            "telemetry.log_level = 'debug'\njournal = {retention = '1h', retention_bytes = '1GiB'}"
        } else {
            "telemetry.log_level = 'info'\njournal = {retention = '20s', retention_bytes = '16MiB'}"
        })
        .with("rabbitmq = {reconnect_delay_min = '50ms', reconnect_delay_max = '300ms'}")
        .with("rabbitmq = {confirm_timeout = '2s', heartbeat = '2s', connect_timeout = '2s'}")
        .with(&format!("rabbitmq.in_flight_max = {IN_FLIGHT_MAX}"))
        .with("retry = {delay_min = '50ms', delay_max = '1s', attempts_max = 1000000}")
        .with(&format!("[routing.statuses]{ROUTES}"))
}

fn queues_of(exchange: &str) -> Vec<String> {
    let position = EXCHANGES.iter().position(|name| *name == exchange);
    let position = u8::try_from(position.expect("one of ours")).expect("a few");
    [Queue::All, Queue::Audit(position)].map(name_of).into()
}

async fn declare_queues(vhost: &Vhost) {
    let arguments = json!({
        "x-queue-type": "quorum",
        "x-single-active-consumer": true,
        "x-delivery-limit": 1_000_000_000,
    });
    for exchange in EXCHANGES {
        for queue in queues_of(exchange) {
            vhost.declare_queue(&queue, arguments.clone()).await;
            vhost.bind(&queue, exchange, "#").await;
        }
    }
    declare_sacrifice(vhost).await;
}

/// Declares the queue for deletion and binds it to everything.
pub async fn declare_sacrifice(vhost: &Vhost) {
    vhost
        .declare_queue(SACRIFICE, json!({"x-max-length": 100}))
        .await;
    for exchange in ["chat-sessions", "agents"] {
        vhost.bind(SACRIFICE, exchange, "#").await;
    }
}

/// Polls until the condition holds; false if it does not hold within this time.
pub async fn until<C: Future<Output = bool>>(
    within: Duration,
    mut condition: impl FnMut() -> C,
) -> bool {
    let end = Instant::now() + within;
    loop {
        if condition().await {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
