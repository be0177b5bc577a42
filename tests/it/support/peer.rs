//! A fake broker: it speaks AMQP 0-9-1 as a script tells it, and can hang up at an exact byte. It
//! accepts every name of an exchange or queue, and records every message.

pub mod say;
mod session;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use amq_protocol::protocol::AMQPClass;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::message::Message;
pub use say::Say;

/// A message that the peer has received completely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The number of the connection, from 1.
    pub connection: usize,
    pub channel: u16,
    /// The publisher's delivery tag, counted from 1 on each channel.
    pub tag: u64,
    pub exchange: String,
    pub routing_key: String,
    pub message_id: String,
    /// The session id.
    pub correlation_id: String,
    pub body: Vec<u8>,
}

/// What the peer has just received.
#[derive(Debug)]
pub enum What {
    /// The protocol header.
    Hello,
    /// A method other than `basic.publish`.
    Method(AMQPClass),
    /// The last frame of a message.
    Message(Stored),
}

/// What the peer has just received, and on which connection and channel.
#[derive(Debug)]
pub struct Heard {
    /// The number of the connection, from 1.
    pub connection: usize,
    pub channel: u16,
    pub what: What,
}

/// Decides what the peer sends to the client; `None` means what a broker would send.
type Script = dyn Fn(&Heard) -> Option<Vec<Say>> + Send + Sync;

/// The direction of the bytes that [`Peer::cut_first_at`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Bytes from the client.
    In,
    /// Bytes from the peer.
    Out,
}

/// A scripted peer on its own address; gone when dropped.
pub struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _connections: JoinSet<()>,
}

/// State that the connections of a peer share.
struct Shared {
    script: Box<Script>,
    tune: Tune,
    cut: Option<(Way, u64)>,
    stored: Mutex<Vec<Stored>>,
    is_cut: AtomicBool,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    connections: AtomicUsize,
    heartbeats: AtomicUsize,
}

/// The limits that the peer proposes.
#[derive(Debug, Clone, Copy)]
pub struct Tune {
    pub channel_max: u16,
    pub frame_max: u32,
    pub heartbeat_seconds: u16,
}

impl Default for Tune {
    fn default() -> Self {
        Self {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat_seconds: 60,
        }
    }
}

impl Peer {
    /// A well-behaved broker: accepts everything and confirms every message.
    pub async fn good() -> Self {
        Self::scripted(|_| None).await
    }

    /// A broker that follows a script.
    pub async fn scripted(
        script: impl Fn(&Heard) -> Option<Vec<Say>> + Send + Sync + 'static,
    ) -> Self {
        Self::scripted_and_tuned(script, Tune::default()).await
    }

    /// A well-behaved broker that proposes these limits.
    pub async fn tuned(tune: Tune) -> Self {
        Self::scripted_and_tuned(|_| None, tune).await
    }

    /// A broker that follows a script and proposes these limits.
    pub async fn scripted_and_tuned(
        script: impl Fn(&Heard) -> Option<Vec<Say>> + Send + Sync + 'static,
        tune: Tune,
    ) -> Self {
        Self::listen(Box::new(script), tune, None).await
    }

    /// A well-behaved broker that resets its first connection after `bytes` bytes in this
    /// direction.
    pub async fn cut_first_at(way: Way, bytes: u64) -> Self {
        Self::listen(Box::new(|_| None), Tune::default(), Some((way, bytes))).await
    }

    async fn listen(script: Box<Script>, tune: Tune, cut: Option<(Way, u64)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script,
            tune,
            cut,
            stored: Mutex::default(),
            is_cut: AtomicBool::new(false),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            heartbeats: AtomicUsize::new(0),
        });
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            _connections: connections,
        }
    }

    /// The URL to connect to.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Heartbeats received so far.
    pub fn heartbeats(&self) -> usize {
        self.shared.heartbeats.load(Ordering::SeqCst)
    }

    /// Whether the byte of [`Peer::cut_first_at`] was reached.
    pub fn is_cut(&self) -> bool {
        self.shared.is_cut.load(Ordering::SeqCst)
    }

    /// Bytes of the first connection in this direction.
    pub fn bytes(&self, way: Way) -> u64 {
        self.shared.bytes(way).load(Ordering::SeqCst)
    }

    /// All received messages, in order, duplicates included.
    pub fn stored(&self) -> Vec<Stored> {
        self.shared.stored.lock().unwrap().clone()
    }

    /// As [`Peer::stored`], as messages of a subscriber.
    pub fn messages(&self) -> Vec<Message> {
        self.stored().into_iter().map(Message::from).collect()
    }

    /// The bodies of [`Peer::stored`] without duplicates, in order of first arrival.
    pub fn first_bodies(&self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        let stored = self.stored();
        let first = stored
            .iter()
            .filter(|one| seen.insert(one.message_id.clone()));
        first
            .map(|one| String::from_utf8_lossy(&one.body).into_owned())
            .collect()
    }
}

impl From<Stored> for Message {
    fn from(stored: Stored) -> Self {
        Self {
            exchange: stored.exchange,
            routing_key: stored.routing_key,
            redelivered: false,
            body: stored.body,
            delivery_mode: None,
            content_type: None,
            message_id: Some(stored.message_id),
            correlation_id: Some(stored.correlation_id),
            kind: None,
            app_id: None,
            timestamp: None,
            headers: std::collections::BTreeMap::new(),
        }
    }
}

impl Shared {
    fn bytes(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::In => &self.bytes_in,
            Way::Out => &self.bytes_out,
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            Ok((socket, _)) = listener.accept() => {
                let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                sessions.spawn(session::serve(socket, number, Arc::clone(&shared)));
            }
            Some(ended) = sessions.join_next() => ended.expect("the peer does not panic"),
        }
    }
}
